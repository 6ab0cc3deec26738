"""Min-K%++: are the example's least likely rows as likely as the model could make them?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrecall.attacks.base import one_query
from unrecall.attacks.min_k import MinK
from unrecall.data.signals import Signals
from unrecall.record.schema import ThreatModel

SMALLEST = 1e-4
"""Deviations below this are mostly rounding: the model is sure of one class, or finds all alike; z is then about 0."""


@dataclass(frozen=True)
class MinKPlusPlus(MinK):
    """Min-K% on log-probabilities that are standardised under the model's own prediction at that row.

        z_i = (log p(x_i | x_<i) - mu_i) / sigma_i        mu, sigma: mean and deviation of log p(X | x_<i), X ~ p
        score(x) = mean of the floor(k n) lowest of z_i, but at least one

    Training makes a target a mode of the predicted distribution, so that a trained-on row lies high above mu even
    where the model is unsure. Over classes that are all equally likely, z is 0.

    Args:
        k: share of the rows, in [0, 1].

    Expected to fail: on answers of a few tokens, where it looks at one of them. Where a retrained model predicts a
    token as sharply as the original, nothing is left to see.

    Reference: Zhang, Sun, Yeats, Ouyang, Kuo, Zhang, Yang, Li, "Min-K%++: Improved Baseline for Detecting Pre-Training
    Data from Large Language Models", ICLR 2025, arXiv 2404.02936. Differs from the paper in one k (the paper sweeps it
    and reports the best), in taking one row where k n is below 1, and in leaving the rows of a prompt out.
    """

    title: ClassVar[str] = "Min-K%++"
    threat: ClassVar[ThreatModel] = one_query("the unlearned model's probability of each class at each row")

    def of_row(self, signals: Signals) -> np.ndarray:
        """Deviations above what the model expects of its own words `[rows]`."""
        return np.asarray((signals.log_prob - signals.expected) / np.maximum(signals.deviation, SMALLEST))
