"""The loss attack: examples that the model finds easy were probably trained on."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrecall.attacks.base import MembershipAttack, one_query
from unrecall.data.request import Split
from unrecall.evidence.evidence import Evidence
from unrecall.record.schema import ThreatModel


@dataclass(frozen=True)
class Loss(MembershipAttack):
    """Scores an example by minus its loss.

        score(x, y) = log p(y | x)

    Expected to fail: where some examples are easy for any model; LiRA and RMIA correct for that.

    Reference: Yeom, Giacomelli, Fredrikson, Jha, "Privacy Risk in Machine Learning: Analyzing the Connection to
    Overfitting", CSF 2018, arXiv 1709.01604. Differs from the paper in giving a score rather than one threshold.
    """

    title: ClassVar[str] = "Loss threshold"
    threat: ClassVar[ThreatModel] = one_query("the unlearned model's probability of the true label")

    judged: ClassVar[str] = "left"

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """Minus the loss of each example."""
        return -evidence.signals[split].loss
