"""What the model is still good for."""

import numpy as np

from unrecall.evidence.evidence import Evidence
from unrecall.metrics.base import of_evidence
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate


def retain_accuracy(evidence: Evidence) -> Estimate:
    """Share of retain rows predicted right, in [0, 1]."""
    return stats.mean(evidence.signals["retain"].correct, share=True)


def retain_loss(evidence: Evidence) -> Estimate:
    """Mean loss of retain examples, in nats; what two trainings by one recipe have about alike."""
    return stats.mean(evidence.signals["retain"].loss)


def test_accuracy(evidence: Evidence) -> Estimate:
    """Share of test rows predicted right, in [0, 1]."""
    return stats.mean(evidence.signals["test"].correct, share=True)


def restoration(evidence: Evidence) -> Estimate:
    """How much of what training on forget took from test came back: 0 as in the original, 1 as in retrained models.

        (a - a_original) / (a_retrained - a_original),   a = accuracy on test, a_retrained the mean over models

    The interval is over test examples, by the delta method. A row with a reason where training on forget took nothing.

    Reference: Rezaei et al., "RESTOR: Knowledge Recovery in Machine Unlearning", TMLR 2025, arXiv 2411.00204. The ratio
    is ours: the paper prints the three accuracies.
    """
    after, before = evidence.signals["test"].correct, evidence.original["test"].correct
    if not evidence.references:
        return Estimate(value=None, note="needs a retrained model")
    clean = np.mean([reference["test"].correct for reference in evidence.references], axis=0)
    lost = stats.mean(clean - before)
    if lost.low is None or lost.low <= 0:
        return Estimate(value=None, note="training on forget took nothing from test that retrained models know")
    return stats.ratio(after - before, clean - before)


test_accuracy.__test__ = False  # type: ignore[attr-defined]

RETAIN_ACCURACY = of_evidence(
    Row("retain_accuracy", "Accuracy on retain", "utility", judged=True, margin=0.05), retain_accuracy
)
RETAIN_LOSS = of_evidence(Row("retain_loss", "Mean loss on retain", "utility", unit="nats"), retain_loss)
TEST_ACCURACY = of_evidence(
    Row("test_accuracy", "Accuracy on test", "utility", judged=True, margin=0.05), test_accuracy
)
RESTORATION = of_evidence(
    Row("restoration", "Restored of what training on forget took from test", "utility", margin=0.05), restoration
)
