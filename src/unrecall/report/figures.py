"""The plots that compare models: how one forgot, utility against forgetting, and what tuning saw."""

from collections.abc import Sequence
from typing import NamedTuple

from unrecall.record.schema import Estimate, Measurement, Record, Tuning
from unrecall.report.numbers import finite, number, span
from unrecall.report.plot import GREY, WIDTH, Axis, Canvas, Plot, axis
from unrecall.report.roles import STYLES, Style, by_method, style
from unrecall.report.svg import spaced

CHOSEN = Style("chosen", GREY, "dot", "", 1.5)
TIE = Style("", GREY, "dot", "", 1.0)
ROW = 40.0
"""The height of a model's row, with its name above its dots: beside them a phone would have no room."""


def forgetting(measurement: Measurement, recovered: dict[str, list[float]]) -> Plot:
    """Forget accuracy of every model as dots on one scale, each tied to the original by a thin line."""
    m = measurement
    rows = [("original", "original", [m.original]), ("null", STYLES["null"].name, [m.null])]
    rows += [("unlearned", "unlearned", [m.unlearned])]
    rows += [(role, f"{role}, recalibrated", [Estimate(value=v) for v in vs]) for role, vs in recovered.items()]
    rows += [("retrained", "retrained", [Estimate(value=m.reference)])]
    drawn = [(role, name, es) for role, name, es in rows if any(finite(e.value) is not None for e in es)]
    ends = [v for _, _, es in drawn for e in es for v in (e.low, e.value, e.high)]
    across = axis(m.title + (f" ({m.unit})" if m.unit else ""), ends)
    canvas = Canvas(across, Axis("", len(drawn), 0, ()), 46 + ROW * len(drawn))
    for i, (role, name, estimates) in enumerate(drawn):
        dots(canvas, role, estimates, i + 0.7, finite(m.original.value))
        _, top = canvas.at(across.low, i + 0.34) or (0.0, 0.0)
        canvas.words(f"{name} {span([e.value for e in estimates])}", (canvas.left, top), kind="row")
    about = f"{m.title} of each model"
    return Plot(canvas.drawn(about), [], about)


def dots(canvas: Canvas, role: str, estimates: Sequence[Estimate], row: float, start: float | None) -> None:
    """The values in one row with their intervals, and a line to the first of them from the original's value."""
    look = style(role)
    first = finite(estimates[0].value)
    if start is not None and first is not None:
        canvas.line(TIE, [start, first], [row, row])
    for e in estimates:
        value, low, high = finite(e.value), finite(e.low), finite(e.high)
        about = f"{role}: {number(value)}"
        if low is not None and high is not None:
            about += f" ({number(low)} to {number(high)})"
            canvas.line(Style("", look.colour, "solid", "", 2.0), [low, high], [row, row], about)
        canvas.dot(look, value, row, 5.5, about)


class Marked(NamedTuple):
    """A marker on the plane: whose, where, its size, its text, and what it says when pointed at."""

    look: Style
    x: float
    y: float
    size: float
    text: str
    about: str


def plane(records: Sequence[Record], scenario: str) -> Plot | None:
    """Utility against forgetting in one scenario: each record a marker with its row number in the whole summary.

    Utility is accuracy on retain, or on test where no record has that on retain.
    """
    useful = "retain_accuracy" if any(r.measurement("retain_accuracy") for r in records) else "test_accuracy"
    styles = by_method(records)
    marks: list[Marked] = []
    others: dict[tuple[str, float, float], Marked] = {}
    titles = ("", "")
    for row, record in enumerate(records, 1):
        x, y = record.measurement(useful), record.measurement("forget_accuracy")
        if x is None or y is None or record.scenario != scenario:
            continue
        titles = x.title, y.title
        means = {"original": (x.original.value, y.original.value), "retrained": (x.reference, y.reference)}
        for role, values in means.items():
            a, b = map(finite, values)
            if a is not None and b is not None:
                others[role, a, b] = Marked(STYLES[role], a, b, 7, "", f"{role}: {number(a)}, {number(b)}")
        a, b = finite(x.unlearned.value), finite(y.unlearned.value)
        if a is not None and b is not None:
            text = str(row) if len(records) > 1 else record.method
            about = f"{record.method}, seed {record.seed}: {number(a)}, {number(b)}"
            marks.append(Marked(styles[record.method], a, b, 5.5, text, about))
    methods = {record.method: styles[record.method] for record in records if record.scenario == scenario}
    shown = [STYLES[role] for role in ("original", "retrained") if any(key[0] == role for key in others)]
    if not marks:
        return None
    return _plane([*others.values(), *marks], titles, [*shown, *methods.values()])


def _plane(marks: Sequence[Marked], titles: tuple[str, str], entries: list[Style]) -> Plot:
    """The markers between two axes of shares, with their texts beside them."""
    across, up = (
        Axis(title, *window(v), ticks=())
        for title, v in zip(titles, ([m.x for m in marks], [m.y for m in marks]), strict=True)
    )
    canvas = Canvas(ticked(across), ticked(up), 330)
    texts = gathered([(m.x, m.y, m.text) for m in marks], across, up)
    for m, text in zip(marks, texts, strict=True):
        canvas.dot(m.look, m.x, m.y, m.size, m.about)
        place = canvas.at(m.x, m.y)
        if text and place:
            right = place[0] < WIDTH / 2
            beside = (place[0] + 9, place[1] - 6) if right else (place[0] - 9, place[1] - 6)
            canvas.words(text, beside, "start" if right else "end", "point")
    about = "Utility against forgetting"
    return Plot(canvas.drawn(about), entries, about)


def ticked(plain: Axis) -> Axis:
    """The axis with numbers at round values within its ends."""
    return Axis(plain.title, plain.low, plain.high, spaced(plain.low, plain.high))


def window(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis of shares: around the values, within [0, 1], never narrower than 0.05, with a little room."""
    low, high = min(values), max(values)
    floor, top = min(low, 0.0), max(high, 1.0)
    width = max(high - low, 0.05 * top)
    start = min(max((low + high - width) / 2, floor), top - width)
    return start - 0.1 * width, start + 1.1 * width


def gathered(markers: Sequence[tuple[float, float, str]], across: Axis, up: Axis) -> list[str]:
    """The text of each marker; where markers lie so close that texts would overprint, the first has all their texts."""
    near_x, near_y = (0.05 * (axis.high - axis.low) for axis in (across, up))
    texts: dict[int, list[str]] = {}
    for i, (x, y, text) in enumerate(markers):
        if text:
            close = (j for j in texts if abs(markers[j][0] - x) <= near_x and abs(markers[j][1] - y) <= near_y)
            texts.setdefault(next(close, i), []).append(text)
    return [", ".join(texts.get(i, [])) for i in range(len(markers))]


def gap_of(record: Record) -> str:
    """What the gap of a trial of tuning is: between forget and validation, or of more than samples above a limit."""
    tuning = record.tuning
    if tuning is not None and tuning.against:
        return "brought back" + (", nats" if tuning.measure == "loss" else "")
    return "gap" if record.kind == "samples" else "confidence above what may be left"


def tuning(tuning: Tuning, what: str = "gap") -> Plot:
    """What tuning saw: how far from its goal it was, called `what`, and the drop on retain, over the strength."""
    trials = sorted((t for t in tuning.trials if finite(t.strength) is not None), key=lambda trial: trial.strength)
    wide = bool(trials) and trials[0].strength > 0 and trials[-1].strength > 20 * trials[0].strength
    strengths = [trial.strength for trial in trials]
    gap, drop = Style(what, "#0072B2", "solid", "circle"), Style("retain drop", "#D55E00", "dash", "square")
    curves = {gap: [finite(t.gap) for t in trials], drop: [finite(t.retain_drop) for t in trials]}
    x = axis(tuning.parameter, strengths, log=wide, tick_each=True)
    canvas = Canvas(x, axis(f"{what}, retain drop", [v for ys in curves.values() for v in ys]), 250)
    if x.at(finite(tuning.chosen)) is not None:
        canvas.line(
            CHOSEN, [tuning.chosen, tuning.chosen], [canvas.y.low, canvas.y.high], f"chosen: {tuning.chosen:.6g}"
        )
    for look, ys in curves.items():
        canvas.line(look, strengths, ys, look.name)
        for strength, y in zip(strengths, ys, strict=True):
            canvas.dot(look, strength, y, 4, f"{look.name}: {number(y)} at {strength:.6g}")
    about = f"Tuning {tuning.parameter}"
    return Plot(canvas.drawn(about), [gap, drop, CHOSEN], about)


LOST = {
    "retain_drop": "retain drop",
    "near_drop": "drop on retain near forget",
    "validation_drop": "drop on validation",
    "kl": "KL, nats",
}
"""What a trial of tuning may have lost, in words, by field."""


def lost(tuning: Tuning) -> dict[str, str]:
    """The fields of what was looked for in some trial, and their words."""
    return {
        name: words for name, words in LOST.items() if any(getattr(trial, name) is not None for trial in tuning.trials)
    }
