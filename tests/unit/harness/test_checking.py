"""What a look at a record alone finds odd in its numbers, and what it must not."""

import pytest

from unrecall.harness.checking import _exact
from unrecall.record import stats
from unrecall.record.schema import Estimate, Measurement


def share(hits: int) -> Estimate:
    """So many of 6 examples, with the exact interval of such a share."""
    low, high = stats.clopper_pearson(hits, 6)
    return Estimate(value=hits / 6, low=low, high=high, n=6)


MEAN = Estimate(value=0.94, low=0.47, high=0.99, n=6)


@pytest.mark.parametrize(
    ("original", "null", "odd"), [(share(6), share(6), 0), (share(6), share(5), 1), (share(6), MEAN, 0)]
)
def test_a_mean_over_tokens_is_no_forged_share_where_the_others_get_all_right(
    original: Estimate, null: Estimate, odd: int
) -> None:
    row = Measurement(name="retain_accuracy", title="", group="utility", unlearned=MEAN, original=original, null=null)
    assert len(list(_exact(row))) == odd
