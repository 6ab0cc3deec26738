"""What is listed as a metric is one, and helpers aren't."""

from __future__ import annotations

from unrecall.metrics import METRICS
from unrecall.spec.catalog import entries


def test_metrics_are_listed_and_their_helpers_are_not() -> None:
    names = {entry.name for entry in entries("metrics")}
    assert names >= {metric.compute.__name__ for metric in METRICS}
    assert names >= {"over_unlearning", "average_gap", "extraction_strength", "forget_quality", "model_utility"}
    assert names.isdisjoint({"confusion", "paid", "gained", "worst_drop", "away_from_competitor", "evaluate"})
