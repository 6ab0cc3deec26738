"""Statistics on arrays, with intervals. Scores are higher for members; all intervals are 95 % unless said otherwise.

An interval that would not cover what it claims is left out, with the reason in the estimate's note. Tests simulate how
often each covers, in small samples and near the edges of its range.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.metrics import roc_curve

from unrecall.record.schema import Estimate

LEVEL = 0.95


@cache
def clopper_pearson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share; it covers at least `level`, whatever the share.

    By the quantiles of a Beta distribution, so that numbers need not be whole (see `bounded`).

    Reference: Clopper and Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 1934.
    """
    tail, failures = (1 - level) / 2, n - successes
    low = 0.0 if successes <= 0 else float(stats.beta.ppf(tail, successes, failures + 1))
    high = 1.0 if failures <= 0 else float(stats.beta.ppf(1 - tail, successes + 1, failures))
    return low, high


def bounded(mean: float, n: int, variance: float, freedom: float, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a mean of n values in [0, 1] whose square error is `variance`, with `freedom` degrees.

    Clopper and Pearson's, for the number of examples that gives a share this variance; for n examples where the
    variance is 0, or n mean or n (1 - mean) is below `FEW`: a few values that were not drawn could then move the mean.

    Reference: Korn and Graubard, "Confidence Intervals for Proportions with Small Expected Number of Positive Counts
    Estimated from Survey Data", Survey Methodology 1998.
    """
    size = float(n)
    if variance > 0 and n * min(mean, 1 - mean) >= FEW:
        wider = stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, freedom)
        size = float(mean * (1 - mean) / variance * wider**2)
    return clopper_pearson(mean * size, size, level)


def student(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of a mean over at least two examples."""
    n = len(values)
    mean = float(np.mean(values))
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean - half, mean + half


class Components(NamedTuple):
    """The standard deviation that each level of seeds adds to a number; None where that level has one seed.

    What chance does at a level of one seed counts to the level above it.
    """

    training: float | None
    unlearning: float | None
    evaluation: float | None


def variance_components(values: np.ndarray) -> Components:
    """What each level of seeds adds to the spread of `values` [originals, unlearnings, evaluations].

    A nested analysis of variance: with mean squares MS_T, MS_U, MS_E over a x b x c values,
    s_E^2 = MS_E, s_U^2 = (MS_U - MS_E) / c, s_T^2 = (MS_T - MS_U) / (b c), where less than nothing is nothing.

    Reference: Searle, Casella and McCulloch, "Variance Components", Wiley 1992, chapter 3.
    """
    below, each = 0.0, 1
    deviations: list[float | None] = []
    for level in (2, 1, 0):
        count, means = values.shape[level], values.mean(axis=tuple(range(level + 1, 3)))
        if count > 1:
            mean_square = each * float(means.var(axis=level, ddof=1).mean())
            deviations.append(float(np.sqrt(max(mean_square - below, 0.0) / each)))
            below = mean_square
        else:
            deviations.append(None)
        each *= count
    return Components(*reversed(deviations))


ALIKE = "no interval: the examples do not differ"
SINGLE = "no interval: a set of a single example says nothing of how examples differ"
SKEWED = "no interval: a few examples decide the mean"
FEW = 3.0
"""How many whole examples at an edge of [0, 1] let the spread of a sample be trusted there."""


def skewed(values: np.ndarray) -> bool:
    """Whether values are too skewed for Student's interval of their mean: unless n > 25 G1^2.

    A small sample hides its tail. For values that can't be negative G1 is thus at least what it is for a lognormal
    distribution of their coefficient of variation c, 3 c + c^3.

    Reference: Cochran, "Sampling Techniques", Wiley 1977, section 2.15.
    """
    n = len(values)
    if n < 3:
        return True
    skewness = abs(float(stats.skew(values, bias=False)))
    if bool((values >= 0).all()) and (mean := float(np.mean(values))) > 0:
        variation = float(np.std(values, ddof=1)) / mean
        skewness = max(skewness, 3 * variation + variation**3)
    return n <= 25 * skewness**2


def mean(values: np.ndarray, *, share: bool = False) -> Estimate:
    """A mean over examples with its interval: exact where all values are 0 or 1, Student's otherwise.

    `share`: every value lies in [0, 1] by what it is; the interval is then that of `bounded`. No interval where the
    examples don't differ (or there is one), or where they are too skewed: how far others would lie is then unknown.
    """
    n = len(values)
    if n == 0:
        return Estimate(value=None, note="no examples")
    if bool(np.isin(values, (0.0, 1.0)).all()):
        low, high = clopper_pearson(int(values.sum()), n)
    elif bool((values == values[0]).all()):
        return Estimate(value=float(values[0]), n=n, note=ALIKE)
    elif share:
        low, high = bounded(float(np.mean(values)), n, float(np.var(values, ddof=1)) / n, n - 1)
    elif skewed(values):
        return Estimate(value=float(np.mean(values)), n=n, note=SKEWED)
    else:
        low, high = student(values)
    return Estimate(value=float(np.mean(values)), low=low, high=high, n=n)


def difference(values: np.ndarray) -> Estimate:
    """A mean of values in [-1, 1], such as what each example gained: what was gained, less what was lost.

    Each of the two has the interval of `mean`, and how far these reach is added in squares, with their correlation: an
    example that gains doesn't lose. An end is exact where nothing is on its other side: with none lost of 80, at most
    4.5 % are.

    Reference: Newcombe, "Improved Confidence Intervals for the Difference between Binomial Proportions Based on Paired
    Data", Statistics in Medicine 1998; with exact intervals in place of Wilson's.
    """
    gains, losses = np.maximum(values, 0), np.maximum(-values, 0)
    gained, lost = mean(gains, share=True), mean(losses, share=True)
    if gained.value is None or lost.value is None:
        return gained
    value = gained.value - lost.value
    if gained.low is None or gained.high is None or lost.low is None or lost.high is None:
        return Estimate(value=value, n=gained.n, note=gained.note or lost.note)
    sampled = float(np.corrcoef(gains, losses)[0, 1]) if np.ptp(gains) and np.ptp(losses) else 0.0

    def reach(of_gained: float, of_lost: float) -> float:
        """How far from `value` an end lies, by the ends of both intervals, at the stronger of two correlations."""
        first, second = of_gained - (gained.value or 0.0), of_lost - (lost.value or 0.0)
        correlation = min(sampled, _exclusive(of_gained, of_lost))
        return float(np.sqrt(max(0.0, first**2 + second**2 + 2 * correlation * first * second)))

    low, high = value - reach(gained.low, lost.high), value + reach(gained.high, lost.low)
    return Estimate(value=value, low=max(-1.0, low), high=min(1.0, high), n=gained.n)


def _exclusive(first: float, second: float) -> float:
    """The correlation of two shares of which each example counts to one at most."""
    odds = first * second / max((1 - first) * (1 - second), 1e-12)
    return -min(1.0, float(np.sqrt(odds)))


def difference_by_halves(values: np.ndarray) -> Estimate:
    """A mean of values in [-1, 1] with the interval of `bounded` for (1 + value) / 2, as it was until exchange-4.

    Too narrow where few examples changed: the share lies near a half, so that `FEW` never holds.
    """
    if not values.any():  # no example lost anything: no more would than so few can hide
        _, most = clopper_pearson(0, len(values))
        return Estimate(value=0.0, low=-most, high=most, n=len(values), note=ALIKE)
    half = mean((values + 1) / 2, share=True)
    if half.value is None or half.low is None or half.high is None:
        return half.model_copy(update={"value": None if half.value is None else 2 * half.value - 1})
    return Estimate(value=2 * half.value - 1, low=2 * half.low - 1, high=2 * half.high - 1, n=half.n)


def ratio(above: np.ndarray, below: np.ndarray, level: float = LEVEL) -> Estimate:
    """sum(above) / sum(below) over examples, with Fieller's interval (Student's).

    No interval where the ratio is the same for every example (or there is one), fewer than thirty have a denominator,
    the denominator could be 0, or the residuals are too skewed.

    Reference: Fieller, "Some Problems in Interval Estimation", Journal of the Royal Statistical Society B 1954.
    """
    n, total = len(above), float(np.sum(below))
    if total == 0:
        return Estimate(value=None, n=n, note="needs a denominator above 0")
    value = float(np.sum(above)) / total
    if n < 2 or np.allclose(above, value * below):
        return Estimate(value=value, n=n, note=ALIKE)
    if np.count_nonzero(below) < 30 or skewed(above - value * below):
        return Estimate(value=value, n=n, note=SKEWED)
    squared = float(stats.t.ppf((1 + level) / 2, n - 1)) ** 2 / n
    (own, shared), (_, other) = np.cov(above, below)
    a = np.mean(below) ** 2 - squared * other
    b = np.mean(above) * np.mean(below) - squared * shared
    c = np.mean(above) ** 2 - squared * own
    if a <= 0 or (root := b * b - a * c) < 0:
        return Estimate(value=value, n=n, note="no interval: the denominator could be 0")
    low, high = (b - np.sqrt(root)) / a, (b + np.sqrt(root)) / a
    return Estimate(value=value, low=float(low), high=float(high), n=n)


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


def placements(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each member's score the share of others below it, and for each other's the share of members above it.

    Ties count half. The mean of either is the AUC.
    """
    ranks, m = stats.rankdata(np.r_[members, others]), len(members)
    return (ranks[:m] - stats.rankdata(members)) / len(others), 1 - (ranks[m:] - stats.rankdata(others)) / m


def auc(members: np.ndarray, others: np.ndarray, level: float = LEVEL, inflation: float = 1.0) -> Estimate:
    """P(score of a member > score of another) + P(equal) / 2, with an interval by DeLong's variance.

    That variance has Satterthwaite's degrees of freedom, and the interval is `bounded`: it is the exact one of as many
    examples as the smaller group has where the scores separate all but perfectly. Where nothing differs it is 0 to 1.
    `inflation`: the factor by which the variance exceeds DeLong's, which takes scores to be independent.

    Reference: DeLong, DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics 1988.
    """
    m, n = len(members), len(others)
    if m == 0 or n == 0:
        return Estimate(value=None, n=m + n, note="no examples on one side")
    above, below = placements(members, others)
    value, fewer = float(above.mean()), min(m, n)
    if value in (0.0, 1.0):
        low, high = clopper_pearson(round(value) * fewer, fewer, level)
    elif fewer < 2:
        return Estimate(value=value, low=0.0, high=1.0, n=m + n, note="fewer than two examples on one side")
    else:
        first, second = above.var(ddof=1) / m, below.var(ddof=1) / n
        variance = float(first + second)
        if variance == 0:
            return Estimate(value=value, low=0.0, high=1.0, n=m + n, note="all scores are equal")
        freedom = variance**2 / (first**2 / (m - 1) + second**2 / (n - 1))
        low, high = bounded(value, fewer, inflation * variance, freedom, level)
    return Estimate(value=value, low=low, high=high, n=m + n)


def tpr_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float = 0.01, level: float = LEVEL) -> Estimate:
    """The share of members caught at the threshold that accuses one more other with probability at most `fpr`.

    That is the k-th largest score of n others, k = fpr (n + 1) rounded down; no value where that is none of them. The
    interval adds two errors in squares: that of the members at this threshold (exact), and that of the threshold, which
    lies between the others' order statistics that hold the quantile with probability `level`.

    Reference: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", Springer 2005 (the threshold); David
    and Nagaraja, "Order Statistics", Wiley 2003, section 7.1 (the quantile's interval).
    """
    m, n = len(members), len(others)
    if m == 0 or n == 0:
        return Estimate(value=None, n=m, note="no examples on one side")
    needed = round(1 / fpr) - 1
    if n < needed:
        note = f"{n} others can't resolve a false-positive rate of {fpr:g}: at least {needed} are needed"
        return Estimate(value=None, n=m, note=note)
    descending = np.sort(others)[::-1]

    def caught(accused: int) -> float:
        """The share of members above the score of the first other that isn't accused."""
        return float(np.mean(members > descending[accused])) if accused < n else 1.0

    value = caught(int(fpr * (n + 1) + 1e-9) - 1)
    fewest, most = (int(stats.binom.ppf(tail, n, fpr)) for tail in ((1 - level) / 2, (1 + level) / 2))
    strict = caught(fewest - 1) if fewest else 0.0
    loose = float(np.mean(members >= descending[min(most, n - 1)]))
    low, high = clopper_pearson(round(value * m), m, level)
    low = max(0.0, value - float(np.hypot(value - strict, value - low)))
    high = min(1.0, value + float(np.hypot(loose - value, high - value)))
    return Estimate(value=value, low=low, high=high, n=m)


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


def another(spread: float, k: int, freedom: int, tail: float) -> float:
    """By how much one more value exceeds the mean of k with probability `tail`, were all normal with this deviation.

    t_{freedom, 1 - tail} * spread * sqrt(1 + 1/k)
    """
    return float(stats.t.isf(tail, freedom)) * spread * float(np.sqrt(1 + 1 / k))
