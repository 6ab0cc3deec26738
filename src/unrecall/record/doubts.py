"""Reasons to doubt the audit itself; each has an id, which is an anchor in docs/checks.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from unrecall.record.schema import AttackReport, Doubt, Measurement, Record, Severity, Tuning


@dataclass(frozen=True)
class Facts:
    """All that a check may look at."""

    sizes: Mapping[str, int]
    measurements: Mapping[str, Measurement]
    reports: Sequence[AttackReport]
    references: int
    tuning: Tuning | None = None
    dirty: bool | None = None
    weights: Mapping[str, str] | None = None

    @staticmethod
    def of(record: Record) -> Facts:
        """What a record says."""
        return Facts(
            sizes=record.sizes,
            measurements={m.name: m for m in record.measurements},
            reports=record.attacks,
            references=max((len(m.references) for m in record.measurements), default=0),
            tuning=record.tuning,
            dirty=record.provenance.dirty,
            weights=record.provenance.weights,
        )


Check = Callable[[Facts], Iterator[Doubt]]


def doubts(facts: Facts) -> list[Doubt]:
    """Everything that any check has to say, the most serious first."""
    rank: dict[Severity, int] = {"serious": 0, "warning": 1, "note": 2}
    return sorted((doubt for check in CHECKS for doubt in check(facts)), key=lambda doubt: rank[doubt.severity])


def few_references(facts: Facts) -> Iterator[Doubt]:
    """How far retrained models differ among themselves is guessed from a handful, or not at all."""
    k = facts.references
    if k < 2:
        yield Doubt(
            id="few-references",
            severity="serious",
            message=f"{k} retrained models: nothing can be judged. Train at least 2, better 5 or more.",
        )
    elif k < 5:
        yield Doubt(
            id="few-references",
            severity="warning",
            message=f"Only {k} retrained models: bounds are wide, and small leaks inconclusive. Train 5 or more.",
        )


def small_sets(facts: Facts) -> Iterator[Doubt]:
    """Shares of a few dozen examples move by whole points when one of them changes."""
    for name, n in ((name, facts.sizes.get(name, 0)) for name in ("forget", "holdout")):
        if 0 < n < 50:
            yield Doubt(
                id="small-sets",
                severity="warning" if n < 20 else "note",
                message=f"The {name} set has {n} examples: one of them is worth {100 / n:.1f} points.",
            )


def unchanged(facts: Facts) -> Iterator[Doubt]:
    """The unlearned model is the original, bit for bit."""
    weights = facts.weights or {}
    if weights.get("unlearned") is not None and weights.get("unlearned") == weights.get("original"):
        yield Doubt(id="unchanged", severity="serious", message="The unlearned model is the original, bit for bit.")


def statistics(facts: Facts) -> Iterator[Doubt]:
    """Forgetting that is already there at learning rate 0 sits in BatchNorm statistics, and comes back for free."""
    m = facts.measurements.get("forget_accuracy")
    if m is None or m.null.value is None or m.original.value is None or m.unlearned.value is None:
        return
    whole, still = m.original.value - m.unlearned.value, m.original.value - m.null.value
    if whole > 1 / max(1, m.unlearned.n) and still >= 0.5 * whole:
        yield Doubt(
            id="statistics",
            severity="serious",
            message=f"{100 * still:.0f} of the {100 * whole:.0f} points of forgetting are there at learning rate 0: "
            "BatchNorm statistics moved, not weights, and unlabelled data bring them back.",
        )


def same_as_null(facts: Facts) -> Iterator[Doubt]:
    """The method and the same passes at learning rate 0 give the same figures."""
    pairs = [
        (m.unlearned.value, m.null.value, max(1, m.unlearned.n))
        for m in facts.measurements.values()
        if m.judged and m.unlearned.value is not None and m.null.value is not None
    ]
    if len(pairs) >= 3 and all(abs(a - b) <= 1 / n for a, b, n in pairs):
        yield Doubt(
            id="same-as-null",
            severity="serious",
            message="By every judged figure the method did what it does at learning rate 0. Raise its strength.",
        )


def nothing_to_forget(facts: Facts) -> Iterator[Doubt]:
    """Where the original already looks like a retrained model, no audit can tell whether anything was forgotten."""
    judged = [m for m in facts.measurements.values() if m.judged and m.leak and m.bound_low is not None]
    inside = [m for m in judged if m.original.value is not None and _within(m, m.original.value)]
    if judged and len(inside) == len(judged):
        yield Doubt(
            id="nothing-to-forget",
            severity="serious",
            message="The original itself falls where retrained models do on every judged measurement of forgetting: "
            "this audit could not have noticed a model that forgot nothing.",
        )


def collapse(facts: Facts) -> Iterator[Doubt]:
    """A ruined model forgets everything, which is no unlearning."""
    m = facts.measurements.get("retain_accuracy")
    if m and m.original.value is not None and m.unlearned.value is not None:
        lost = m.original.value - m.unlearned.value
        if lost > 0.1:
            yield Doubt(
                id="collapse",
                severity="serious",
                message=f"Accuracy on retain fell by {100 * lost:.0f} points: damaged, not made to forget.",
            )


def controls(facts: Facts) -> Iterator[Doubt]:
    """An attack that fails where it must succeed says nothing where it fails; one that never fails, nothing at all."""
    without_positive = [f"{r.title} ({r.positive_control})" for r in facts.reports if r.positive_holds is False]
    without_negative = [f"{r.title} ({r.negative_control})" for r in facts.reports if r.negative_holds is False]
    if without_positive:
        yield Doubt(
            id="positive-control",
            severity="warning",
            message=f"The positive control failed, so failure means nothing: {'; '.join(without_positive)}.",
        )
    if without_negative:
        yield Doubt(
            id="negative-control",
            severity="warning",
            message=f"The negative control failed, so success means nothing: {'; '.join(without_negative)}.",
        )


def stands_out(facts: Facts) -> Iterator[Doubt]:
    """Forgotten examples that look *less* like members than unseen ones stand out again."""
    for m in facts.measurements.values():
        if m.chance is not None and m.unlearned.high is not None and m.unlearned.high < m.chance:
            yield Doubt(
                id="stands-out",
                severity="warning",
                message=f"{m.title} is {m.unlearned.value:.2f}, below one half: forgotten examples look less familiar "
                "than unseen ones, so they can be told apart all the same.",
            )


def unlike_holdout(facts: Facts) -> Iterator[Doubt]:
    """Membership numbers need a holdout that retrained models treat like forget."""
    forget, holdout = facts.measurements.get("forget_accuracy"), facts.measurements.get("holdout_accuracy")
    if forget and holdout and forget.reference is not None and holdout.reference is not None:
        gap = forget.reference - holdout.reference
        if abs(gap) > 0.1:
            yield Doubt(
                id="unlike-holdout",
                severity="warning",
                message=f"Retrained models get {100 * forget.reference:.0f} % of forget and "
                f"{100 * holdout.reference:.0f} % of holdout right: the two differ even where neither was seen.",
            )


def no_ratio(facts: Facts) -> Iterator[Doubt]:
    """Residual knowledge has no value where a retrained model never recognises an example."""
    m = facts.measurements.get("residual_knowledge")
    pairs = max(1, facts.references * facts.sizes.get("forget", 0))
    if m is not None and m.undefined > 0.1 * pairs:
        yield Doubt(
            id="no-ratio",
            severity="warning",
            message=f"Residual knowledge is undefined for {100 * m.undefined / pairs:.0f} % of (retrained model, "
            "example) pairs, where the retrained model never recognises the example; the mean leaves them out.",
        )


def tuned_badly(facts: Facts) -> Iterator[Doubt]:
    """Tuning that met no criterion is no tuning."""
    if facts.tuning is None:
        return
    if not any(trial.kept for trial in facts.tuning.trials):
        yield Doubt(
            id="tuning",
            severity="warning",
            message="No strength that was tried kept accuracy on retain; the least damaging one was taken.",
        )
        return
    chosen = next(trial for trial in facts.tuning.trials if trial.strength == facts.tuning.chosen)
    start = facts.tuning.untouched
    if start is not None and abs(chosen.gap) > 0.5 * abs(start):
        yield Doubt(
            id="tuning",
            severity="warning",
            message=f"At the strength that tuning chose, forget and validation still differ by {chosen.gap:+.3f} "
            f"({start:+.3f} before unlearning): no strength that was tried closes the gap.",
        )


def modified(facts: Facts) -> Iterator[Doubt]:
    """Numbers from code that no commit holds can't be traced."""
    if facts.dirty:
        yield Doubt(id="modified", severity="note", message="The code differed from its commit when this was made.")


def _within(measurement: Measurement, value: float) -> bool:
    low, high = measurement.bound_low, measurement.bound_high
    return low is not None and high is not None and low <= value <= high


CHECKS: tuple[Check, ...] = (
    few_references,
    small_sets,
    unchanged,
    statistics,
    same_as_null,
    nothing_to_forget,
    collapse,
    controls,
    stands_out,
    unlike_holdout,
    no_ratio,
    tuned_badly,
    modified,
)
