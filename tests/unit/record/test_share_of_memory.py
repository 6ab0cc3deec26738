"""Shares of memory by hand arithmetic."""

import numpy as np
import pytest

from unrecall.record import stats
from unrecall.record.exchange import Labels
from unrecall.record.share_of_memory import ONE_SIDED, TWO_SIDED, Areas, areas, needed, share_left, smallest_share


def test_areas_by_counting_pairs() -> None:
    labels = Labels(np.array([1, 1, 0, 0], bool), np.zeros(4, int))
    # of 4 pairs: 3 > 1, 3 > 2, 2 > 1, 2 = 2 counts half
    under = areas(np.array([3.0, 2, 1, 2]), np.array([4.0, 3, 2, 1]), labels)
    assert under.unlearned == pytest.approx(3.5 / 4 - 0.5)
    assert under.original == pytest.approx(0.5)


def test_areas_and_variance_are_those_of_delong() -> None:
    rng = np.random.default_rng(0)
    scores, forget = rng.normal(size=40), np.arange(40) < 15
    under = areas(scores, scores, Labels(forget, np.zeros(40, int)))
    assert under.unlearned + 0.5 == pytest.approx(stats.auc(scores[forget], scores[~forget]).value)
    members = [(scores[~forget] < s).mean() for s in scores[forget]]
    others = [(scores[forget] > s).mean() for s in scores[~forget]]
    assert under.variance == pytest.approx(np.var(members, ddof=1) / 15 + np.var(others, ddof=1) / 25)
    assert under.covariance == pytest.approx(under.variance)


def test_halves_are_weighted_by_their_size() -> None:
    labels = Labels(np.array([1, 0, 1, 1, 0, 0], bool), np.array([0, 0, 1, 1, 1, 1]))
    scores = np.array([9.0, 1, 1, 2, 3, 4])  # half 0: AUC 1; half 1: AUC 0
    assert areas(scores, scores, labels).unlearned == pytest.approx(2 / 6 * 0.5 - 4 / 6 * 0.5)


def test_share_left_has_fiellers_bounds() -> None:
    own = Areas(0.1, 0.2, 0.0016, 0.0009, 0.0006)
    share = share_left(own)
    assert share.value == pytest.approx(0.5)
    for bound, quantile in ((share.low, TWO_SIDED), (share.high, TWO_SIDED), (share.bound, ONE_SIDED)):
        assert bound is not None
        error = np.sqrt(own.variance - 2 * bound * own.covariance + bound**2 * own.original_variance)
        assert abs(own.unlearned - bound * own.original) / error == pytest.approx(quantile)
    assert share.low is not None
    assert share.high is not None
    assert share.low < 0.5 < share.high


def test_no_bounds_where_the_original_itself_is_uncertain() -> None:
    share = share_left(Areas(0.01, 0.02, 0.0004, 0.0004, 0.0))
    assert (share.low, share.high, share.bound) == (None, None, None)
    assert share_left(Areas(0.1, 0.0, 0.01, 0.01, 0.0)).value is None


@pytest.mark.parametrize(("z", "share"), [(4.2, 0.667), (10.4, 0.269), (2.0, None), (-1.0, None)])
def test_smallest_share_is_two_point_eight_over_z(z: float, share: float | None) -> None:
    assert smallest_share(z) == (None if share is None else pytest.approx(share, abs=2e-3))


def test_units_needed_grow_with_the_square_of_what_is_missing() -> None:
    assert needed(250, 4.2, 0.25) == pytest.approx(250 * (9.946 / 4.2) ** 2, rel=1e-3)
    assert needed(250, 4.2, 0.5) == pytest.approx(250 * (4.973 / 4.2) ** 2, rel=1e-2)
    assert needed(250, 0.0, 0.5) is None
