"""Whether forget can be told from holdout: an exact permutation test, whatever model made the scores.

A model that was trained on neither can't know which examples are forget and which are holdout: any labelling of the
pool is as likely as the true one. So labels are drawn anew, and a statistic that few labellings reach is evidence that
the model was trained on forget. No score may rest on the labels, nor on the model before unlearning, which knows them.

Reference: Fisher, "The Design of Experiments", Oliver and Boyd 1935. The maximum over attacks and the step-down p of
each: Westfall and Young, "Resampling-Based Multiple Testing", Wiley 1993.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import comb, prod

import numpy as np
from scipy import stats

DRAWS = 9_999
CHUNK = 500
SLACK = 1e-9
"""Statistics that differ by less are equal: rounding must not decide."""


@dataclass(frozen=True)
class Exchange:
    """What the test says of all attacks together.

    `leak`, `strange`: the p of the largest statistic, and of the smallest. `z` [attacks]: each attack's statistic, in
    standard deviations. `leaks` [attacks]: step-down p of each, so that any of them may be named. `draws`: how many
    labellings were tried; `smallest`: the smallest p that there can be.
    """

    leak: float
    strange: float
    z: np.ndarray
    leaks: np.ndarray
    draws: int
    smallest: float


@dataclass(frozen=True)
class Labels:
    """Which units of the pool are forget, and the strata within which labels are permuted.

    A unit is an example, or all examples of one person; a stratum is a half of the pool, or a planted pair. `forget`
    [units] bool; `stratum` [units]: the number of each one's stratum.
    """

    forget: np.ndarray
    stratum: np.ndarray

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """The positions of each stratum's units."""
        return [np.flatnonzero(self.stratum == number) for number in np.unique(self.stratum)]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Of each half: how many units it has, and how many of them are forget."""
        return [(len(part), int(self.forget[part].sum())) for part in self.parts]

    @cached_property
    def possible(self) -> int:
        """How many labellings there are."""
        return prod(comb(n, k) for n, k in self.sizes)

    def own(self) -> list[np.ndarray]:
        """The true labels of each half, `[units of the half, 1]`."""
        return [self.forget[part][:, None].astype(float) for part in self.parts]

    def labellings(self, seed: int, draws: int) -> Iterator[list[np.ndarray]]:
        """All labellings where there are at most `draws`, else `draws` random ones: `[units, some]` for each half."""
        if self.possible > draws:
            rng = np.random.default_rng(seed)
            for start in range(0, draws, CHUNK):
                count = min(CHUNK, draws - start)
                yield [_random(n, k, count, rng) for n, k in self.sizes]
            return
        every = itertools.product(*(itertools.combinations(range(n), k) for n, k in self.sizes))
        while some := list(itertools.islice(every, CHUNK)):
            yield [
                _marked(n, np.array([labelling[h] for labelling in some], int).T.reshape(k, len(some)))
                for h, (n, k) in enumerate(self.sizes)
            ]


def exchange(scores: np.ndarray, labels: Labels, seed: int, draws: int = DRAWS, *, ranked: bool = True) -> Exchange:
    """Tests whether scores of forget are higher, or lower, than those of holdout, by any attack.

    `scores` [attacks, units]: higher for "was trained on". An attack's statistic is the sum of forget's ranks within
    halves (ties share theirs), less its mean and over its standard deviation, which are those of all labellings.
    `ranked` False: of the scores themselves, for a single person, whose rank among few persons says little.
    All labellings are tried where there are no more than `draws`; otherwise p counts the true one beside those drawn.
    """
    weights = _weights(scores, labels, ranked)
    z = _statistics(weights, labels.own())[:, 0]
    order = np.argsort(-z, kind="stable")
    leak = strange = count = 0
    lower = np.zeros(len(z), int)
    for drawn in labels.labellings(seed, draws):
        statistics = _statistics(weights, drawn)
        count += statistics.shape[1]
        leak += int((statistics.max(0) >= z.max() - SLACK).sum())
        strange += int((statistics.min(0) <= z.min() + SLACK).sum())
        largest_left = np.maximum.accumulate(statistics[order][::-1], 0)[::-1]
        lower += (largest_left >= z[order][:, None] - SLACK).sum(1)
    own = int(labels.possible > draws)
    leaks = np.empty(len(z))
    leaks[order] = np.maximum.accumulate((lower + own) / (count + own))
    total = count + own
    return Exchange((leak + own) / total, (strange + own) / total, z, leaks, count, 1 / total)


def _weights(scores: np.ndarray, labels: Labels, ranked: bool) -> list[np.ndarray]:
    """Each half's centred ranks (or scores) `[attacks, units]`, over the deviation that the sum of both halves has."""
    centred = []
    for part in labels.parts:
        values = stats.rankdata(scores[:, part], axis=1) if ranked else scores[:, part]
        centred.append(values - values.mean(1, keepdims=True))
    variance = sum(_variance(w, k) for w, (_, k) in zip(centred, labels.sizes, strict=True))
    deviation = np.sqrt(np.asarray(variance))[:, None]
    return [np.divide(w, deviation, out=np.zeros_like(w), where=deviation > SLACK) for w in centred]


def _variance(weights: np.ndarray, k: int) -> np.ndarray:
    """The variance of the sum of k centred weights drawn from a row without replacement, for each row."""
    n = weights.shape[1]
    return np.asarray((weights**2).sum(1) * (k * (n - k) / (n * (n - 1)) if n > 1 else 0.0))


def _statistics(weights: list[np.ndarray], labels: list[np.ndarray]) -> np.ndarray:
    """The statistic of each attack under each labelling, `[attacks, labellings]`."""
    return np.asarray(sum(w @ marks for w, marks in zip(weights, labels, strict=True)))


def _random(n: int, k: int, count: int, rng: np.random.Generator) -> np.ndarray:
    chosen = np.argpartition(rng.random((n, count), np.float32), max(k - 1, 0), axis=0)[:k]
    return _marked(n, chosen)


def _marked(n: int, chosen: np.ndarray) -> np.ndarray:
    """Ones at the chosen positions `[k, labellings]` of `[n, labellings]`."""
    marks = np.zeros((n, chosen.shape[1]))
    np.put_along_axis(marks, chosen, 1.0, axis=0)
    return marks
