"""The average gap's interval, by hand."""

import pytest

from tests.worlds.records import measurement
from unrecall.metrics.gap import NAMES, gap_of
from unrecall.record.schema import Estimate, Measurement


def part(name: str, unlearned: Estimate) -> Measurement:
    """One of the four figures: .5 where retrained models have .4."""
    row = measurement(name, name, "forgetting", (0.5, 0.5, 0.5), (0.4, 0.4), "leaks")
    return row.model_copy(update={"unlearned": unlearned})


def test_the_interval_adds_the_four_figures_in_squares() -> None:
    gap = gap_of([part(name, Estimate(value=0.5, low=0.46, high=0.54, n=9)) for name in NAMES]).unlearned
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.08, 0.12))  # .04 x 2 / 4


def test_there_is_none_where_a_figure_has_none() -> None:
    whole = [part(name, Estimate(value=0.5, low=0.46, high=0.54, n=9)) for name in NAMES[1:]]
    gap = gap_of([part(NAMES[0], Estimate(value=0.5, n=9)), *whole]).unlearned
    assert (gap.value, gap.low, gap.high) == (pytest.approx(0.1), None, None)
    assert gap.note == "no interval: one of its four figures has none"
