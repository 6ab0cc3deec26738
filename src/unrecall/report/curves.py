"""Plots of an attack's curves, and the same numbers as a table."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from unrecall.record.schema import Curve, Series
from unrecall.report.numbers import number
from unrecall.report.plot import GREY, Canvas, Plot, axis
from unrecall.report.roles import Style, legend, style

MANY: Final = 30
"""Points of a line from which on it has no markers."""
ROWS: Final = 40
HEIGHT: Final = 264.0
GUESSING: Final = Style("guessing", GREY, "dot", "", 1.0)


def curve(curve: Curve) -> Plot:
    """A result over a budget, a radius or a threshold, one line per model."""
    xs = [x for series in curve.series for x in series.x]
    ys = [y for series in curve.series for y in (*series.y, *series.low, *series.high)]
    canvas = Canvas(
        axis(curve.x_label, xs, log="x" in curve.log, tick_each=True),
        axis(curve.y_label, ys, log="y" in curve.log),
        HEIGHT,
    )
    is_roc = "roc" in curve.name.lower()
    if is_roc:
        rates = sorted({x for x in xs if canvas.x.at(x) is not None})
        canvas.line(GUESSING, rates, rates, GUESSING.name)
    # Bands first, so that no band hides a line.
    for series in curve.series:
        canvas.area(style(series.role), list(zip(series.x, series.low, series.high, strict=False)))
    for series in curve.series:
        line(canvas, series)
    styles = legend(series.role for series in curve.series) + ([GUESSING] if is_roc else [])
    about = f"{curve.title}: {curve.y_label} over {curve.x_label}"
    return Plot(canvas.drawn(about), styles, about)


def undrawn(curve: Curve) -> int:
    """How many values of a curve lie at or below 0, where its logarithmic axes have no place for them."""
    pairs = [(x, y) for s in curve.series for x, y in zip(s.x, s.y, strict=False)]
    return sum(("x" in curve.log and x <= 0) or ("y" in curve.log and y is not None and y <= 0) for x, y in pairs)


def line(canvas: Canvas, series: Series) -> None:
    """One model's line, with markers where there are few enough points to see them."""
    look = style(series.role)
    canvas.line(look, series.x, series.y, series.role)
    if len(series.x) <= MANY:
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=False)):
            canvas.dot(look, x, y, 2.5 if look.numbered else 4.0, f"{series.role}: {at(x, y)}{interval(series, i)}")


def at(x: float, y: float | None) -> str:
    """A point in words."""
    return f"{number(y)} at {x:.6g}"


def interval(series: Series, i: int) -> str:
    """The interval of a point, where it has both ends."""
    ends: Sequence[float | None] = [*series.low[i : i + 1], *series.high[i : i + 1]]
    low, high = ends if len(ends) == 2 else (None, None)
    return "" if low is None or high is None else f" ({number(low)} to {number(high)})"


class Values(NamedTuple):
    """A curve as a table: one row per x, one column per series."""

    roles: list[str]
    rows: list[tuple[float, list[float | None]]]


def values(curve: Curve) -> Values | None:
    """The numbers behind a plot, or None where they are too many to read."""
    xs = sorted({x for series in curve.series for x in series.x})
    if not xs or len(xs) > ROWS:
        return None
    columns = [dict(zip(series.x, series.y, strict=False)) for series in curve.series]
    return Values([series.role for series in curve.series], [(x, [c.get(x) for c in columns]) for x in xs])
