"""Statistics on arrays, with intervals. Scores are higher for members; all intervals are 95 % unless said otherwise."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.metrics import roc_curve

from unrecall.record.schema import Estimate

LEVEL = 0.95


@cache
def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share; it covers at least `level`, whatever the share.

    Reference: Clopper and Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 1934.
    """
    interval = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def student(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of a mean over at least two examples."""
    n = len(values)
    mean = float(np.mean(values))
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean - half, mean + half


ALIKE = "no interval: the examples do not differ"


def mean(values: np.ndarray, *, share: bool = False) -> Estimate:
    """A mean over examples with its interval: exact where all values are 0 or 1, Student's otherwise.

    `share`: every value lies in [0, 1] by what it is, so that the interval is cut there. No interval where the examples
    don't differ (or there is one): how far others would lie from them is then unknown.
    """
    n = len(values)
    if n == 0:
        return Estimate(value=None, note="no examples")
    if bool(np.isin(values, (0.0, 1.0)).all()):
        low, high = clopper_pearson(int(values.sum()), n)
    elif bool((values == values[0]).all()):
        return Estimate(value=float(values[0]), n=n, note=ALIKE)
    else:
        low, high = student(values)
        if share:
            low, high = max(0.0, low), min(1.0, high)
    return Estimate(value=float(np.mean(values)), low=low, high=high, n=n)


def ratio(above: np.ndarray, below: np.ndarray, level: float = LEVEL) -> Estimate:
    """sum(above) / sum(below) over examples, with the ratio estimator's interval (linearised, Student's).

    No interval where the ratio is the same for every example (or there is one).

    Reference: Cochran, "Sampling Techniques", Wiley 1977, chapter 6.
    """
    n, total = len(above), float(np.sum(below))
    if total == 0:
        return Estimate(value=None, n=n, note="needs a denominator above 0")
    value = float(np.sum(above)) / total
    if n < 2 or np.allclose(above, value * below):
        return Estimate(value=value, n=n, note=ALIKE)
    error = float(np.std(above - value * below, ddof=1)) / (np.sqrt(n) * total / n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def jackknife(sums: np.ndarray, counts: np.ndarray, level: float = LEVEL) -> Estimate:
    """A mean over ordered pairs of examples, with the jackknife's interval: leaving out i removes its pairs twice.

    `sums` [n] and `counts` [n]: the total over example i's pairs, and how many it has.
    """
    n, total, pairs = len(sums), float(sums.sum()), float(counts.sum())
    left = pairs - 2 * counts
    if n < 3 or bool((left <= 0).any()):
        return Estimate(value=total / pairs, n=n, note="too few pairs for an interval")
    return left_out(total / pairs, (total - 2 * sums) / left, level)


def left_out(value: float, without: np.ndarray, level: float = LEVEL) -> Estimate:
    """A smooth function of n examples with the jackknife's interval (Student's).

    `without` [n]: the function of all examples but one, for each of them.

    Reference: Efron and Tibshirani, "An Introduction to the Bootstrap", Chapman and Hall 1993, chapter 11.
    """
    n = len(without)
    error = float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Estimate(value=value, low=value - half, high=value + half, n=n)


class Roc(NamedTuple):
    """Operating points of a score, one per threshold, from "none is a member" to "all are"."""

    fpr: np.ndarray
    tpr: np.ndarray


def roc(members: np.ndarray, others: np.ndarray) -> Roc:
    """The share of members against the share of others whose score is at or above each threshold."""
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    fpr, tpr, _ = roc_curve(truth, np.r_[members, others], drop_intermediate=False)
    return Roc(fpr, tpr)


def auc(members: np.ndarray, others: np.ndarray, level: float = LEVEL, inflation: float = 1.0) -> Estimate:
    """P(score of a member > score of another) + P(equal) / 2, with DeLong's interval cut at 0 and 1.

    Where the scores separate perfectly DeLong's variance is 0; the interval is then the exact one of as many successes
    (or failures) as the smaller group has. Where it is 0 for want of anything that differs the interval is 0 to 1.
    `inflation`: the factor by which the variance exceeds DeLong's, which takes scores to be independent.

    Reference: DeLong, DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics 1988.
    """
    m, n = len(members), len(others)
    if m == 0 or n == 0:
        return Estimate(value=None, n=m + n, note="no examples on one side")
    ranks = stats.rankdata(np.r_[members, others])
    above = (ranks[:m] - stats.rankdata(members)) / n
    below = 1 - (ranks[m:] - stats.rankdata(others)) / m
    value = float(above.mean())
    if value in (0.0, 1.0):
        fewer = min(m, n)
        low, high = clopper_pearson(round(value) * fewer, fewer, level)
    elif m < 2 or n < 2:
        return Estimate(value=value, low=0.0, high=1.0, n=m + n, note="fewer than two examples on one side")
    else:
        half = stats.norm.ppf((1 + level) / 2) * np.sqrt(inflation * (above.var(ddof=1) / m + below.var(ddof=1) / n))
        if half == 0:
            return Estimate(value=value, low=0.0, high=1.0, n=m + n, note="all scores are equal")
        low, high = max(0.0, value - float(half)), min(1.0, value + float(half))
    return Estimate(value=value, low=low, high=high, n=m + n)


def tpr_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float = 0.01, level: float = LEVEL) -> Estimate:
    """The largest share of members caught at a threshold that accuses at most a share `fpr` of the others.

    Nothing is interpolated: the operating point is one that was observed, so the value is never too high. The interval
    is exact for the members at that threshold, and takes the threshold as given.
    """
    m, n = len(members), len(others)
    if m == 0 or n == 0:
        return Estimate(value=None, n=m, note="no examples on one side")
    curve = roc(members, others)
    value = float(curve.tpr[curve.fpr <= fpr].max())
    low, high = clopper_pearson(round(value * m), m, level)
    note = "" if n * fpr >= 1 else f"{n} others can't resolve a false-positive rate of {fpr:g}; none is accused here"
    return Estimate(value=value, low=low, high=high, n=m, note=note)


def prediction_interval(
    references: Sequence[float], level: float = LEVEL, floor: float = 0.0
) -> tuple[float, float] | None:
    """Where one more retrained model would fall; None where there are fewer than two.

    mean +- t_{K-1} * max(s, floor) * sqrt(1 + 1/K)
    """
    k = len(references)
    if k < 2:
        return None
    spread = max(float(np.std(references, ddof=1)), floor)
    half = float(stats.t.ppf((1 + level) / 2, k - 1)) * spread * float(np.sqrt(1 + 1 / k))
    centre = float(np.mean(references))
    return centre - half, centre + half
