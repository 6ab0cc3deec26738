"""RMIA: is the model more surprisingly sure of an example than of random members of the population?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special

from unrecall.attacks.base import MembershipAttack
from unrecall.data.request import Split
from unrecall.evidence.evidence import Evidence
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Positive, Share


@dataclass(frozen=True)
class RMIA(MembershipAttack):
    """Offline RMIA: compares each example with the test split, after dividing by how sure other models are of it.

        LR(x) = p(x | theta) / p(x),    p(x) = ((1 + a) p_out(x) + (1 - a)) / 2,    LR(z) = p(z | theta) / p_out(z)
        score(x) = share of z in test with LR(x) / LR(z) >= gamma

    p is the probability of the true label and p_out its mean over the retrained models, which are OUT models. The
    correction by a guesses, from OUT models alone, the average over models with and without x. Only x is corrected
    here, for z was in no model's training set; so scores of non-members lie below one half on average where a < 1, and
    only differences between forget and holdout mean anything.

    Args:
        a: how like OUT models the IN models are, in [0, 1]; 1 assumes no difference. The paper fits it per data set
            (about 0.3 on CIFAR-10).
        gamma: by how much x must beat z, positive. The paper finds its results insensitive to it.

    Expected to fail: on retain, where the retrained models are IN models (NotSupported), and with a small test split,
    which makes the scores coarse.

    Reference: Zarifzadeh, Liu, Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024, arXiv 2312.03262,
    section 3 (offline). Differs from the paper in gamma (ours 1; theirs 2) and in one query an example; from the
    authors' code in z, which is corrected there as x is.
    """

    title: ClassVar[str] = "RMIA, offline"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's probability of the true label",
        data="the examples in question and their labels; population examples; training data to retrain models",
        budget="one or more retrained models",
    )

    a: Share = 0.3
    gamma: Positive = 1.0

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """The share of the test split that each example beats; MissingReference without a reference."""
        self.outsiders(evidence, split)
        log_ratios = -evidence.signals[split].loss - _log_mean(evidence, split, (1 + self.a) / 2)
        population = -evidence.signals["test"].loss - _log_mean(evidence, "test", 1.0)
        beaten = np.searchsorted(np.sort(population), log_ratios - np.log(self.gamma), side="right")
        return np.asarray(beaten / len(population))


def _log_mean(evidence: Evidence, split: Split, share: float) -> np.ndarray:
    """log(share p_out + 1 - share) `[n]`, p_out the probability of the true label, mean over OUT models.

    From 1 - p_out where that is small, and from log p_out where that is, so that neither end is rounded to it.
    """
    losses = np.stack([signals[split].loss for signals in evidence.references])
    doubt = -np.expm1(-losses).mean(0)
    likely = np.log1p(-share * np.minimum(doubt, 0.5))
    log_out = special.logsumexp(-losses, axis=0) - np.log(len(losses))
    rest = np.log(1 - share) if share < 1 else -np.inf
    return np.asarray(np.where(doubt <= 0.5, likely, np.logaddexp(np.log(share) + log_out, rest)))
