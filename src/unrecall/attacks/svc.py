"""The papers' SVC attack: a classifier that tells trained-on from unseen by the probability of the true class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn import svm

from unrecall.attacks.base import MembershipAttack
from unrecall.data.examples import evenly
from unrecall.data.request import Split
from unrecall.errors import NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count, Positive

TOO_FEW = "SVC: expected two examples of the forgotten class or more, to fit on one half and score the other, got one."


@dataclass(frozen=True)
class SVC(MembershipAttack):
    """Fits a support vector classifier on one number, and asks on which side each example falls.

    Both sides weigh alike, however many examples they have: otherwise 60 test examples beside 2,000 of retain are lost,
    and all the world is called seen.

        samples:  fit retain = 1 against test = 0, score forget
        class:    fit retain = 1 against one half of forget = 0, score the other half; then with the halves swapped

    The score is the decision function. The paper's number is `failure_rate`, the share of forget called "not seen".

    Args:
        c: penalty.
        most: fit at most this many examples, picked at equal distances; the smaller side is whole, where it is no more
            than half of them.

    Expected to fail: by construction on well-generalising models, where seen and unseen examples get the same
    probabilities. For a class it learns what the forgotten class looks like now, not what membership looks like.

    Reference: Hsu, Niroula, He, Brugere, Lecue, Chen, "The Unseen Threat: Residual Knowledge in Machine Unlearning
    under Perturbed Samples", NeurIPS 2025, arXiv 2601.22359, section 5 (its "MIA"). Differs from the paper in `most`,
    in the weights (the paper doesn't say how many examples a side has; class_weight "balanced" is scikit-learn's), and
    for a class in swapping the halves so that every example has a score (the paper doesn't say how it splits).
    """

    title: ClassVar[str] = "SVC on confidence"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's probability of the true label",
        data="retain and test examples with labels, beside the examples in question",
        budget="one query an example",
    )

    blind: ClassVar[bool] = False
    """Of a class it is fitted on halves of forget."""

    c: Positive = 3.0
    most: Count = 4000

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """The signed distance from the boundary; positive is called "trained on"."""
        examples = evidence.signals[split].confidence
        retain = evidence.signals["retain"].confidence
        if evidence.request.kind != "class":
            return self._decide(retain, evidence.signals["test"].confidence, examples)
        forget = evidence.signals["forget"].confidence
        halves = [forget[0::2], forget[1::2]]
        if min(len(half) for half in halves) == 0:
            raise NotSupported(TOO_FEW)
        by_half = [self._decide(retain, half, examples) for half in halves]
        if split != "forget":
            return np.asarray(np.mean(by_half, axis=0))
        return np.where(np.arange(len(examples)) % 2 == 0, by_half[1], by_half[0])

    def failure_rate(self, evidence: Evidence) -> Estimate:
        """The share of forget that is called "not seen", with its exact interval; the attacker fails on these."""
        if evidence.request.kind == "class" and len(evidence.signals["forget"]) < 2:
            return Estimate(value=None, note=TOO_FEW)
        return stats.mean((self.score(evidence, "forget") <= 0).astype(float))

    def _decide(self, members: np.ndarray, others: np.ndarray, examples: np.ndarray) -> np.ndarray:
        """The decision function at the examples, fitted on members = 1 against others = 0."""
        smaller = min(len(members), len(others), self.most // 2)
        sides = [side[evenly(len(side), min(len(side), self.most - smaller))] for side in (members, others)]
        classifier = svm.SVC(C=self.c, gamma="auto", kernel="rbf", class_weight="balanced", random_state=0)
        classifier.fit(np.concatenate(sides)[:, None], np.repeat([1, 0], [len(side) for side in sides]))
        return np.asarray(classifier.decision_function(examples[:, None]))
