"""What the page says in words: how the model forgot, and what the audit does not prove."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from unrecall.record.judgement import rejudge
from unrecall.record.schema import AttackReport, Curve, Estimate, Measurement, Record, Side
from unrecall.record.verdict import SHARE, undeclared
from unrecall.report.numbers import finite, number, span
from unrecall.report.roles import STYLES, style

HEADINGS: Final = {
    "utility": "Utility: what it must still do",
    "forgetting": "Forgetting: what it must no longer do",
    "text": "Answers: how likely it finds them, and what it writes",
    "privacy": "Privacy: who was in the data",
    "recovery": "Recovery: what an attacker brings back",
    "harm": "Harm: what honouring somebody else's request does",
    "inside": "Inside the model: what its answers no longer show",
    "cost": "Cost",
}
SEEN: Final = re.compile(r"(\d+) % left would be seen 4 times in 5")
"""What a verdict's line says of the smallest share that would be called a leak."""
ACCURACY: Final = (
    "For a text, an accuracy is the share of the answer's tokens (words or parts of words) that the model predicts "
    "right, each after all that comes before it."
)

PAIRS: Final = (
    "For pairs, an accuracy is how often a picture finds its caption, and a caption its picture, among those of its "
    "batch: 32 pairs, or as many as the smallest set has."
)


def accuracy(record: Record) -> str:
    """What an accuracy is where that is not what one expects."""
    paired = record.measurement("forget_retrieval_first") is not None
    return ACCURACY if record.readings else PAIRS if paired else ""


def judging(record: Record, declared: Mapping[str, Side | None] | None) -> str:
    """How the verdict on the page differs from the record's own, or from what would be judged today; else nothing."""
    own, anew = record.verdict, rejudge(record).verdict
    basis = f"This verdict follows from the record's numbers by the rule {anew.rule}"
    remarks = []
    if own.rule != anew.rule:
        remarks.append(f"{basis}; the record was judged “{own.label}” by the rule {own.rule}.")
    elif (own.label, own.line) != (anew.label, anew.line):
        remarks.append(f"{basis}; the record says “{own.label}” of itself, which they do not bear out.")
    names = [m.title for m in undeclared(record, declared)] if declared is not None else []
    if names:
        remarks.append(f"In this version other measurements are judged, or leak on another side: {'; '.join(names)}.")
    return " ".join(remarks)


def shares_together(record: Record) -> str:
    """How “half or more is ruled out” fits to a larger share that would be seen; empty where there is no such share."""
    least = SEEN.search(record.verdict.line) if record.verdict.label == "like retrained" else None
    if least is None or int(least[1]) <= 100 * SHARE:
        return ""
    return (
        "How the two shares fit together: a model with more than half left would be called like retrained once in 20 "
        f"at most, but a leak 4 times in 5 only with {least[1]} % left or more; in between it is mostly inconclusive."
    )


def points(measurement: Measurement, difference: float) -> float:
    """A difference of accuracies in percentage points, whether the record holds fractions or percentages."""
    return difference if measurement.unit.strip() == "%" else 100 * difference


NO_STATISTICS: Final = Estimate(value=None, note="no BatchNorm statistics moved")
"""What stands for a null that is the original: where no batch moves what a network takes from it."""


def how_it_forgot(m: Measurement | None) -> str:
    """One sentence: how much of the forgetting is there in the null too, and so was no change of the weights."""
    if m is None:
        return "No forget accuracy was measured, so nothing says how the model forgot."
    original, unlearned, null = finite(m.original.value), finite(m.unlearned.value), finite(m.null.value)
    if original is None or unlearned is None:
        reason = m.original.note if original is None else m.unlearned.note
        return f"Nothing says how the model forgot: {reason or 'forget accuracy has no value'}."
    total, null_name = points(m, original - unlearned), STYLES["null"].name
    if total < 0.5:
        return f"Forget accuracy did not fall ({number(original)} before, {number(unlearned)} after)."
    if m.null == NO_STATISTICS:
        return f"{total:.0f} points of forgetting, all of them by weights: {NO_STATISTICS.note}."
    if null is None:
        reason = (m.null.note or "no reason was recorded").removeprefix("no null: ")
        unknown = f"how many of them are BatchNorm's is unknown without a {null_name}: {reason}"
        return f"{total:.0f} points of forgetting; {unknown}"
    still = points(m, original - null)
    rest = f"{max(still, 0):.0f} are there in the {null_name} too: {ending(still / total)}"
    return f"Of the {total:.0f} points of forgetting, {rest}"


def how_far(m: Measurement | None) -> str:
    """One sentence: by how much forget accuracy fell, and where retrained models stand."""
    original, unlearned = (finite(m.original.value), finite(m.unlearned.value)) if m else (None, None)
    if m is None or original is None or unlearned is None or points(m, original - unlearned) < 0.5:
        return how_it_forgot(m)
    reference = finite(m.reference)
    beside = "" if reference is None else f"; retrained models have {number(reference)}"
    fell = f"{points(m, original - unlearned):.0f} points, from {number(original)} to {number(unlearned)}"
    return f"{m.title} fell by {fell}{beside}."


def inside(record: Record) -> list[str]:
    """What the attacks that open the model concluded, in their own words."""
    names = tuple(m.name for m in record.measurements if m.group == "inside")
    reports = (a for a in record.attacks if ran(a) and any(name.startswith(a.name) for name in names))
    return [attack.note for attack in reports if attack.note]


def no_reference(measurement: Measurement) -> str:
    """Why a measurement has no value of retrained models to stand beside."""
    if measurement.references:
        return next((e.note for e in measurement.references if e.note), "no reason was recorded")
    ideal = measurement.ideal
    return "not measured on retrained models" if ideal == "retrained" else f"the ideal is {ideal}"


def only_reason(m: Measurement) -> str:
    """The one reason for which no model has a value, or nothing where there is a value or more than one reason.

    Why the null has none isn't asked.
    """
    models = [m.unlearned, m.original, *m.references]
    reasons = {estimate.note or "no reason was recorded" for estimate in models}
    valued = any(estimate.value is not None for estimate in (*models, m.null))
    return reasons.pop() if len(reasons) == 1 and not valued else ""


def row_notes(m: Measurement) -> list[str]:
    """What stands below a measurement's title: its own note, and one that all its values share."""
    notes = {estimate.note for estimate in (m.unlearned, m.original, m.null) if estimate.value is not None}
    shared = notes if len(notes) == 1 else set()
    return [note for note in dict.fromkeys([m.note, *shared]) if note and note != only_reason(m)]


def flat(parameters: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Parameters with those of nested parts named after their part: fit.lr."""
    parts: dict[str, Any] = {}
    for name, value in parameters.items():
        parts |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return parts


def ending(part: float) -> str:
    """What the share of forgetting that needs no learning rate means."""
    if part >= 0.8:
        return "BatchNorm statistics, not weights."
    if part >= 0.2:
        return "partly BatchNorm statistics, partly weights."
    return "the rest takes training."


RECALIBRATION: Final = "recalibration"
"""The attack that takes BatchNorm statistics again."""


def recalibration(record: Record) -> Curve | None:
    """The first curve of the attack that takes BatchNorm statistics again, or None."""
    return next((curve for attack in record.attacks if attack.name == RECALIBRATION for curve in attack.curves), None)


def last_points(curve: Curve | None) -> dict[str, list[float]]:
    """Where each model ends up on a curve; numbered models are put together, and points without a value left out."""
    ends: dict[str, list[float]] = {}
    for series in curve.series if curve else ():
        role = series.role.rstrip("0123456789 ") if style(series.role).numbered else series.role
        ends.setdefault(role, []).extend([y for y in series.y if y is not None and math.isfinite(y)][-1:])
    return {role: values for role, values in ends.items() if values}


def recovered(record: Record) -> str:
    """What is recalled once the statistics are taken again, in words; empty where none moved and none were taken."""
    curve = recalibration(record)
    ends = last_points(curve)
    if curve is not None and ends:
        return f"After “{curve.title}”: {', '.join(f'{role} {span(values)}' for role, values in ends.items())}."
    if any(m.null == NO_STATISTICS for m in record.measurements):
        return ""
    notes = (attack.note for attack in record.attacks if attack.name == RECALIBRATION and attack.note)
    return next(notes, "No attack took BatchNorm statistics again on unlabelled data.")


def columns(record: Record) -> list[str]:
    """The models that have a column beside the measurements: retrained ones only where there are some."""
    roles = ["unlearned", *(["retrained"] if references(record) else []), "original"]
    return [*roles, *(["null"] if any(m.null.value is not None for m in record.measurements) else [])]


def references(record: Record) -> int:
    """How many retrained models the record holds."""
    return max((len(m.references) for m in record.measurements), default=0)


EXPECTED: Final = re.compile(r"\w+: expected (.+?), got (.+?)\.((?: [A-Z].*)?)")
"""How an error says what is missing, in the name of a class."""
UNCHECKED: Final = {
    (None, None): ("A control", "nothing shows that it tells a model that knows from one that does not."),
    (None, True): ("The positive control", "nothing shows that it finds what is there."),
    (True, None): ("The negative control", "nothing shows that it finds nothing where nothing is."),
}
"""What isn't known of an attack, by which of its controls held, the positive one first, and which was not run."""


def limits(record: Record) -> list[str]:
    """What this audit does not prove, frankly, from what the record says was and was not done."""
    names, not_run = ("; ".join(a.title for a in record.attacks if ran(a) is was_run) for was_run in (True, False))
    which = "This attack" if len(refused(record)) == 1 else "These attacks"
    controls = {a.title: (a.positive_holds, a.negative_holds) for a in record.attacks if ran(a)}
    failed = "; ".join(title for title, held in controls.items() if False in held)
    unknown = sum(m.unlearned.value is None for m in record.measurements)
    lines = [
        (names, f"“Forgotten” can mean no more here than: not found by {names}. Any other attack was not run, and the "
         "same attacks with more data, more steps or more access may find what these did not."),
        (not names, "No attack was run. Low forget accuracy alone says little: a model can hide what it knows."),
        (not_run, f"{which} could not be run: {not_run}. The list “Not run” says why."),
        (failed, f"A control failed for {failed}: what it found, or did not find, counts for little."),
        *((titles, f"{which_control} was not run for {titles}: {unknown_then}")
          for held, (which_control, unknown_then) in UNCHECKED.items()
          for titles in ["; ".join(title for title, own in controls.items() if own == held)]),
        (True, "It is a measurement, not a certificate. No guarantee such as (epsilon, delta) follows from it, and "
         "“like retrained” means that no difference worth naming was found, not that there is none."),
        (True, references_used(record)),
        (True, f"One model was judged: {record.method_title} with seed {record.seed} and these parameters. Another "
         "seed, another forget set or a model trained otherwise can come out differently."),
        (True, "Most numbers are averages over the forget set. A single example can stand out where the average does "
         "not; the exhibits show the worst that were recorded, not all that there are."),
        (True, "Membership numbers compare forget with holdout and rely on both coming from the same distribution. "
         "The audit can doubt that, but it can't prove it."),
        (unknown, f"{unknown} of {len(record.measurements)} measurements could not be taken; the table says why."),
        (True, "Only the weights whose hash is below were audited. The original checkpoint, its backups, optimiser "
         "states, logs, cached outputs, fine-tuned or distilled copies, and whatever else was derived from the forget "
         "set remember what they remembered before."),
        (True, "Whether this satisfies a deletion request is a question of law that no number on this page answers."),
    ]  # fmt: skip
    return [line for applies, line in lines if applies]


def ran(attack: AttackReport) -> bool:
    """Whether an attack was run at all: one that could not be has no curve, and a note with the reason."""
    return bool(attack.curves) or not attack.note


def plain_reason(note: str) -> str:
    """Why something could not be done, without the name of the class that said it."""
    said = EXPECTED.fullmatch(note)
    if said is None:
        return note
    needed, got, more = said.groups()
    was = "and there was none" if got == "none" else f"and got {got}"
    return f"It needs {needed}, {was}.{more}"


def refused(record: Record) -> list[AttackReport]:
    """The attacks that were not run."""
    return [attack for attack in record.attacks if not ran(attack)]


def missing(record: Record) -> list[str]:
    """The names of measurements that no model has a value of, for one reason."""
    return [m.name for m in record.measurements if only_reason(m)]


def references_used(record: Record) -> str:
    """How much the retrained models say about what forgetting should look like."""
    count = references(record)
    if count == 0:
        return "No retrained model was at hand, so nothing here shows what a model that never saw the data would do."
    if count == 1:
        return "One retrained model is one sample of a distribution: how far another would fall from it is not known."
    return (
        f"The {count} retrained models are samples of a distribution. The range shown for another one is an estimate, "
        "and the fewer the models, the rougher it is."
    )
