"""How much of the original's memory of forget an attack still finds, and what it would take to find less.

Of an attack's scores, adjusted for difficulty, AUC is the chance that an example of forget scores higher than one of
holdout. The share of memory left is

    rho = (AUC of the unlearned model - 1/2) / (AUC of the original - 1/2)

0 for a model that was never trained on forget, 1 for the original. With z0 the original's own statistic, an audit finds
a share q of its memory with probability Phi(q z0 - 1.96), and a model without any is granted "less than r" with
probability Phi(r z0 - 1.645).

Reference: DeLong, DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
Characteristic Curves", Biometrics 1988; Fieller, "Some Problems in Interval Estimation", JRSS B 1954. The rest is ours.
"""

import math
from typing import NamedTuple

import numpy as np

from unrecall.record.exchange import Labels
from unrecall.record.stats import placements

TWO_SIDED, ONE_SIDED, POWER = 1.96, 1.645, 0.8416
FAINT = 0.5
"""A statistic of the original below which it says nothing of how many units would do."""


class Areas(NamedTuple):
    """AUC less one half of two models on the same examples, with DeLong's variances and covariance."""

    unlearned: float
    original: float
    variance: float
    original_variance: float
    covariance: float


class Share(NamedTuple):
    """A share of memory left; `low`, `high`: its 95 % interval; `bound`: it is below that with 95 % confidence.

    None where the original's own area is too uncertain for a ratio with it to have bounds.
    """

    value: float | None
    low: float | None
    high: float | None
    bound: float | None


def areas(unlearned: np.ndarray, original: np.ndarray, labels: Labels) -> Areas:
    """The areas of scores `[units]` under two models: within halves, weighted by their units."""
    total = len(labels.forget)
    means, covariance = np.zeros(2), np.zeros((2, 2))
    for part in labels.parts:
        forget = labels.forget[part]
        if forget.all() or not forget.any():
            continue
        pairs = ((scores[part][forget], scores[part][~forget]) for scores in (unlearned, original))
        placed = [placements(*pair) for pair in pairs]
        members, others = (np.stack(column) for column in zip(*placed, strict=True))
        share = len(part) / total
        means += share * (members.mean(1) - 0.5)
        for values in (members, others):
            if values.shape[1] > 1:
                covariance += share**2 * np.cov(values) / values.shape[1]
    return Areas(means[0], means[1], covariance[0, 0], covariance[1, 1], covariance[0, 1])


def share_left(own: Areas) -> Share:
    """rho with Fieller's interval: all rho at which (area - rho original's area) lies within its own error of 0."""
    if own.original == 0:
        return Share(None, None, None, None)
    low, high = _fieller(own, TWO_SIDED)
    _, bound = _fieller(own, ONE_SIDED)
    return Share(own.unlearned / own.original, low, high, bound)


def _fieller(own: Areas, quantile: float) -> tuple[float | None, float | None]:
    """The bounds between which z(rho) lies within the quantile; None where they are not finite."""
    c = quantile**2
    a = own.original**2 - c * own.original_variance
    b = own.unlearned * own.original - c * own.covariance
    under = b**2 - a * (own.unlearned**2 - c * own.variance)
    if a <= 0 or own.original < 0 or own.original_variance <= 0:
        return None, None
    root = math.sqrt(max(under, 0.0))
    return (b - root) / a, (b + root) / a


def smallest_share(z_original: float) -> float | None:
    """The smallest share of the original's memory that is found with probability 0.8; None where even all is not."""
    share = (TWO_SIDED + POWER) / z_original if z_original > 0 else math.inf
    return share if share <= 1 else None


def needed(units: int, z_original: float, share: float, least: float = 0.0) -> int | None:
    """How many units like these would let a model without memory be granted "no more than `share`", with chance 0.8.

    `least`: the original's statistic must be that large as well. None where it is next to nothing now.
    """
    if z_original < FAINT:
        return None
    wanted = max((ONE_SIDED + POWER) / share, least + POWER)
    return math.ceil(units * (wanted / z_original) ** 2)
