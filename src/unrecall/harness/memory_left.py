"""How much of what the original remembers of the forgotten examples a model still shows, beside retrained models."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unrecall.attacks.lira import logit
from unrecall.evidence.pool import Arm
from unrecall.record.row import ROLES, Row
from unrecall.record.schema import Estimate, Measurement

PRIOR = 6
"""The weight, in models, of the standard error over examples, pooled with the spread between retrained models."""
MEAN_VARIANCE = 4
"""The weight, in models, of the mean variance over examples, pooled with the variance on a single one."""
HARDEST = 0.2
LOWEST, HIGHEST = -15.0, 20.0
"""Scores are cut off there: what lies beyond is as sure as can be, and would outweigh all others."""
LEFT = Row("loss_left", "Memory left, share of the original's", "privacy", "above", True, prior=PRIOR)
EXCESS = Row("loss_excess", "Confidence in forget beyond holdout, in deviations", "privacy", "above")
HARDEST_EXCESS = Row("loss_hardest", "The same over the hardest fifth", "privacy", "above")
NO_DEVIATION = Estimate(value=None, note="needs two other retrained models, which differ by so much")
MEMORY = (LEFT, EXCESS, HARDEST_EXCESS)

Confidence = Mapping[Arm, np.ndarray]
"""Logit confidence in each example's own label, by arm: log(p / (1 - p)) `[n]`."""


class MemoryLeft(NamedTuple):
    """The share of the original's memory that a model still has; its error if noise on examples is independent."""

    value: float
    error: float


def rows_of_memory(losses: Mapping[str, Confidence], kind: str) -> list[Measurement]:
    """Memory left, and the confidence in forget beyond holdout over all examples and the hardest, for every model.

    `losses`: by role and arm `[n]`, in nats. `kind`: the request's. Rows with a reason where there is no value.
    """
    estimates = estimates_of_memory(losses, kind)
    return [row.measured(estimates[row.name]) for row in MEMORY]


def estimates_of_memory(losses: Mapping[str, Confidence], kind: str) -> dict[str, dict[str, Estimate]]:
    """The values of those rows, by the row's name and by role."""
    by_role: dict[str, Confidence] = {
        role: {arm: np.clip(logit(values), LOWEST, HIGHEST) for arm, values in arms.items()}
        for role, arms in losses.items()
    }
    references = [role for role in by_role if role.startswith("retrained")]
    reason = _lacking(by_role, references, kind)
    if reason:
        return {row.name: dict.fromkeys(ROLES, Estimate(value=None, note=reason)) for row in MEMORY}
    left, excess, hardest = dict[str, Estimate](), dict[str, Estimate](), dict[str, Estimate]()
    for role, own in by_role.items():
        others = [by_role[name] for name in references if name != role]
        everyone = [by_role[name] for name in references]
        n = len(own["forget"])
        memory = left_of(own, by_role["original"], others, everyone)
        half = 1.96 * memory.error
        left[role] = Estimate(value=memory.value, low=memory.value - half, high=memory.value + half, n=n)
        for values, share in ((excess, 1.0), (hardest, HARDEST)):
            values[role] = Estimate(value=excess_of(own, others, share), n=n) if len(others) > 1 else NO_DEVIATION
    return {LEFT.name: left, EXCESS.name: excess, HARDEST_EXCESS.name: hardest}


def left_of(
    own: Confidence, original: Confidence, others: Sequence[Confidence], everyone: Sequence[Confidence]
) -> MemoryLeft:
    """How much of what sets the original apart from retrained models sets this model apart, on forget beyond holdout.

        S(x) = mean_F(w (x - m)) - mean_H(w (x - m)),     w = original - m',     share = S(own) / S'(original)

    x: logit confidence in the label of each example; m: its mean over all retrained models (`everyone`), m' over those
    other than this model (`others`), and S' with m' for m. 0 on average for a retrained model, 1 for the original. What
    a model shares with the original by chance and not by memory, it shares on holdout too, and it cancels. The error:
    that of S were models' noise independent between examples, each variance shrunken to the mean (`MEAN_VARIANCE`).

    Reference: ours; a matched filter. Confidence beside models that never saw the example: Carlini et al., S&P 2022,
    arXiv 2112.03570.
    """
    variances = {arm: np.var([model[arm] for model in everyone], axis=0, ddof=1) for arm in own}
    typical, freedom = float(np.concatenate(list(variances.values())).mean()), len(everyone) - 1
    own_signal = original_signal = variance_of_own = 0.0
    signs: Mapping[Arm, float] = {"forget": 1.0, "holdout": -1.0}
    for arm, sign in signs.items():
        arm_mean = np.mean([model[arm] for model in others], axis=0)
        weights = original[arm] - arm_mean
        deviation = own[arm] - np.mean([model[arm] for model in everyone], axis=0)
        own_signal += sign * float(np.mean(weights * deviation))
        original_signal += sign * float(np.mean(weights**2))
        variance = (MEAN_VARIANCE * typical + freedom * variances[arm]) / (MEAN_VARIANCE + freedom)
        variance_of_own += float(np.mean(weights**2 * variance)) / len(weights)
    return MemoryLeft(own_signal / original_signal, float(np.sqrt(variance_of_own)) / abs(original_signal))


def excess_of(own: Confidence, others: Sequence[Confidence], hardest: float) -> float:
    """How much surer a model is of forget than of holdout, beyond retrained models, in their pooled deviations.

    Mean over the `hardest` share of each arm: those of which the retrained models are least sure.
    """
    means = {arm: np.mean([model[arm] for model in others], axis=0) for arm in own}
    pooled = np.concatenate([np.var([model[arm] for model in others], axis=0) for arm in own]).mean()
    pooled *= len(others) / max(1, len(others) - 1)
    mean = {}
    for arm, values in own.items():
        chosen = np.argsort(means[arm], kind="stable")[: max(1, round(hardest * len(values)))]
        mean[arm] = float(np.mean((values - means[arm])[chosen]))
    return (mean["forget"] - mean["holdout"]) / max(float(np.sqrt(pooled)), 1e-6)


def _lacking(by_role: Mapping[str, Confidence], references: Sequence[str], kind: str) -> str:
    """Why there is no memory to speak of; empty where there is."""
    if kind in ("class", "concept"):
        return f"forget and holdout share the {kind} that is to be forgotten"
    if len(references) < 2:
        return f"needs at least 2 retrained models, got {len(references)}"
    if "original" not in by_role:
        return "needs the original's scores"
    squares = {}
    for arm, values in by_role["original"].items():
        means = np.mean([by_role[name][arm] for name in references], axis=0)
        squares[arm] = (values - means) ** 2
    if min(map(len, squares.values())) == 0 or len(squares["holdout"]) < 2:
        return "needs examples of forget, and two of holdout"
    chance = float(np.std(squares["holdout"], ddof=1)) * np.sqrt(sum(1 / len(values) for values in squares.values()))
    if squares["forget"].mean() - squares["holdout"].mean() <= 2 * chance:
        return "the original remembers forget no better than holdout, as far as this many examples can tell"
    return ""
