"""What an attack's own requests did to others, for the first screen. No verdict rests on it."""

from typing import Final, TypeAlias

from unrecall.record.schema import AttackReport, Doubt, Estimate, Measurement, Record
from unrecall.report.numbers import finite, percent
from unrecall.report.sentences import plain_reason, ran

Reply: TypeAlias = tuple[str, str]
"""An answer in a word or a few, and the sentence with its numbers."""

GROUP: Final = "harm"
SUCCESS: Final = "_success"
YES, WHATEVER = "Yes", "Yes, whatever is asked for"
NO_MORE: Final = "No more than random requests do"
NOT_JUDGED, INCONCLUSIVE = "Not judged", "Inconclusive"
NAMED: Final = 0.05
"""The share of the victim's examples above which random requests count as harmful too."""
UNSEEN: Final = 0.1
"""The share of them that could be harmed unseen, above which finding nothing says little."""
HONOURED: Final = 0.5
"""The share of the requested that a method may still get right and count as one that honours requests."""
WHOSE: Final = "The attack makes requests of its own; this one is the scenario’s."
ABOUT: Final = "The verdict is about the scenario’s request. What the attack’s own request does is said first below."
DOUBTED: Final = "About the scenario’s request, which isn’t the attack’s: "
OF_THE_REQUEST: Final = ("same-as-null", "nothing-to-forget", "statistics", "forget-unknown")
"""The doubts that are about what the scenario asked for alone."""
ADVICE: Final = " Raise its strength."
"""What has no bearing on a request of the attack's."""


def reports(record: Record) -> list[AttackReport]:
    """The attacks that make requests of their own, those that could not be run too."""
    names = {m.name for m in record.measurements if m.group == GROUP}
    return [report for report in record.attacks if f"{report.name}{SUCCESS}" in names]


def alone(record: Record) -> bool:
    """Whether no other attack was run than such ones."""
    return bool(reports(record)) and len(reports(record)) == len(record.attacks)


def reply(record: Record, report: AttackReport) -> Reply:
    """Whether the attack's request harmed its victim, beside random requests, and what its controls say of that."""
    if not ran(report):
        return NOT_JUDGED, plain_reason(report.note)
    return _word(record, report), " ".join(filter(None, (report.note, *_figures(record, report), *_controls(report))))


def _word(record: Record, report: AttackReport) -> str:
    excess, success, random = (_estimate(record, report, name) for name in ("excess", "success", "random"))
    if excess.low is not None and excess.low > 0:
        return YES
    if (finite(random.value) or 0.0) > NAMED:
        return WHATEVER
    unseen = success.high is None or success.high > UNSEEN
    return INCONCLUSIVE if unseen or report.positive_holds is False or _ignored(record, report) else NO_MORE


def _ignored(record: Record, report: AttackReport) -> bool:
    """Whether the method still gets most of the requested right, so that it hardly honours a request."""
    left = _row(record, report, "left")
    after, before = (None, None) if left is None else (finite(left.unlearned.value), finite(left.original.value))
    return after is not None and before is not None and after > HONOURED * before


def _figures(record: Record, report: AttackReport) -> list[str]:
    """The harm beyond random requests, that of others as hard, and how well the request was honoured."""
    excess, alike, left = (_estimate(record, report, name) for name in ("excess", "alike", "left"))
    sentences = []
    if finite(excess.value) is not None and excess.value is not None:
        bounds = "" if excess.low is None or excess.high is None else _between(excess.low, excess.high)
        sentences.append(f"Beyond random requests: {percent(excess.value)}{bounds}.")
    if finite(alike.value) is not None and alike.value is not None:
        sentences.append(f"After a request for others as hard: {percent(alike.value)}.")
    if finite(left.value) is not None and left.value is not None:
        weak = ", so that the method hardly honours it, and can’t be attacked through it" * _ignored(record, report)
        sentences.append(f"{percent(left.value)} of what the request names is still answered right{weak}.")
    return sentences


def _between(low: float, high: float) -> str:
    return f" (95 %: {percent(low)} to {percent(high)})"


def _controls(report: AttackReport) -> list[str]:
    """That both controls hold, or what is known of each."""
    if report.positive_holds and report.negative_holds:
        return ["Both controls hold."]
    words = {True: "holds", False: "failed", None: "was not run"}
    controls = {
        "positive": (report.positive_holds, report.positive_control),
        "negative": (report.negative_holds, report.negative_control),
    }
    return [f"The {which} control {words[held]}: {said}." for which, (held, said) in controls.items() if said]


def doubt(record: Record, own: Doubt) -> Doubt:
    """A doubt as the page words it: beside attacks of this kind alone, with what it is about, and without advice."""
    if not alone(record) or own.id not in OF_THE_REQUEST:
        return own
    return own.model_copy(update={"message": f"{DOUBTED}{own.message.removesuffix(ADVICE)}"})


def _row(record: Record, report: AttackReport, name: str) -> Measurement | None:
    return record.measurement(f"{report.name}_{name}")


def _estimate(record: Record, report: AttackReport, name: str) -> Estimate:
    """What a row says of the model that honoured the attack's request; nothing where there is no such row."""
    row = _row(record, report, name)
    return Estimate(value=None) if row is None else row.unlearned
