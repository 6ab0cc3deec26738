"""The papers' summary beside retrained models: their MIA figure, and the average gap over four figures."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from unrecall.attacks.svc import SVC
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric, estimates
from unrecall.metrics.forgetting import FORGET_ACCURACY
from unrecall.metrics.utility import RETAIN_ACCURACY, TEST_ACCURACY
from unrecall.record.row import ROLES, Row
from unrecall.record.schema import Estimate, Measurement

FAILURE = Row("mia_failure", "Forget called unseen by the papers' SVC", "privacy", "below")
GAP = Row("average_gap", "Average gap to retrained", "forgetting", ideal="0")
NAMES = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_failure")


def average_gap(values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]) -> float:
    """Mean of |value - retrained's value| over the named measurements."""
    return float(np.mean([abs(values[name] - reference[name]) for name in names]))


def measure(setting: Setting) -> Measured:
    """mia_failure, the share of forget that the SVC calls unseen, and the mean distance to retrained over four figures.

    Reference: "Avg. Gap" of Hsu et al., NeurIPS 2025, arXiv 2601.22359, over retain, unlearn, test accuracy and MIA.
    """
    failure = FAILURE.measured(estimates(setting, SVC().failure_rate))
    accuracies = (metric.measure(setting) for metric in (RETAIN_ACCURACY, FORGET_ACCURACY, TEST_ACCURACY))
    parts = [row for measured in accuracies for row in measured.measurements]
    return Measured([failure, gap_of([*parts, failure])])


def gap_of(parts: Sequence[Measurement]) -> Measurement:
    """The average gap; its interval takes the four figures as independent, and needs one of each."""
    reference = {row.name: row.reference for row in parts if row.reference is not None}
    gaps: dict[str, Estimate] = {}
    for role in ROLES:
        figures: dict[str, Estimate] = {row.name: getattr(row, role) for row in parts}
        values = {name: estimate.value for name, estimate in figures.items() if estimate.value is not None}
        if len(reference) < len(NAMES) or len(values) < len(NAMES):
            gaps[role] = Estimate(value=None, note="needs retrained models and all four figures")
            continue
        gap = average_gap(values, reference, NAMES)
        ends = [(e.low, e.high) for e in figures.values()]
        halves = [(high - low) / 2 for low, high in ends if low is not None and high is not None]
        half, n = math.hypot(*halves) / len(NAMES), min(estimate.n for estimate in figures.values())
        if len(halves) < len(NAMES):
            gaps[role] = Estimate(value=gap, n=n, note="no interval: one of its four figures has none")
            continue
        gaps[role] = Estimate(value=gap, low=max(0.0, gap - half), high=gap + half, n=n)
    return GAP.measured(gaps)


AVERAGE_GAP = Metric("average_gap", (FAILURE, GAP), measure)
