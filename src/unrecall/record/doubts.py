"""Reasons to doubt the audit itself: one function a reason.

The function's name, with hyphens, is the doubt's id, which is an anchor in docs/checks.md.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from unrecall.record.never_trained_lines import SURE, broken, differs, idle, uneven
from unrecall.record.schema import NO_USE, AttackReport, Doubt, Measurement, NeverTrained, Record, Severity, Tuning
from unrecall.record.verdict import less_retained


@dataclass(frozen=True)
class Facts:
    """All that a check may look at."""

    sizes: Mapping[str, int]
    measurements: Mapping[str, Measurement]
    reports: Sequence[AttackReport]
    references: int
    kind: str = "samples"
    cuts: Sequence[str] = ()
    tuning: Tuning | None = None
    dirty: bool | None = None
    unchanged: bool = False
    never_trained: NeverTrained | None = None

    @property
    def alone(self) -> bool:
        """Whether the verdict rests on records that were never trained on, and on no row of the attacks'."""
        return self.references < 2 and self.never_trained is not None and bool(self.never_trained.attacks)

    @staticmethod
    def of(record: Record) -> "Facts":
        """What a record says."""
        return Facts(
            sizes=record.sizes,
            measurements={m.name: m for m in record.measurements},
            reports=record.attacks,
            references=max((len(m.references) for m in record.measurements), default=0),
            kind=record.kind,
            cuts=next((_cuts_in(doubt.message) for doubt in record.doubts if doubt.id == "cut-texts"), ()),
            tuning=record.tuning,
            dirty=record.provenance.dirty,
            unchanged=record.provenance.unchanged,
            never_trained=record.never_trained,
        )


HARDLY = 0.05
"""Of what an attack shows of the original beyond validation: less hardly tells strengths apart."""
CUT = "Long texts are cut: "
UNREAD = ". What is cut off is neither unlearned nor audited: set longest higher, or give the texts in pieces."

Raised: TypeAlias = Iterator[tuple[Severity, str]]
"""How serious each doubt of one kind is, and its message."""


def doubts(facts: Facts) -> list[Doubt]:
    """Everything that any check has to say, the most serious first."""
    raised = [
        Doubt(id=check.__name__.replace("_", "-"), severity=severity, message=message)
        for check in CHECKS
        for severity, message in check(facts)
    ]
    return sorted(raised, key=lambda doubt: ("serious", "warning", "note").index(doubt.severity))


def forget_unknown(facts: Facts) -> Raised:
    """What the original doesn't know, nothing can be seen to forget."""
    m = _least_known(facts.measurements, facts.kind)
    if m is None:
        return
    advice = "Check that model, data and labels belong together"
    if m.name == "forget_probability":
        advice = "Check that prompts are as they were in training (template, chat, spaces), and the model and the texts"
    yield (
        "serious",
        f"The original hardly knows what must be forgotten ({m.title} {m.original.value:.3f}), so nothing "
        f"can be seen to go, and no figure below says that it went. {advice}.",
    )


def weak_references(facts: Facts) -> Raised:
    """Retrained models that learned less of retain than the original can't say how good a model must stay."""
    m = less_retained(list(facts.measurements.values()))
    if m is not None:
        yield (
            "serious",
            f"Retrained models know less of retain than the original ({m.title} {m.reference:.2f} against "
            f"{m.original.value:.2f}): a ruined model would be like them, so nothing is like retrained on use, and "
            "little of forget proves little. Retrain them as the original was trained: more epochs, a higher lr.",
        )


def other_recipe(facts: Facts) -> Raised:
    """References that were trained in another way than the original differ from it for that too."""
    m = facts.measurements.get("retain_loss")
    if m is None or m.original.value is None or less_retained(list(facts.measurements.values())) is not None:
        return
    losses, own = [r.value for r in m.references if r.value is not None], m.original.value
    if len(losses) >= 2 and (min(losses) > 2 * own + 0.01 or max(losses) + 0.01 < own / 2):
        spread = f"{min(losses):.3f} to {max(losses):.3f}"
        yield (
            "warning",
            f"Retrained models fit retain otherwise than the original ({m.title} {spread} against {own:.3f}): they "
            "seem trained by another recipe (epochs, lr, optimiser), so what sets the unlearned model apart from them "
            "can be the recipe. Retrain them as the original was trained.",
        )


def cut_texts(facts: Facts) -> Raised:
    """What is cut off is neither unlearned nor audited."""
    if facts.cuts:
        severity: Severity = "serious" if any(" forget " in part for part in facts.cuts) else "warning"
        yield severity, f"{CUT}{'; '.join(facts.cuts)}{UNREAD}"


def few_references(facts: Facts) -> Raised:
    """How far retrained models differ among themselves is guessed from a handful, or not at all."""
    k = facts.references
    if facts.alone:
        return
    if k < 2:
        without = ", or name records like forget that were never trained on (holdout), to judge without"
        lacking = facts.kind == "samples" and not facts.sizes.get("holdout")
        advice = f"Train at least 2, better 5 or more{without if lacking else ''}."
        yield "serious", f"{k} retrained models: nothing can be judged. {advice}"
    elif k < 5:
        yield "warning", f"Only {k} retrained models: bounds are wide, and small leaks inconclusive. Train 5 or more."


def other_holdout(facts: Facts) -> Raised:
    """Beside records that were never trained on, the verdict is worth no more than these are like the forgotten."""
    trained_on = _trained_on(facts.measurements, facts.sizes) if facts.kind == "samples" else ""
    if trained_on:
        yield "warning", trained_on
    tested = facts.never_trained
    if tested is None or not tested.attacks:
        return
    if differs(tested):
        yield "serious", "The holdout can be told from forget before any model is asked: what is found may be that."
    elif tested.grade in ("C", "D"):
        yield (
            "warning",
            (
                f"The holdout was not split off at random before training (grade {tested.grade}): the verdict beside "
                "it holds as far as it is like forget."
            ),
        )
    if uneven(tested):
        yield "serious", "Two random halves of the holdout differ under the unlearned model, which nothing explains."
    for test in broken(tested):
        yield (
            "warning",
            f"{test.title} broke the model: its loss on retain is {test.losses['retain']:.3g}. Lower --rate.",
        )
    for test in idle(tested):
        yield "serious", f"{test.title} diverged or moved no weight, so it tried nothing. Try another --rate."
    if not tested.covariates:
        yield "warning", "Nothing says how hard a record is, so scores are raw: the test holds, but finds little."


def small_sets(facts: Facts) -> Raised:
    """Shares of a few dozen examples move by whole points when one of them changes."""
    for name in ("forget", "holdout"):
        n = facts.sizes.get(name, 0)
        if 0 < n < 50:
            message = f"The {name} set has {n} examples: one of them is worth {100 / n:.1f} points."
            yield "warning" if n < 20 else "note", message


def unchanged(facts: Facts) -> Raised:
    """The unlearned model is the original, bit for bit."""
    if facts.unchanged:
        yield "serious", "The unlearned model is the original, bit for bit."


def swapped_models(facts: Facts) -> Raised:
    """An unlearned model that knows forget better than the original can be the original."""
    better = _more_right(facts.measurements) or _more_recognised(facts.never_trained)
    if better:
        yield (
            "warning",
            f"The unlearned model knows forget better than the original does ({better}): the two may be swapped, or "
            "it was trained on forget again.",
        )


def statistics(facts: Facts) -> Raised:
    """Forgetting that is already there at learning rate 0 sits in BatchNorm statistics, and comes back for free."""
    m = facts.measurements.get("forget_accuracy")
    if m is None:
        return
    whole, still = _fall(m.original.value, m.unlearned.value), _fall(m.original.value, m.null.value)
    if whole > 1 / max(1, m.unlearned.n) and still >= 0.5 * whole:
        yield (
            "serious",
            f"{100 * still:.0f} of the {100 * whole:.0f} points of forgetting are there at learning rate 0: "
            "BatchNorm statistics moved, not weights, and unlabelled data bring them back.",
        )


def same_as_null(facts: Facts) -> Raised:
    """The method and the same passes at learning rate 0 give the same figures, within 0.01 and one example's worth."""
    judged = [(m, _fall(m.unlearned.value, m.null.value)) for m in facts.measurements.values() if m.judged]
    changes = [(m, by) for m, by in judged if not math.isnan(by)]
    if len(changes) >= 3 and all(abs(by) <= min(0.01, 1 / max(1, m.unlearned.n)) for m, by in changes):
        advice = (
            "Raise its strength."
            if _least_known(facts.measurements, facts.kind) is None
            else "See first why the original knows so little."
        )
        yield "serious", f"By every judged figure the method did what it does at learning rate 0. {advice}"


def nothing_to_forget(facts: Facts) -> Raised:
    """Where the original already looks like a retrained model, no audit can tell whether anything was forgotten."""
    judged = [m for m in facts.measurements.values() if m.judged and m.leak and m.bound_low is not None]
    if judged and all(_original_within(m) for m in judged):
        yield (
            "serious",
            "The original itself falls where retrained models do on every judged measurement of forgetting: "
            "this audit could not have noticed a model that forgot nothing.",
        )


def collapse(facts: Facts) -> Raised:
    """A ruined model forgets everything, which is no unlearning."""
    m = facts.measurements.get("retain_accuracy")
    if m and (lost := _fall(m.original.value, m.unlearned.value)) > 0.1:
        yield "serious", f"Accuracy on retain fell by {100 * lost:.0f} points: damaged, not made to forget."


def positive_control(facts: Facts) -> Raised:
    """An attack that does not see what is known to be there says nothing where it sees nothing."""
    failed = [f"{r.title} ({r.positive_control})" for r in facts.reports if r.positive_holds is False]
    if failed and not facts.alone:
        yield "warning", f"The positive control failed, so failure means nothing: {'; '.join(failed)}."


def ruined_copies(facts: Facts) -> Raised:
    """An attack that ruins whatever it makes of the unlearned model, and of no retrained one, shows nothing of it."""
    ruined = [r.title for r in facts.reports if r.note == NO_USE]
    if ruined and not facts.alone:
        copies = "each attacked copy of the unlearned model was of no use, so nothing was tried on it"
        yield "serious", f"{', '.join(ruined)}: {copies}. Set lower learning rates or smaller amounts."


def negative_control(facts: Facts) -> Raised:
    """An attack that finds something where nothing can be says nothing where it finds something."""
    failed = [r for r in facts.reports if r.negative_holds is False]
    if failed and not facts.alone:
        controls = "; ".join(f"{r.title} ({r.negative_control})" for r in failed)
        yield "warning", f"The negative control failed, so success means nothing: {controls}."


def known_to_retrained(facts: Facts) -> Raised:
    """What a retrained model tells apart as well, lies in the records: a single one decides nothing, and shows that."""
    tell = (facts.measurements.get(f"{r.name}_auc") for r in facts.reports if r.negative_holds is False)
    values = [(m.title, r.value) for m in tell if m for r in m.references if r.value is not None]
    if facts.alone and values:
        title, value = values[0]
        yield (
            "serious",
            f"The retrained model, which never saw the forgotten records, tells them from the holdout as well ({title} "
            f"{value:.2f}): what is found may lie in the records. Name another holdout, or five retrained models.",
        )


def stands_out(facts: Facts) -> Raised:
    """Forgotten examples that look *less* like members than unseen ones stand out again."""
    for m in facts.measurements.values():
        if m.chance is not None and m.unlearned.high is not None and m.unlearned.high < m.chance:
            yield (
                "warning",
                f"{m.title} is {m.unlearned.value:.2f}, below one half: forgotten examples look less familiar "
                "than unseen ones, so they can be told apart all the same.",
            )


def unlike_holdout(facts: Facts) -> Raised:
    """Membership numbers need a holdout that retrained models treat like forget."""
    rows = (facts.measurements.get(f"{name}_accuracy") for name in ("forget", "holdout"))
    forget, holdout = (None if row is None else row.reference for row in rows)
    if forget is not None and holdout is not None and abs(forget - holdout) > 0.1:
        yield (
            "warning",
            f"Retrained models get {100 * forget:.0f} % of forget and {100 * holdout:.0f} % of holdout right: "
            "the two differ even where neither was seen.",
        )


def no_ratio(facts: Facts) -> Raised:
    """Residual knowledge has no value where a retrained model never recognises an example."""
    m = facts.measurements.get("residual_knowledge")
    pairs = max(1, facts.references * facts.sizes.get("forget", 0))
    if m is not None and m.undefined > 0.1 * pairs:
        yield (
            "warning",
            f"Residual knowledge is undefined for {100 * m.undefined / pairs:.0f} % of (retrained model, "
            "example) pairs, where the retrained model never recognises the example; the mean leaves them out.",
        )


def tuning(facts: Facts) -> Raised:
    """Tuning that met no criterion is no tuning."""
    if facts.tuning is None:
        return
    if not any(trial.sparing for trial in facts.tuning.trials):
        lost = "the likelihood of retained items" if "likelihood" in facts.tuning.criterion else "accuracy on retain"
        yield "warning", f"No strength that was tried kept {lost}; the least damaging one was taken."
        return
    chosen = next(trial for trial in facts.tuning.trials if trial.strength == facts.tuning.chosen)
    start, unit = facts.tuning.untouched, " nats" if facts.tuning.measure == "loss" else ""
    if start is not None and facts.tuning.against and start < HARDLY:
        yield (
            "warning",
            f"Before unlearning {facts.tuning.against} showed only {start:.3f}{unit} of forget beyond validation, so "
            "that it hardly tells apart the strengths that were tuned against it.",
        )
    if start is None:
        return
    if facts.tuning.against or facts.kind != "samples":  # the least is sought, and less than nothing is as good
        if not facts.tuning.met or chosen.gap > 0.5 * abs(start):
            what = f"{facts.tuning.against} still shows" if facts.tuning.against else "what must go still shows"
            yield (
                "warning",
                f"At the strength that tuning chose, {what} {chosen.gap:.3f}{unit} more than is to be left "
                f"({start:.3f} before unlearning): no strength that was tried does better.",
            )
    elif not facts.tuning.met or abs(chosen.gap) > 0.5 * abs(start):
        yield (
            "warning",
            f"At the strength that tuning chose, forget and validation still differ by {chosen.gap:+.3f} "
            f"({start:+.3f} before unlearning): no strength that was tried closes the gap.",
        )


def modified(facts: Facts) -> Raised:
    """Numbers from code that no commit holds can't be traced."""
    if facts.dirty:
        yield "note", "The code differed from its commit when this was made."


def _trained_on(measurements: Mapping[str, Measurement], sizes: Mapping[str, int]) -> str:
    """That the original knows holdout as if it was trained on, in a sentence; empty where it doesn't, or nothing says.

    It gets forget right more often than test by 0.1 or more, and holdout by half of that or more, and by 4 standard
    errors of the difference between holdout and test.
    """
    rows = [measurements.get(f"{name}_accuracy") for name in ("forget", "holdout", "test")]
    shares = [row.original.value for row in rows if row is not None and row.original.value is not None]
    counts = [sizes.get(name, 0) for name in ("holdout", "test")]
    if len(shares) < len(rows) or not all(counts):
        return ""
    forget, holdout, test = shares
    error = math.sqrt(sum(share * (1 - share) / n for share, n in zip((holdout, test), counts, strict=True)))
    if forget - test < 0.1 or holdout - test < max((forget - test) / 2, 4 * error):
        return ""
    return (
        f"The original gets {100 * holdout:.0f} % of holdout right and {100 * test:.0f} % of test: was the holdout "
        "trained on? Then nothing here holds."
    )


def _more_right(measurements: Mapping[str, Measurement]) -> str:
    """That the unlearned model gets more of forget right than the original, in a phrase; empty where it doesn't.

    Their intervals don't meet, and accuracy on test, or on retain where there is no test, rose by less.
    """
    forget = measurements.get("forget_accuracy")
    elsewhere_rows = [measurements[name] for name in ("test_accuracy", "retain_accuracy") if name in measurements]
    other = next((m for m in elsewhere_rows if m.unlearned.value is not None), None)
    if forget is None or forget.unlearned.low is None or forget.original.high is None:
        return ""
    rise = -_fall(forget.original.value, forget.unlearned.value)
    elsewhere = 0.0 if other is None else -_fall(other.original.value, other.unlearned.value)
    if forget.unlearned.low <= forget.original.high or not rise > elsewhere:
        return ""
    unlearned, original = (100 * (value or 0.0) for value in (forget.unlearned.value, forget.original.value))
    return f"{unlearned:.0f} % of it right against {original:.0f} %"


def _more_recognised(tested: NeverTrained | None) -> str:
    """That the unlearned model, as it is, tells forget from holdout better than the original; empty where it doesn't.

    By `SURE` standard deviations, and without a clear loss of accuracy: a model that lost all but forget does so too.
    """
    if tested is None or not tested.attacks:
        return ""
    first = tested.attacks[0]
    lost = any(part.difference.high is not None and part.difference.high < 0 for part in tested.damage)
    if lost or first.z - first.z_original < SURE:
        return ""
    return f"beside the holdout, z = {first.z:.1f} against {first.z_original:.1f}"


def _cuts_in(message: str) -> tuple[str, ...]:
    """What each split loses, as the message of the doubt `cut-texts` says it."""
    return tuple(message.removeprefix(CUT).removesuffix(UNREAD).split("; "))


def _least_known(measurements: Mapping[str, Measurement], kind: str) -> Measurement | None:
    """The measurement by which the original doesn't know forget; None where it does, or nothing says so.

    Of texts the answers' probability, below 0.1. Else accuracy, by `hardly_knows`; a backdoor's pairs are right by the
    trigger and say nothing here, and neither does a user's one first item, where each of many would be right.
    """
    m = measurements.get("forget_probability")
    if m is not None and m.original.value is not None:
        return m if m.original.value < 0.1 else None
    m = measurements.get("forget_accuracy")
    if m is None or m.original.value is None or kind == "backdoor" or "recall_10" in measurements:
        return None
    holdout = measurements.get("holdout_accuracy")
    unseen = [m.reference, None if holdout is None else holdout.original.value]
    return m if hardly_knows(m.original.value, [value for value in unseen if value is not None]) else None


def hardly_knows(known: float, unseen: Sequence[float]) -> bool:
    """Whether a model with this accuracy on forget knows so little of it that nothing can be seen to go.

    `unseen`: accuracies on what it never saw, or of models that never saw forget.
    """
    return known < 0.5 and all(known - value <= 0.1 for value in unseen)


def _fall(before: float | None, after: float | None) -> float:
    """By how much a value fell; where one is missing NaN, which no comparison takes for more or less than anything."""
    return math.nan if before is None or after is None else before - after


def _original_within(m: Measurement) -> bool:
    """Whether the original's value lies between the bounds of retrained ones."""
    value, low, high = m.original.value, m.bound_low, m.bound_high
    return value is not None and low is not None and high is not None and low <= value <= high


CHECKS: tuple[Callable[[Facts], Raised], ...] = (
    forget_unknown, weak_references, other_recipe, cut_texts, few_references, other_holdout, small_sets, unchanged,
    swapped_models, statistics, same_as_null, nothing_to_forget, collapse, positive_control, ruined_copies,
    negative_control, known_to_retrained, stands_out, unlike_holdout, no_ratio, tuning, modified,
)  # fmt: skip
