"""Checks of the holdout and of the test's power that need no model but the original, and none to be trained."""

import numpy as np

from unrecall.record.exchange import Labels, exchange

DRAWS = 999
MIXTURES = 20
SHARE = 0.25
"""The share of forget that stays in a diluted one."""
SPARE = 30
"""Units of holdout that a diluted forget must leave to be compared with."""


def blind_test(covariates: np.ndarray, labels: Labels, seed: int, draws: int = DRAWS) -> float | None:
    """p that covariates `[k, units]` alone tell forget from holdout, by Hotelling's T^2 under exchanged labels.

    A low p says that the arms are not alike, whatever any model knows. None without covariates.

    Reference: Hotelling, "The Generalization of Student's Ratio", Annals of Mathematical Statistics 1931; why to ask
    without the model: Das, Zhang, Tramer, "Blind Baselines Beat Membership Inference Attacks", 2024, arXiv 2406.16201.
    """
    if not len(covariates):
        return None
    centred = [covariates[:, part] - covariates[:, part].mean(1, keepdims=True) for part in labels.parts]
    spread = sum((values @ values.T for values in centred), np.zeros((len(covariates),) * 2))
    inverse = np.linalg.pinv(spread, hermitian=True)

    def statistic(marks: list[np.ndarray]) -> np.ndarray:
        sums = sum((w @ m for w, m in zip(centred, marks, strict=True)), np.zeros((len(covariates), 1)))
        return np.asarray(np.einsum("ib,ij,jb->b", sums, inverse, sums))

    true = float(statistic(labels.own())[0])
    reached = [statistic(marks) >= true * (1 - 1e-9) for marks in labels.labellings(seed, draws)]
    count, own = sum(map(len, reached)), int(labels.possible > draws)
    return (int(sum(part.sum() for part in reached)) + own) / (count + own)


def placebo(scores: np.ndarray, labels: Labels, seed: int, draws: int = DRAWS) -> float | None:
    """p, of both sides, that scores tell one random part of the holdout from the rest; None with fewer than 8 units.

    It should be low as rarely as chance has it: no model was trained on either part.
    """
    holdout = np.flatnonzero(~labels.forget)
    if len(holdout) < 8:
        return None
    mark = np.zeros(len(holdout), bool)
    mark[np.random.default_rng(seed).permutation(len(holdout))[: len(holdout) // 2]] = True
    test = exchange(scores[:, holdout], Labels(mark, labels.stratum[holdout]), seed, draws)
    return min(1.0, 2 * min(test.leak, test.strange))


def dilution(scores: np.ndarray, labels: Labels, seed: int, level: float = 0.04) -> float | None:
    """In what share of draws a forget set, three quarters of which are holdout, is found in the original.

    `scores`: the original's. A check of power that trusts no formula and trains nothing, somewhat conservative. None
    where the holdout is too small to give that many away.
    """
    forget, holdout = np.flatnonzero(labels.forget), np.flatnonzero(~labels.forget)
    stays = round(SHARE * len(forget))
    replaced = len(forget) - stays
    if not stays or len(holdout) < replaced + SPARE:
        return None
    rng = np.random.default_rng(seed)
    caught = 0
    for draw in range(MIXTURES):
        part, added = rng.permutation(forget)[:stays], rng.permutation(holdout)
        units = np.concatenate([part, added])
        mark = np.zeros(len(units), bool)
        mark[: stays + replaced] = True
        caught += exchange(scores[:, units], Labels(mark, labels.stratum[units]), seed + draw, 499).leak <= level
    return caught / MIXTURES
