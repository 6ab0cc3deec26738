"""What values a measurement can take, so that the page prints no bound that none can reach."""

import math
from typing import Final, TypeAlias

from unrecall.record.schema import Measurement
from unrecall.record.verdict import FEW_MODELS, WITHIN

Ends: TypeAlias = tuple[float, float]

SHARES: Final = frozenset({
    "retain_accuracy", "test_accuracy", "forget_accuracy", "extraction_strength", "forget_rouge",
    "forget_truth_preference", "model_utility", "forget_zero_shot", "forget_retrieval_first",
    "neighbours_retrieval_first", "test_zero_shot", "attack_success", "recall_10", "sensitive_share_10",
    "recalibration_mean", "relearn_mean", "prototypical_mean", "linear_probe_mean", "quantise_mean", "loss_auc",
})  # fmt: skip
"""The judged measurements that lie between 0 and 1, those of the former rule too."""
RATIOS: Final = frozenset({"residual_knowledge_sums"})
"""Those that can't be negative."""
OPEN: Final = frozenset({"class_margin", "loss_left"})
"""Those that can be any number."""


def ends(m: Measurement) -> Ends:
    """The least and the largest value that a measurement can have, as far as is known here."""
    whole = 100.0 if m.unit.strip() == "%" else 1.0
    return (0.0, whole) if m.name in SHARES else (0.0 if m.name in RATIOS else -math.inf, math.inf)


def clipped(m: Measurement, low: float | None, high: float | None) -> Ends | None:
    """A range of a measurement, without what it can't be; None where an end is missing or no number."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    least, most = ends(m)
    return min(max(low, least), most), min(max(high, least), most)


def bounds(m: Measurement) -> Ends | None:
    """Where another retrained model would fall."""
    return clipped(m, m.bound_low, m.bound_high)


def says_nothing(m: Measurement) -> bool:
    """Whether a judged row can't tell even the original from a retrained model, though it shows more than those do.

    Its bounds hold all values up to the original's, so that nothing which is left can lie outside.
    """
    return m.verdict == "inconclusive" and m.leak is not None and (WITHIN in m.note or FEW_MODELS in m.note)
