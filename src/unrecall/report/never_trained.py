"""The verdict beside records that were never trained on, as the page shows it, and what it means."""

from typing import NamedTuple

from unrecall.record.never_trained_lines import differs, uneven
from unrecall.record.schema import AttackTest, NeverTrained
from unrecall.report import numbers
from unrecall.report.numbers import p

LEFT, RIGHT, WIDTH, EDGE = -0.25, 1.5, 260.0, 10.0
GRADES = {
    "A": "planted: coins decided, before training, which wording was trained; labels change places within pairs",
    "B": "a random split before training: exact, if that is what it was. Nothing but the model tells the arms apart",
    "C": "not split off at random: adjusted for difficulty, approximate. Records that differ otherwise could mislead",
    "D": "synthetic: weak. A model may know what a generator writes better, or worse, than what people wrote",
    "E": "none: nothing can be said about privacy",
}


class Place(NamedTuple):
    """Where the share of memory left stands on its scale, in pixels; None for what can't be given."""

    value: float | None
    low: float | None
    high: float | None


def place(value: float | None) -> float | None:
    """A share of memory on the scale from -25 % to 150 %, cut off at its ends."""
    if value is None:
        return None
    bounded = min(max(value, LEFT), RIGHT)
    return round(EDGE + (WIDTH - 2 * EDGE) * (bounded - LEFT) / (RIGHT - LEFT), 1)


def placed(test: AttackTest) -> Place:
    """The marker and whisker of one attack."""
    return Place(place(test.rho), place(test.rho_low), place(test.rho_high))


def in_points(difference: float | None) -> str:
    """A difference of shares in points."""
    text = "–" if difference is None else f"{100 * difference:+.1f}".replace("-", "−")
    return "0" if text in ("+0.0", "−0.0") else text


def checks(tested: NeverTrained) -> list[tuple[str, str]]:
    """What was checked of the test itself, each with its outcome."""
    units = "persons" if tested.unit == "group" else "records"
    lines = [("Holdout", f"grade {tested.grade}, {GRADES[tested.grade]}.")]
    lines.append(("Compared", f"{tested.forget:,} forgotten with {tested.holdout:,} never-trained {units}"))
    if tested.blind is None:
        lines.append(("Blind test", "not run: there is nothing that says how hard a record is. Scores are raw"))
    else:
        outcome = "the arms differ before any model is asked" if differs(tested) else "alike"
        lines.append(("Blind test", f"p = {p(tested.blind)} without the model: {outcome}"))
    if tested.placebo is not None:
        outcome = "differ" if uneven(tested) else "are alike"
        lines.append(("Placebo", f"p = {p(tested.placebo)}: two halves of the holdout {outcome}"))
    lines.append(("The same test on the original", f"p = {p(tested.original)}"))
    if tested.dilution is not None:
        noticed = f"{numbers.percent(tested.dilution)} of such tests would have noticed"
        lines.append(("Dilution", f"if the original had been trained on only a quarter of forget, {noticed}"))
    source = "made from retain and the record only, never from a model of this audit"
    lines.append(("Adjusted by", f"{', '.join(tested.covariates)}: {source}" if tested.covariates else "nothing"))
    if tested.epsilon:
        lines.append(("Epsilon", f"at least {tested.epsilon:.1f} for the whole request, with 95 % confidence"))
    if tested.recognised:
        one_by_one = f"{tested.recognised} of {tested.forget:,} {units}, of which one in ten may be named wrongly"
        lines.append(("One by one", f"recognised as they are: {one_by_one}"))
    lines.append(("Labellings", f"{tested.draws:,} tried, seed {tested.seed}"))
    return lines
