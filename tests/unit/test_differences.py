"""Where a method or figure is not quite its authors' code, its docstring says so: what was compared with that code."""

import pytest

from unrecall.attacks import RMIA, Lira
from unrecall.methods import SCRUB, SalUn
from unrecall.metrics import answers, truth


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RMIA.__doc__, "scores of non-members lie below one half on average where a < 1"),
        (RMIA.__doc__, "in z, which is corrected there as x is"),
        (SCRUB.__doc__, "keeps one optimiser, momentum included, over max- and min-steps and lowers its rate"),
        (SalUn.__doc__, "in the base's batch of 128 (256 there)"),
        (Lira.__doc__, "takes the median over OUT models"),
        (Lira.__doc__, "two-sided, this is one-sided"),
        (answers.measure.__doc__, "200 tokens there"),
        (truth.truth_ratio.__doc__, "take the geometric mean"),
    ],
)
def test_a_difference_from_the_authors_code_is_said(text: str | None, said: str) -> None:
    assert said in " ".join((text or "").split())
