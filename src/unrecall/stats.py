"""Statistics on arrays, with intervals. Scores are higher for members; all intervals are 95 % unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import roc_curve

from unrecall.records import Estimate

LEVEL = 0.95


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share; it covers at least `level`, whatever the share.

    Reference: Clopper and Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 1934.
    """
    interval = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of a mean over examples; the values themselves where there are fewer than two."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, mean
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def mean(values: np.ndarray) -> Estimate:
    """A mean over examples with its interval: exact for shares (all values 0 or 1), Student's otherwise."""
    n = len(values)
    if n == 0:
        return Estimate(value=None, note="no examples")
    if bool(np.isin(values, (0.0, 1.0)).all()):
        low, high = clopper_pearson(int(values.sum()), n)
    else:
        low, high = bootstrap_mean(values)
    return Estimate(value=float(np.mean(values)), low=low, high=high, n=n)
