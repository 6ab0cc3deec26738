"""Which share of forget still counts as trained on, at the threshold that tells most in the original."""

from collections.abc import Mapping

import numpy as np

from unrecall.attacks.base import ARMS
from unrecall.data.request import Split
from unrecall.errors import MissingReference
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric, estimates
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate

ROW = Row("members_left", "Share of forget whose loss still tells that it was trained on", "privacy", "above")
TWO_SIDED = 1.96


def members_left(own: Mapping[Split, np.ndarray], original: Mapping[Split, np.ndarray]) -> Estimate:
    """The share of forget that is still counted as members, beside what the original gives; 1 for the original itself.

        share = (P_F[loss < t] - P_H[loss < t]) / (P_F[loss_0 < t] - P_H[loss_0 < t])

    F: forget, H: holdout, loss_0: the original's, t: where the denominator is largest (Youden). The numerator is 0 on
    average for a model that never met F. The interval takes t and the denominator as they are; t is chosen on these
    examples, so that of few of them the denominator is a little too large and the share too small. No interval where
    no example differs from the others.

    `own`, `original`: losses `[n]` in nats of "forget" and of "holdout". No value where the original's own losses don't
    tell forget from holdout at 95 %.

    Reference: the estimator of Tong, Ye, Zarifzadeh, Shokri, "How Much of My Dataset Did You Use? Quantitative Data
    Usage Inference in Machine Learning" (DUCI), ICLR 2025, from notes. Differs from it in taking the attack's rates
    from the original, which was trained on all of forget and none of the holdout, in place of reference models.
    """
    area = stats.auc(-original["forget"], -original["holdout"])
    if area.low is None or area.low <= 0.5:
        return Estimate(value=None, note="the original's losses don't tell forget from holdout")
    thresholds = np.sort(np.concatenate([original["forget"], original["holdout"]]))
    below = {arm: np.searchsorted(np.sort(original[arm]), thresholds, side="right") for arm in ARMS}
    gains = below["forget"] / len(original["forget"]) - below["holdout"] / len(original["holdout"])
    best, most = thresholds[int(np.argmax(gains))], float(gains.max())
    share = float(np.mean(own["forget"] <= best) - np.mean(own["holdout"] <= best)) / most
    variance = 0.0
    for arm in ARMS:
        remainder = (own[arm] <= best) - share * (original[arm] <= best)
        variance += float(np.var(remainder, ddof=1)) / len(remainder) if len(remainder) > 1 else 0.0
    half, n = TWO_SIDED * variance**0.5 / most, len(own["forget"]) + len(own["holdout"])
    if np.isclose(half, 0):
        return Estimate(value=share, n=n, note=stats.ALIKE)
    return Estimate(value=share, low=share - half, high=share + half, n=n)


def measure(setting: Setting) -> Measured:
    """Which share of forget the loss still tells to have been trained on; 1 for the original, 0 for one without forget.

    A reason where there is no holdout, or forget and holdout share what must go.
    """
    kind = setting.request.kind

    def of(evidence: Evidence) -> Estimate:
        if kind in ("class", "concept"):
            raise MissingReference(f"forget and holdout share the {kind} that is to be forgotten")
        own, original = ({arm: of[arm].loss for arm in ARMS} for of in (evidence.signals, evidence.original))
        return members_left(own, original)

    return Measured([ROW.measured(estimates(setting, of))])


MEMBERS_LEFT = Metric("members_left", (ROW,), measure)
