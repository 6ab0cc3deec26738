"""The reference attack: does the model find an example easier than models that never saw it?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrecall.attacks.base import MembershipAttack
from unrecall.data.request import Split
from unrecall.evidence.evidence import Evidence
from unrecall.record.schema import ThreatModel


@dataclass(frozen=True)
class ReferenceModel(MembershipAttack):
    """Scores an example by how much lower its loss is than under reference models.

        score(x) = mean over references r of loss_r(x) - loss(x)

    A reference model has not seen the data: here it is each retrained model but the subject. What is easy for them too
    was not learned from the example.

    Expected to fail: on retain, which the retrained models were trained on (NotSupported). It ignores how far
    the references differ from each other; LiRA divides by that, which needs two or more.

    Reference: Carlini et al., "Extracting Training Data from Large Language Models", USENIX Security 2021, arXiv
    2012.07805, section 5.2; as a difference: Watson, Guo, Cormode, Sablayrolles, "On the Importance of Difficulty
    Calibration in Membership Inference Attacks", ICLR 2022, arXiv 2111.08440. Differs from the first in the difference
    (it takes the ratio of log-perplexities) and in its references, which are retrained models of the same kind rather
    than a smaller model of other origin.
    """

    title: ClassVar[str] = "Loss against reference models"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's probability of the true label",
        data="the examples in question and their labels; training data to retrain models without them",
        budget="one or more retrained models",
    )

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """Nats below the references' mean; MissingReference without a reference."""
        out = np.mean([signals[split].loss for signals in self.outsiders(evidence, split)], axis=0)
        return np.asarray(out - evidence.signals[split].loss)
