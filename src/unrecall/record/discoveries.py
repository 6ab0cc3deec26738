"""Which records can be told one by one, and how far the whole request is from a model that never saw it."""

import math

import numpy as np
from scipy import stats

RATE = 0.1
"""The share of records named that may be named wrongly."""
CONFIDENCE = 0.05


def discoveries(scores: np.ndarray, forget: np.ndarray) -> int:
    """How many of forget are recognised one by one, with a false-discovery rate of at most 10 %.

    `scores` [units], higher for "was trained on". A record's p is the share of holdout that looks at least as well
    remembered, the record itself counted in, which is exact where it is like them.

    Reference: Bates, Candes, Lei, Romano, Sesia, "Testing for Outliers with Conformal p-values", Annals of Statistics
    2023, arXiv 2104.08279; Benjamini, Hochberg, "Controlling the False Discovery Rate", JRSS B 1995.
    """
    others = np.sort(scores[~forget])
    above = len(others) - np.searchsorted(others, scores[forget], "left")
    p = (1 + above) / (len(others) + 1)
    return int((stats.false_discovery_control(p) <= RATE).sum())


def epsilon(p: float) -> float:
    """At least so much, with 95 % confidence, is epsilon of (epsilon, 0)-unlearning of the whole request.

        P(p <= t) <= e^epsilon t   where the model can't be told from a retrained one by more than e^epsilon,

    so that epsilon >= log(0.05 / p). 0 where p says nothing.
    """
    return max(0.0, math.log(CONFIDENCE / p))
