"""LiRA: is the model surer of an example than models that never saw it?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrecall.attacks.base import MembershipAttack
from unrecall.data.request import Split
from unrecall.evidence.evidence import Evidence
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count

SMALLEST = float(np.finfo(np.float64).tiny)
"""Losses below this are 0; it keeps the logit finite at both ends."""


@dataclass(frozen=True)
class Lira(MembershipAttack):
    """Offline LiRA: how many deviations the subject's confidence lies above that of models that never saw the example.

        phi = log(p / (1 - p)),  p the probability of the true label      score = (phi - mu_out) / sd_out

    The retrained models are the OUT models: none of them was trained on forget, holdout or test. The score is the
    argument of the paper's Pr[Z <= phi], which ranks alike and doesn't round to 1 eight deviations out.

    Where an example has many rows (a text's tokens), p is exp of minus its mean loss: the geometric mean of its rows'
    probabilities. The probability of the whole text would let long texts rule the pooled deviation.

    Args:
        per_example: with fewer references than this one deviation, pooled over all forget and holdout examples, serves
            them all (at 2 or 3 references an example's own is mostly noise); with as many, each has its own.

    Expected to fail: on retain, where the retrained models are IN models (NotSupported). With few references it is
    weak: its power comes from many.

    Reference: Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership Inference Attacks From First Principles",
    S&P 2022, arXiv 2112.03570, section VI-C (offline). Differs from the paper in one query an example (no
    augmentation), in the pooled deviation being taken around each example's own mean, and in the number of references.
    The authors' code takes the median over OUT models where the paper, and this, take the mean, and scores by minus the
    log-density, for which confidence far below that of OUT models is membership too: two-sided, this is one-sided.
    """

    title: ClassVar[str] = "LiRA, offline"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's probability of the true label",
        data="the examples in question and their labels; training data to retrain models without them",
        budget="two or more retrained models",
    )

    per_example: Count = 8

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """Deviations above the OUT models' mean; MissingReference with fewer than two of them."""
        k = len(self.outsiders(evidence, split, least=2))
        phi = logit(evidence.signals[split].loss)
        out = _out(evidence, split)
        if k >= self.per_example:
            spread = out.std(0, ddof=1)
        else:
            variances = [_out(evidence, arm).var(0, ddof=1) for arm in ("forget", "holdout")]
            # Sorted, so that not even the last digit tells which of the two came first.
            spread = np.sqrt(np.sort(np.concatenate(variances)).mean())
        return np.asarray((phi - out.mean(0)) / np.maximum(spread, 1e-6))


def logit(loss: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of p = exp(-loss), without ever forming 1 - p; losses are at least `SMALLEST`."""
    bounded = np.maximum(loss, SMALLEST)
    return np.asarray(-bounded - np.log(-np.expm1(-bounded)))


def _out(evidence: Evidence, split: Split) -> np.ndarray:
    """phi under each OUT model `[references, n]`."""
    return np.stack([logit(signals[split].loss) for signals in evidence.references])
