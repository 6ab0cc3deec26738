"""How completely each forgotten example is gone: where a model lies between one that never saw it and the original."""

import itertools
import math

import numpy as np

from unrecall.errors import MissingReference
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric, estimates, mean_share
from unrecall.record.row import Row
from unrecall.record.schema import Estimate
from unrecall.tasks.protocols import Textual, offers

ROW = Row("completeness", "Completeness of forgetting, mean over forget", "forgetting", "below")
POINTS = 100
"""On how many models between a retrained one and the original the score rests."""
CEILING, CEILING_OF_TEXTS, FLOOR = 1e-2, 1e-1, 1e-5
"""What bounds confidence from above, for texts too, and from below."""


def completeness(own: np.ndarray, original: np.ndarray, others: np.ndarray, ceiling: float) -> np.ndarray:
    """Per-example completeness of forgetting in [0, 1], `[n]`; 1 where a model is far less sure than any that forgot.

        r(p) = -log(ceiling - log(p + floor))                      I_k(a) = r_k + a (r_original - r_k)
        F(a) = exp(-exp(-(r_own - mu(a)) / b - 0.5772)),           b = sqrt(6) s(a) / pi
        completeness = 1 - sum_j a_{j+1} F(a_j) / sum_j a_{j+1},   a_0, a_1, ... evenly from 0 to 1

    p: the probability of the example's own label; r_k, of the k-th model that never saw it; mu(a) the mean over k of
    I_k(a), and s(a) the deviation over all models and examples. F is the Gumbel distribution of that mean and of that
    deviation.

    `own`, `original`: losses `[n]` in nats; `others`: `[k, n]`, k at least 1.

    Reference: Wang, Li, Xiang, Cao, Wang, "Towards Lifecycle Unlearning Commitment Management: Measuring Sample-level
    Unlearning Completeness" (IAM), USENIX Security 2025, arXiv 2506.06112; constants and weights as in the authors'
    code, whose scores these are to five digits. Differs from the code for texts, where that maps 1 - p in place of p
    and takes 1,000 points.
    """
    own_score, original_score, other_scores = (bounded_score(losses, ceiling) for losses in (own, original, others))
    total, shares = np.zeros(len(own)), np.linspace(0, 1, POINTS)
    for share, weight in itertools.pairwise(shares):
        between = other_scores + share * (original_score - other_scores)
        scale = max(math.sqrt(6) * float(between.std()) / math.pi, 1e-6)
        standard = np.clip((own_score - between.mean(0)) / scale + np.euler_gamma, -50, None)
        total += weight * np.exp(-np.exp(-standard))
    return np.asarray(1 - total / shares[1:].sum())


def bounded_score(losses: np.ndarray, ceiling: float) -> np.ndarray:
    """r(p) of p = exp(-loss): confidence on a scale that has bounds on both ends."""
    return np.asarray(-np.log(np.maximum(ceiling - np.log(np.exp(-losses) + FLOOR), 1e-12)))


def measure(setting: Setting) -> Measured:
    """How completely forget is gone, mean over its examples, in [0, 1]: the smaller, the more like the original.

    Without a retrained model besides the one that is measured, the reason why not. See `completeness`.

    Reference: Wang, Li, Xiang, Cao, Wang, "Towards Lifecycle Unlearning Commitment Management: Measuring Sample-level
    Unlearning Completeness", USENIX Security 2025, arXiv 2506.06112.
    """
    ceiling = CEILING_OF_TEXTS if offers(setting.task, Textual) else CEILING

    def of(evidence: Evidence) -> Estimate:
        if not evidence.references:
            raise MissingReference("needs a retrained model besides the one that is measured")
        others = np.stack([signals["forget"].loss for signals in evidence.references])
        own, original = evidence.signals["forget"].loss, evidence.original["forget"].loss
        return mean_share(completeness(own, original, others, ceiling), "no examples of forget")

    return Measured([ROW.measured(estimates(setting, of))])


COMPLETENESS = Metric("completeness", (ROW,), measure)
