"""One by one, by hand."""

import math

import numpy as np
import pytest

from unrecall.record.discoveries import discoveries, epsilon


def test_a_record_above_all_of_nineteen_has_p_one_in_twenty() -> None:
    scores = np.array([100.0, 101.0, *range(19)])
    forget = np.arange(21) < 2
    # both p are 1/20; Benjamini and Hochberg: 2 of 2 at .05 <= .1
    assert discoveries(scores, forget) == 2
    # p of 1/20 and 20/20: the smaller is .05 * 2 / 1 = .1 <= .1
    assert discoveries(np.array([100.0, -1.0, *range(19)]), forget) == 1
    # p of 2/20: .1 * 2 / 1 = .2
    assert discoveries(np.array([17.5, -1.0, *range(19)]), forget) == 0


@pytest.mark.parametrize(("p", "least"), [(1e-4, math.log(500)), (0.05, 0.0), (0.7, 0.0)])
def test_epsilon_is_the_log_of_alpha_over_p(p: float, least: float) -> None:
    assert epsilon(p) == pytest.approx(least)
