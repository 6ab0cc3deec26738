"""Min-K%: has the example no row that surprises the model?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrecall.attacks.base import MembershipAttack, one_query
from unrecall.data.request import Split
from unrecall.data.signals import Signals
from unrecall.evidence.evidence import Evidence
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Share


@dataclass(frozen=True)
class MinK(MembershipAttack):
    """Scores an example by the mean log-probability of its least likely rows.

        score(x) = mean of the floor(k n) lowest of log p(x_i | x_<i), i = 1..n, but at least one

    A row is a token of a text. Where an example is one row, say an image with its label, this is the loss attack.

    Args:
        k: share of the rows, in [0, 1]; 1 is the loss attack.

    Expected to fail: where some examples hold rarer words than others; Min-K%++ and LiRA correct for that. On answers
    of a few tokens it looks at one of them, which is noisy.

    Reference: Shi, Ajith, Xia, Huang, Liu, Blevins, Chen, Zettlemoyer, "Detecting Pretraining Data from Large Language
    Models", ICLR 2024, arXiv 2310.16789. Differs from the paper in taking one row where k n is below 1, and in leaving
    the rows of a prompt out.
    """

    title: ClassVar[str] = "Min-K%"
    threat: ClassVar[ThreatModel] = one_query("the unlearned model's probability of each row")

    k: Share = 0.2

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """The mean of each example's lowest rows."""
        signals = evidence.signals[split]
        return np.array([self._lowest(values) for values in signals.of_rows(self.of_row(signals))])

    def of_row(self, signals: Signals) -> np.ndarray:
        """How likely each row is `[rows]`, in nats."""
        return signals.log_prob

    def _lowest(self, values: np.ndarray) -> float:
        count = max(1, int(self.k * len(values)))
        return float(np.partition(values, count - 1)[:count].mean())
