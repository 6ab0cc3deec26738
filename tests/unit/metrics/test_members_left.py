"""The share of forget that is still told as members, by hand."""

import numpy as np
import pytest

from tests.worlds import CPU, World
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics.members_left import measure, members_left
from unrecall.record.schema import Measurement
from unrecall.record.stats import ALIKE

HOLDOUT = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
FORGET = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 4.5])
ORIGINAL = {"forget": FORGET, "holdout": HOLDOUT}


def test_the_share_by_hand() -> None:
    """At 0.7 the original counts 7 of 8 forgotten examples and none of the holdout; of another model it is 3 and 1."""
    own = {"forget": np.array([0.1, 0.2, 0.7, 1.0, 2.0, 3.0, 4.0, 5.0]), "holdout": np.r_[0.5, HOLDOUT[1:]]}
    estimate = members_left(own, ORIGINAL)
    assert estimate.value == pytest.approx((3 / 8 - 1 / 8) / (7 / 8))
    share = 2 / 7
    forget = np.array([1 - share] * 3 + [-share] * 4 + [0.0])
    holdout = np.array([1.0] + [0.0] * 7)
    half = 1.96 * np.sqrt(forget.var(ddof=1) / 8 + holdout.var(ddof=1) / 8) / (7 / 8)
    assert (estimate.low, estimate.high) == (pytest.approx(share - half), pytest.approx(share + half))
    assert estimate.n == 16


def test_the_original_has_all_and_one_that_never_saw_it_none() -> None:
    assert members_left(ORIGINAL, ORIGINAL).value == 1
    assert members_left({"forget": HOLDOUT, "holdout": HOLDOUT}, ORIGINAL).value == 0


def test_there_is_no_interval_where_nothing_varies() -> None:
    above = {"forget": np.full(8, 9.0), "holdout": np.full(8, 9.0)}
    for own, share in ((above, 0), (ORIGINAL, 1)):
        estimate = members_left(own, ORIGINAL)
        assert (estimate.value, estimate.low, estimate.high) == (share, None, None)
        assert estimate.note == ALIKE


def test_an_original_that_tells_nothing_gives_no_share() -> None:
    alike = {"forget": HOLDOUT, "holdout": HOLDOUT}
    estimate = members_left(alike, alike)
    assert estimate.value is None
    assert estimate.note == "the original's losses don't tell forget from holdout"


def test_an_audit_gives_it_without_retrained_models(text_world: World, class_world: World) -> None:
    def row_of(w: World) -> Measurement:
        (row,) = measure(Setting(Models(w.original, w.original), w.request, w.task, 0, CPU)).measurements
        return row

    assert row_of(text_world).unlearned.value == 1
    assert not row_of(text_world).judged
    assert row_of(class_world).note == "forget and holdout share the class that is to be forgotten"
