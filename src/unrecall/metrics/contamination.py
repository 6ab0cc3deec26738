"""Knowledge contamination: which classes paid when another was forgotten, and which gained.

Arrays over n examples hold numbers of classes: `target`, the true ones; `prediction`, `before`, `after`, those that a
model answers with, before is the original's. `classes` says which classes there are, in the order of rows and columns.

Reference: Shin, Tapia, Diaz, Jeon, Ferreira, Daneshyari, "ROKA: Robust Knowledge Unlearning against Adversaries", 2026,
arXiv 2603.00436, from notes: the harm that unlearning does to classes that share weights with the forgotten one. The
formulas are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from unrecall.record import stats
from unrecall.record.schema import Estimate


def confusion(target: np.ndarray, prediction: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Share of the examples of class i that are predicted as j, `[classes, classes]`; nan where i has no examples.

    `classes` are in rising order, and all that occur are among them.
    """
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (np.searchsorted(classes, target), np.searchsorted(classes, prediction)), 1)
    total = counts.sum(1, keepdims=True)
    shares: np.ndarray = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    return shares


def paid(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far the accuracy of each class fell, `[classes]`, from two tables of `confusion`; nan without examples."""
    fell: np.ndarray = before.diagonal() - after.diagonal()
    return fell


def gained(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much more of the others is predicted as each class, `[classes]`: the mean over other classes with examples.

    From two tables of `confusion`; nan where no other class has examples.
    """
    change = after - before
    np.fill_diagonal(change, np.nan)
    known = ~np.isnan(change)
    count, total = known.sum(0), np.where(known, change, 0).sum(0)
    mean: np.ndarray = np.divide(total, count, out=np.full(len(change), np.nan), where=count > 0)
    return mean


def worst_drop(
    target: np.ndarray, before: np.ndarray, after: np.ndarray, classes: Iterable[int], fewest: int = 10
) -> tuple[int, Estimate]:
    """The class among `classes` whose accuracy fell most, and by what share of its examples.

    Classes with fewer than `fewest` examples are left out; class -1 and no value where none is left. The interval is
    Student's over the class's examples, each right or wrong before and after; it takes the choice of class as given.
    """
    drops = {c: np.subtract(before[target == c] == c, after[target == c] == c, dtype=np.float64) for c in classes}
    drops = {c: drop for c, drop in drops.items() if len(drop) >= fewest}
    if not drops:
        return -1, Estimate(value=None, note=f"no class that stays has {fewest} examples of test and holdout")
    worst = max(drops, key=lambda c: float(drops[c].mean()))
    return worst, stats.mean(drops[worst])


__all__ = ["confusion", "gained", "paid", "worst_drop"]
