"""A lower bound on epsilon from one model: how often the forgotten one of two paired records is guessed right."""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from unrecall.errors import BadInput
from unrecall.record.betting import Scores

CONFIDENCE = 0.05
SHARES = (1.0, 0.5, 0.25, 0.125)
"""Of which shares of the pairs a guess is made, widest gaps first; the level is divided among them."""


class OneRun(NamedTuple):
    """The largest bound over the shares of pairs that are guessed, and the guesses behind it, of `pairs` pairs."""

    epsilon: float
    pairs: int
    guesses: int
    right: int


def p_value(epsilon: float, guesses: int, right: int, pairs: int, delta: float = 0.0) -> float:
    """How often a model with this epsilon lets so many guesses be right, at most; grows with epsilon.

        q = 1 / (1 + e^-epsilon),    p = P[Bin(r, q) >= v] + 2 m delta max_{1 <= i <= v} P[v - i <= Bin(r, q) < v] / i

    for v of r guesses right and m pairs, each of whose two records was trained on by a fair coin; the others are
    abstained on. Reference: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023,
    arXiv 2305.08846, Theorem 5.2 and Appendix D.
    """
    if not 0 <= right <= guesses <= pairs or not 0 <= delta <= 1:
        raise BadInput(
            f"epsilon: expected 0 <= right <= guesses <= pairs and delta in [0, 1], got {right}, {guesses}, {pairs} "
            f"and {delta}. Correct them."
        )
    chance = stats.binom(guesses, 1 / (1 + np.exp(-epsilon)))
    tail = float(chance.sf(right - 1))
    if not delta or not right:
        return min(1.0, tail)
    below = np.arange(1, right + 1)
    widest = float(((chance.sf(right - below - 1) - tail) / below).max())
    return min(1.0, tail + 2 * pairs * delta * widest)


def epsilon_low(guesses: int, right: int, pairs: int, delta: float = 0.0, alpha: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses refute at level `alpha`; 0 where they refute none."""
    if p_value(0.0, guesses, right, pairs, delta) >= alpha:
        return 0.0
    highest = 1.0
    while p_value(highest, guesses, right, pairs, delta) < alpha:
        highest *= 2
    root: float = optimize.brentq(lambda e: p_value(e, guesses, right, pairs, delta) - alpha, 0.0, highest)
    return root


def one_run(gaps: Scores, delta: float = 0.0, alpha: float = CONFIDENCE) -> OneRun:
    """The bound from `gaps` [pairs]: the score of each pair's forget record minus that of its holdout record.

    The one that scores higher is guessed. Without memory the width of a gap says nothing about its sign, so that
    guessing at the widest alone is fair; the shares in `SHARES` are tried, each at its part of the level. Ties are
    abstained on. BadInput where there are no pairs or a gap is not finite.
    """
    values = np.asarray(gaps, float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise BadInput(
            f"epsilon: expected one finite gap a pair, got {values.shape} or NaN. Give differences of scores."
        )
    widest = values[np.argsort(-np.abs(values), kind="stable")]
    untied = int(np.count_nonzero(values))
    counts: set[int] = {min(round(share * len(values)), untied) for share in SHARES}
    trials = [
        OneRun(epsilon_low(count, right, len(values), delta, alpha / len(counts)), len(values), count, right)
        for count, right in ((count, int((widest[:count] > 0).sum())) for count in sorted(counts))
    ]
    return max(trials)
