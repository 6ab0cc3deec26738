"""Bets that forget looks more, or less, trained on than holdout: evidence that may be looked at after every request.

A bettor starts with 1 and stakes on which of two paired records is the forgotten one. Against a model that never saw
either, no way of staking gains on average, so his wealth is an e-value: above 20 in at most 5 of 100 such models.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from unrecall.errors import BadInput

Scores: TypeAlias = Sequence[float] | np.ndarray
ORDERS = 100
"""Over how many random pairings the wealth is averaged, so that another seed changes little."""
MOST = 1e100
"""No larger e-value is given: a smaller one is an e-value too, and products stay finite."""


class Bets(NamedTuple):
    """`wealth` [pairs]: the mean wealth after each pair; `e_value`: that after the last one, at most `MOST`."""

    wealth: np.ndarray
    e_value: float


def wealth(signs: Scores) -> np.ndarray:
    """The bettor's wealth, at most `MOST`, after each of the signs `[..., pairs]`, which are -1, 0 or 1.

        W_i = W_{i-1} (1 + l_i x_i),    l_i = (x_1 + ... + x_{i-1}) / i

    If E[x_i | past] = 0, the wealth exceeds 1/alpha at any time with probability at most alpha (Ville). The stakes are
    those of Krichevsky and Trofimov, "The Performance of Universal Encoding", IEEE Transactions on Information Theory
    27, 1981; as bets: Orabona, Pal, "Coin Betting and Parameter-Free Online Learning", 2016, arXiv 1602.04128.
    """
    x = np.asarray(signs, float)
    if not np.isin(x, (-1, 0, 1)).all():
        raise BadInput("wealth: expected signs that are -1, 0 or 1, got another number. Give the signs of differences.")
    stakes = (np.cumsum(x, -1) - x) / np.arange(1, x.shape[-1] + 1)
    return np.asarray(np.exp(np.minimum(np.cumsum(np.log1p(stakes * x), -1), np.log(MOST))))


def bet(gaps: Scores, seed: int, orders: int = ORDERS) -> Bets:
    """Bets on pairs that were made before training, by coins: `gaps` [pairs], trained minus untrained wording.

    The order in which they are bet on is random; the wealth is the mean over `orders` of them.
    """
    signs = np.sign(_checked(gaps, "gaps"))
    if not len(signs):
        raise BadInput("bet: expected at least one pair, got none. Give scores of forget and of holdout.")
    generator = np.random.default_rng(seed)
    return _bets(np.stack([generator.permutation(signs) for _ in range(orders)]))


def bet_on_scores(
    forget: Scores, holdout: Scores, seed: int, halves: tuple[Scores, Scores] | None = None, orders: int = ORDERS
) -> Bets:
    """Bets on random pairs of a forget and a holdout record.

    `forget` [n], `holdout` [m]: one score a record, or one a person where people have several; higher for "was trained
    on". `halves` ([n], [m]): where scores come from a model for each half, the half of each; pairs stay within one. The
    wealth is the mean over `orders` random pairings. A single forget record is ranked instead (`rank_bet`).
    """
    arms = _arms(forget, holdout)
    if len(arms[0]) == 1 and halves is None:
        return rank_bet(float(arms[0][0]), arms[1])
    generator = np.random.default_rng(seed)
    return _bets(np.sign([random_gaps(*arms, generator, halves) for _ in range(orders)]))


def random_gaps(
    forget: Scores, holdout: Scores, generator: np.random.Generator, halves: tuple[Scores, Scores] | None = None
) -> np.ndarray:
    """Forget's score minus holdout's, of random pairs in random order `[min(n, m)]`; see `bet_on_scores`."""
    arms = _arms(forget, holdout)
    of = [np.zeros(len(arm)) for arm in arms] if halves is None else [np.asarray(half) for half in halves]
    if [len(half) for half in of] != [len(arm) for arm in arms]:
        raise BadInput("bet: expected halves to name one for each score, got another number of them. Give them all.")
    halves_of_forget, gaps = np.unique(of[0]), []
    parts = (_parts(arm, half, halves_of_forget) for arm, half in zip(arms, of, strict=True))
    for in_half in zip(*parts, strict=True):
        own, other = map(generator.permutation, in_half)
        count = min(len(own), len(other))
        gaps.append(own[:count] - other[:count])
    return generator.permutation(np.concatenate(gaps))


def _parts(scores: np.ndarray, halves: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The scores of each wanted half, in their order."""
    order = np.argsort(halves, kind="stable")
    starts, ends = (np.searchsorted(halves[order], wanted, side) for side in ("left", "right"))
    return [scores[order[start:end]] for start, end in zip(starts, ends, strict=True)]


def rank_bet(forget: float, holdout: Scores) -> Bets:
    """A bet on the rank of a single record among `holdout` [m], which pairs would say nothing about.

    It pays c / sqrt(rank), where rank 1 looks most trained on and c makes the mean over ranks 1; ties count against it.
    Only the side "leaks" is bet on. Reference: Vovk, Wang, "E-values: Calibration, Combination and Applications",
    Annals of Statistics 2021, arXiv 1912.06116.
    """
    others = _checked(holdout, "holdout")
    pays = 1 / np.sqrt(np.arange(1, len(others) + 2))
    value = pays[int((others >= _checked([forget], "forget")[0]).sum())] / pays.mean()
    return Bets(np.array([value]), float(value))


def mean_bet(bets: Sequence[Bets]) -> float:
    """The mean of several e-values on the same records, which is an e-value however they hang together."""
    return float(np.mean([bet.e_value for bet in bets]))


def seed_of(*parts: str) -> int:
    """A seed that nobody chooses: the start of the sha256 of these texts."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big")


def _bets(signs: np.ndarray) -> Bets:
    """The mean over orders of the wealth under signs `[orders, pairs]`."""
    path = wealth(signs).mean(0)
    return Bets(path, float(path[-1]) if len(path) else 1.0)


def _arms(forget: Scores, holdout: Scores) -> tuple[np.ndarray, np.ndarray]:
    arms = _checked(forget, "forget"), _checked(holdout, "holdout")
    if not all(len(arm) for arm in arms):
        raise BadInput(
            f"bet: expected scores of forget and of holdout, got {len(arms[0])} and {len(arms[1])}. Name a holdout."
        )
    return arms


def _checked(scores: Scores, name: str) -> np.ndarray:
    values = np.asarray(scores, float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise BadInput(f"bet: expected {name} to be one finite score a record, got {values.shape} or NaN. Correct it.")
    return values
