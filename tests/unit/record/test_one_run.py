"""The one-run bound by hand."""

import math

import numpy as np
import pytest

from unrecall.errors import BadInput
from unrecall.record.one_run import epsilon_low, one_run, p_value


def test_five_of_five_under_no_memory() -> None:
    assert p_value(0.0, guesses=5, right=5, pairs=5) == pytest.approx(1 / 32)


def test_delta_adds_its_share_by_hand() -> None:
    """Bin(2, 1/2), v = 2: the widest step is max(P[1]/1, P[0, 1]/2) = max(1/2, 3/8); 1/4 + 2 x 2 x 0.1 x 1/2 = .45."""
    assert p_value(0.0, guesses=2, right=2, pairs=2, delta=0.1) == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("guesses", "right", "epsilon"), [(100, 100, 3.49), (100, 75, 0.70), (1000, 600, 0.30), (1000, 550, 0.09)]
)
def test_known_bounds(guesses: int, right: int, epsilon: float) -> None:
    assert epsilon_low(guesses, right, guesses) == pytest.approx(epsilon, abs=0.006)


def test_all_right_is_a_closed_form_and_chance_shows_nothing() -> None:
    """q^r = alpha, so epsilon is the logit of alpha^(1/r)."""
    q = 0.05 ** (1 / 40)
    assert epsilon_low(40, 40, 40) == pytest.approx(math.log(q / (1 - q)))
    assert epsilon_low(4, 4, 4) == 0
    assert epsilon_low(100, 50, 100) == 0
    assert epsilon_low(100, 100, 100, delta=1e-3) < epsilon_low(100, 100, 100)


def test_abstaining_helps_where_only_wide_gaps_say_something() -> None:
    """25 wide gaps, all right; 75 narrow ones, of which every second is right: a quarter of the pairs is guessed."""
    gaps = np.concatenate([np.full(25, 9.0), np.tile([0.1, -0.1], 38)[:75]])
    result = one_run(gaps)
    assert (result.pairs, result.guesses, result.right) == (100, 25, 25)
    assert result.epsilon == pytest.approx(epsilon_low(25, 25, 100, alpha=0.05 / 4))


def test_ties_are_abstained_on() -> None:
    assert one_run([0.0] * 10) == (0.0, 10, 0, 0)
    assert one_run([1.0] * 6 + [0.0] * 6).guesses == 6


def test_no_memory_is_bounded_by_0_in_19_of_20() -> None:
    generator = np.random.default_rng(0)
    assert np.mean([one_run(generator.normal(size=64)).epsilon > 0 for _ in range(300)]) <= 0.07


def test_counts_and_gaps_that_can_not_be_are_refused() -> None:
    with pytest.raises(BadInput, match="expected 0 <= right <= guesses <= pairs"):
        p_value(0.0, guesses=3, right=4, pairs=5)
    for gaps in ([], [math.nan], [[1.0]]):
        with pytest.raises(BadInput, match="expected one finite gap a pair"):
            one_run(gaps)
