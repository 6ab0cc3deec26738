"""What values a measurement can take, so that pages and tables give no bound that none can reach."""

import math
from typing import Final, TypeAlias

from unrecall.record.schema import Estimate, Measurement
from unrecall.record.verdict import Reason

Ends: TypeAlias = tuple[float, float]

SHARES: Final = frozenset({
    "retain_accuracy", "test_accuracy", "forget_accuracy", "extraction_strength", "forget_rouge",
    "forget_truth_preference", "model_utility", "forget_zero_shot", "forget_retrieval_first",
    "neighbours_retrieval_first", "test_zero_shot", "attack_success", "recall_10", "sensitive_share_10",
    "recalibration_mean", "relearn_mean", "prototypical_mean", "linear_probe_mean", "quantise_mean", "loss_auc",
    "disagreement", "mia_failure", "average_gap", "residual_knowledge_share",
})  # fmt: skip
"""Measurements that lie between 0 and 1: all judged ones that do, those of the former rule too, and some others."""
OF_SHARES: Final = (
    "_accuracy", "_auc", "_tpr", "_rouge", "_mcq", "_probability", "_zero_shot", "_retrieval_first", "_retrieval_top",
)  # fmt: skip
"""How the names of others end that do."""
OVER_BUDGET: Final = ("_mean", "_worst")
"""How they end for an attack that brings something back: it gives shares."""
RATIOS: Final = frozenset({
    "residual_knowledge_sums", "residual_knowledge", "retain_loss", "ou_kl", "ou_js", "relearn_time",
    "cost_time", "cost_passes", "cost_memory",
})  # fmt: skip
"""Those that can't be negative."""
OPEN: Final = frozenset({"class_margin", "loss_left"})
"""Those that can be any number."""


def ends(m: Measurement) -> Ends:
    """The least and the largest value that a measurement can have, as far as is known here."""
    whole = 100.0 if m.unit.strip() == "%" else 1.0
    brought_back = m.group == "recovery" and m.name.endswith(OVER_BUDGET)
    if m.name in SHARES or m.name.endswith(OF_SHARES) or brought_back:
        return 0.0, whole
    return (0.0 if m.name in RATIOS else -math.inf, math.inf)


def clipped(m: Measurement, low: float | None, high: float | None) -> Ends | None:
    """A range of a measurement, without what it can't be; None where an end is missing or no number."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    least, most = ends(m)
    return min(max(low, least), most), min(max(high, least), most)


def possible(m: Measurement) -> Measurement:
    """The measurement, each interval of a model without what it can't be."""

    def within(e: Estimate) -> Estimate:
        low, high = clipped(m, e.low, e.high) or (e.low, e.high)
        return e.model_copy(update={"low": low, "high": high})

    own = {role: within(getattr(m, role)) for role in ("unlearned", "original", "null")}
    return m.model_copy(update={**own, "references": list(map(within, m.references))})


def bounds(m: Measurement) -> Ends | None:
    """Where another retrained model would fall."""
    return clipped(m, m.bound_low, m.bound_high)


def says_nothing(m: Measurement) -> bool:
    """Whether a judged row can't tell even the original from a retrained model, though it shows more than those do.

    Its bounds hold all values up to the original's, so that nothing which is left can lie outside.
    """
    return (
        m.verdict == "inconclusive"
        and m.leak is not None
        and (Reason.MODELS_DIFFER in m.note or Reason.FEW_MODELS in m.note)
    )
