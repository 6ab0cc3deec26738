"""How much of the forgotten the model shows when nobody attacks it."""

import numpy as np

from unrecall.evidence.evidence import Evidence
from unrecall.metrics.base import of_evidence
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate


def forget_accuracy(evidence: Evidence) -> Estimate:
    """Share of forget rows predicted right, in [0, 1]; papers print 1 minus this as "unlearn accuracy"."""
    return stats.mean(evidence.signals["forget"].correct, share=True)


def holdout_accuracy(evidence: Evidence) -> Estimate:
    """Share of holdout rows predicted right, in [0, 1]: forget accuracy as it would be had forget never been seen."""
    return stats.mean(evidence.signals["holdout"].correct, share=True)


def disagreement(evidence: Evidence) -> Estimate:
    """Share of forget rows on which the model and a retrained one predict differently, mean over retrained models.

    In [0, 1]. It has no side on which it leaks: a model that forgot nothing disagrees more than retrained models do
    among themselves where it still knows what they miss, and less where their guesses scatter.

    Reference: model-level disagreement of Hsu et al., NeurIPS 2025, arXiv 2601.22359.
    """
    signals = evidence.signals["forget"]
    if not evidence.references:
        return Estimate(value=None, note="needs a retrained model")
    differs = [reference["forget"].prediction != signals.prediction for reference in evidence.references]
    return stats.mean(np.mean(differs, axis=0), share=True)


def intra_class_cosine(evidence: Evidence) -> Estimate:
    """Mean cosine between features of forget examples of one class, over ordered pairs, in [-1, 1].

    sum over classes of (|sum of unit features|^2 - n) / sum over classes of n (n - 1)

    Reference: dispersion in Ha, Park, Yoon, ICML 2026, arXiv 2506.01318.
    """
    signals = evidence.signals["forget"]
    if len(signals.target) != len(signals):
        return Estimate(value=None, note="needs examples that have one class each")
    lengths = np.linalg.norm(signals.features, axis=1, keepdims=True)
    unit = signals.features / np.maximum(lengths, 1e-12)
    label = np.zeros(len(signals), dtype=np.int64)
    label[signals.example] = signals.target
    cosines, partners = np.zeros(len(signals)), np.zeros(len(signals))
    for value in np.unique(label):
        members = label == value
        group = unit[members].astype(np.float64)
        cosines[members] = group @ group.sum(0) - np.square(group).sum(1)
        partners[members] = len(group) - 1
    if partners.sum() == 0:
        return Estimate(value=None, note="needs two forget examples of one class")
    return stats.jackknife(cosines, partners)


FORGET_ACCURACY = of_evidence(
    Row("forget_accuracy", "Accuracy on forget", "forgetting", "above", judged=True), forget_accuracy
)
HOLDOUT_ACCURACY = of_evidence(Row("holdout_accuracy", "Accuracy on holdout", "forgetting"), holdout_accuracy)
DISAGREEMENT = of_evidence(Row("disagreement", "Disagreement with retrained on forget", "forgetting"), disagreement)
INTRA_CLASS_COSINE = of_evidence(
    Row("intra_class_cosine", "Cosine within a class of forget", "forgetting", "above"), intra_class_cosine
)
