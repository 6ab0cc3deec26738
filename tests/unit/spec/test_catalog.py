"""What is listed as a metric is one, and helpers aren't."""

from unrecall.metrics import METRICS
from unrecall.spec.catalog import entries


def test_metrics_are_listed_and_their_helpers_are_not() -> None:
    names = [entry.name for entry in entries("metrics")]
    assert names == sorted(metric.name for metric in METRICS)
    assert set(names) >= {"over_unlearning", "average_gap", "extraction_strength", "answers"}
    assert set(names).isdisjoint({"confusion", "paid", "gained", "worst_drop", "away_from_competitor", "evaluate"})


def test_a_metric_of_several_numbers_names_them() -> None:
    summary = {entry.name: entry.summary for entry in entries("metrics")}
    assert all(summary.values())
    assert {"forget_quality", "model_utility"} <= set(summary["answers"].replace(",", "").split())


def test_formulas_from_papers_say_which() -> None:
    reference = {entry.name: entry.reference for entry in entries("metrics")}
    from_papers = {"answers", "average_gap", "contamination", "disagreement", "extraction_strength", "over_unlearning"}
    assert {name for name, text in reference.items() if "arXiv" in text} >= from_papers
