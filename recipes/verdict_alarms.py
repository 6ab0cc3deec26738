"""How often the test beside records that were never trained on accuses a model that never saw the forgotten.

Scores of five attacks that hang together, with ties, heavy tails, covariates that explain half of them, and persons
whose records hang together. 2,000 runs a cell, 499 labellings each.

python recipes/verdict_alarms.py [RUNS]

Prints a table in Markdown: the share of runs called "leaks" or "stands out", of which at most 5 % may be.
"""

import sys
from typing import NamedTuple

import numpy as np

from unrecall.record.exchange import exchange
from unrecall.record.never_trained import levels
from unrecall.record.pool_scores import PoolScores


class Cell(NamedTuple):
    """`forget`, `holdout`: records, or persons of `each` records. `tail`: degrees of freedom of Student's t."""

    name: str
    forget: int
    holdout: int
    each: int = 1
    tail: float = 100.0
    ties: bool = False
    crossed: bool = True


CELLS = (
    Cell("10 records against 40", 10, 40, crossed=False),
    Cell("50 against 200", 50, 200),
    Cell("250 against 400", 250, 400),
    Cell("1,000 against 1,000", 1000, 1000),
    Cell("50 against 200, heavy tails", 50, 200, tail=1.5),
    Cell("50 against 200, five values only", 50, 200, ties=True),
    Cell("one person of 8 records against 19", 1, 19, each=8, crossed=False),
    Cell("one person of 8 records against 99", 1, 99, each=8, crossed=False),
    Cell("20 persons against 60", 20, 60, each=5, crossed=False),
    Cell("60 persons against 120", 60, 120, each=3),
)


def pool(cell: Cell, rng: np.random.Generator) -> PoolScores:
    """Scores of a model that saw neither arm."""
    units = cell.forget + cell.holdout
    arm = rng.permutation(np.arange(units) < cell.forget)
    group = np.repeat(np.arange(units), cell.each)
    n = len(group)
    hard, person = rng.normal(size=n), rng.normal(size=units)[group]
    common = rng.standard_t(cell.tail, n) + person * (cell.each > 1)
    scores = hard + common + 0.7 * rng.standard_t(cell.tail, (5, n))
    if cell.ties:
        scores = np.clip(np.round(scores), -2, 2)
    half = np.zeros(units, int)
    if cell.crossed:
        for side in (arm, ~arm):
            half[np.flatnonzero(side)[1::2]] = 1
    covariates = np.column_stack([hard, hard**2])
    names = tuple(map(str, range(5)))
    return PoolScores(
        names, scores, scores, arm[group], half[group], half[group], group, covariates, ("cheap", "cheap")
    )


def main(runs: int) -> None:
    print("| cell | runs | leaks | stands out | either |", "|---|---|---|---|---|", sep="\n")
    for cell in CELLS:
        rng, leaks, strange = np.random.default_rng(1), 0, 0
        for run in range(runs):
            scores = pool(cell, rng)
            test = exchange(scores.tested(scores.unlearned), scores.labels, run, 499, ranked=cell.forget > 1)
            level, strange_level = levels(test.smallest)
            leaks += test.leak <= level + 1e-12
            strange += test.leak > level + 1e-12 and test.strange <= strange_level
        shares = (f"{100 * count / runs:.1f} %" for count in (leaks, strange, leaks + strange))
        print(f"| {cell.name} | {runs:,} |", " | ".join(shares), "|", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
