"""What the model is still good for."""

from __future__ import annotations

from unrecall import stats
from unrecall.records import Estimate
from unrecall.types import Evidence


def retain_accuracy(evidence: Evidence) -> Estimate:
    """Share of retain rows predicted right, in [0, 1]."""
    return stats.mean(evidence.signals["retain"].correct)


def test_accuracy(evidence: Evidence) -> Estimate:
    """Share of test rows predicted right, in [0, 1]."""
    return stats.mean(evidence.signals["test"].correct)


test_accuracy.__test__ = False  # type: ignore[attr-defined]
