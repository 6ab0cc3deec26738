"""How often the verdict's rule fails a retrained model, by simulation; numpy only, no model is trained.

    python recipes/verdict_simulation.py [RUNS]

Each run draws K + 1 retrained models, takes the first for the unlearned one and judges it by the others, over eight
rows in three families: five of what is still known, two of use, one of membership. Printed: the share of runs that end
in "leaks" or "over-forgets", by how models differ (`SPREADS`), by correlation between rows, for both rules.
"""

import sys
from collections.abc import Callable

import numpy as np

from unrecall.harness.memory_left import PRIOR
from unrecall.record import former, verdict
from unrecall.record.schema import Estimate, Measurement, Side
from unrecall.record.stats import clopper_pearson

RECOVERY: tuple[str, Side | None] = ("recovery", "above")
UTILITY: tuple[str, Side | None] = ("utility", None)
PRIVACY: tuple[str, Side | None] = ("privacy", "above")
GROUPS = (*[RECOVERY] * 5, *[UTILITY] * 2, PRIVACY)
SIZES = {"one size": np.ones(8), "one row far wider": np.array([0.1, 0.1, 0.1, 0.1, 3, 0.1, 1, 1])}
"""How far models differ on each row, as a multiple of 0.05."""
SPREADS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "right-skewed (exponential)": lambda rng, size: rng.exponential(size=size) - 1,
    "left-skewed (exponential)": lambda rng, size: 1 - rng.exponential(size=size),
    "heavy tails (Student's t, 4)": lambda rng, size: rng.standard_t(4, size=size) / np.sqrt(2),
}
SKILLS = np.array([0.0, 1.0, 2.0, 4.0, 4.0, 3.0, 5.0, 0.0])
"""Logits of the shares that retrained models have on average, for shares of few examples."""


def row(i: int, values: np.ndarray, errors: np.ndarray, n: int) -> Measurement:
    """A row whose first value is the unlearned model's; `errors` [K + 1]: standard errors over examples."""
    group, leak = GROUPS[i]
    first, *others = (
        Estimate.model_construct(value=float(v), low=float(v - 1.96 * e), high=float(v + 1.96 * e), n=n, note="")
        for v, e in zip(values, errors, strict=True)
    )
    original = Estimate.model_construct(value=float(values.mean()) + 9, n=n, note="")
    return Measurement.model_construct(
        name=str(i), title=str(i), group=group, unlearned=first, original=original, null=original, references=others,
        reference=float(values[1:].mean()), leak=leak, margin=0.1, judged=True, verdict="not judged", note="",
        prior=PRIOR * (group == "privacy"), bound_low=None, bound_high=None,
    )  # fmt: skip


def spread(rng: np.random.Generator, name: str, k: int, correlation: float) -> np.ndarray:
    """Standardised figures `[k + 1, rows]` of one kind; the last row is a mean over 20 examples, as membership is."""
    draw = SPREADS[name]
    common, own = draw(rng, (k + 1, 1)), draw(rng, (k + 1, len(GROUPS)))
    mixed = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    mixed[:, -1] = draw(rng, (k + 1, 20)).mean(1) * np.sqrt(20)
    return np.asarray(mixed)


def continuous(rng: np.random.Generator, name: str, k: int, correlation: float, sizes: np.ndarray) -> list[Measurement]:
    """Rows of many examples, whose spreads are of one kind."""
    values = 0.05 * sizes * spread(rng, name, k, correlation)
    counts = [10**6] * 7 + [20]
    return [row(i, values[:, i], np.full(k + 1, 0.05 * (20 / n) ** 0.5), n) for i, n in enumerate(counts)]


def shares(rng: np.random.Generator, n: int, k: int, correlation: float) -> list[Measurement]:
    """Rows that are shares of n examples, some near 1; models differ in skill by 0.4 in the logit."""
    skill = np.sqrt(correlation) * rng.normal(size=(k + 1, 1)) + np.sqrt(1 - correlation) * rng.normal(size=(k + 1, 8))
    hits = rng.binomial(n, 1 / (1 + np.exp(-SKILLS - 0.4 * skill)))
    errors = np.array([[np.ptp(clopper_pearson(int(h), n)) / 3.92 for h in line] for line in hits])
    return [row(i, hits[:, i] / n, errors[:, i], n) for i in range(len(GROUPS))]


def failures(make: Callable[[], list[Measurement]], runs: int) -> tuple[float, float]:
    """The share of runs that fail a retrained model, by the present rule and by the former."""
    failed = np.zeros(2)
    for _ in range(runs):
        rows = make()
        failed += [rule(rows)[1].label in ("leaks", "over-forgets") for rule in (verdict.judge, former.judge)]
    return tuple(failed / runs)


def main(runs: int = 2000) -> None:
    """Prints a line for each cell."""
    rng = np.random.default_rng(0)
    print("spread | rows differ | K | correlation | families | prediction-interval-1")
    for k, correlations in ((5, (0.0, 0.5, 1.0)), (3, (0.0,)), (8, (0.0,))):
        for correlation in correlations:
            for name in SPREADS:
                for size, sizes in SIZES.items():
                    found = failures(lambda: continuous(rng, name, k, correlation, sizes), runs)  # noqa: B023
                    print(f"{name} | {size} | {k} | {correlation:g} | {found[0]:.3f} | {found[1]:.3f}", flush=True)
            for n in (6, 20, 100):
                found = failures(lambda: shares(rng, n, k, correlation), runs)  # noqa: B023
                print(f"share of {n} | by skill | {k} | {correlation:g} | {found[0]:.3f} | {found[1]:.3f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
