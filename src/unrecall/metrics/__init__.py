"""Every number an audit takes from signals alone, as a table of contents; attacks bring numbers of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from unrecall.data.signals import Evidence
from unrecall.metrics.forgetting import (
    average_gap,
    disagreement,
    forget_accuracy,
    holdout_accuracy,
    intra_class_cosine,
)
from unrecall.metrics.over_unlearning import over_unlearning
from unrecall.metrics.utility import restoration, retain_accuracy, test_accuracy
from unrecall.record.schema import Estimate, Side


class Metric(NamedTuple):
    """A function of evidence, and how its number is read (docs/verdict.md)."""

    name: str
    title: str
    group: str
    compute: Callable[[Evidence], Estimate]
    leak: Side | None = None
    margin: float = 0.05


METRICS = (
    Metric("retain_accuracy", "Accuracy on retain", "utility", retain_accuracy),
    Metric("test_accuracy", "Accuracy on test", "utility", test_accuracy),
    Metric("restoration", "Restored of what training on forget took from test", "utility", restoration),
    Metric("forget_accuracy", "Accuracy on forget", "forgetting", forget_accuracy, "above", 0.1),
    Metric("holdout_accuracy", "Accuracy on holdout", "forgetting", holdout_accuracy, None, 0.1),
    Metric("disagreement", "Disagreement with retrained on forget", "forgetting", disagreement, None, 0.1),
    Metric("intra_class_cosine", "Cosine within a class of forget", "forgetting", intra_class_cosine, "above", 0.1),
)

__all__ = ["METRICS", "Metric", "average_gap", "over_unlearning"]
