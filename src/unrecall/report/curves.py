"""Plots of an attack's curves, and the same numbers as a table."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from unrecall.record.schema import Curve, Series
from unrecall.report.plot import GREY, Json, Plot, axis, faded, layout, lined, log_axis, marked, scatter, spaced_axis
from unrecall.report.roles import Style, legend, style
from unrecall.report.strips import drawable, present

MANY: Final = 30
ROWS: Final = 40


def curve(curve: Curve) -> Plot:
    """A result over a budget, a radius or a threshold, one line per model."""
    xs = [x for series in curve.series for x in series.x]
    ys = [y for series in curve.series for y in series.y]
    is_roc = "roc" in curve.name.lower()
    data = [diagonal(xs, curve.log)] if is_roc else []
    # Bands first, so that no band hides a line.
    for series in curve.series:
        data += band(series, curve.log)
    data += [line(series, curve.log) for series in curve.series]
    x = log_axis(curve.x_label, xs, tick_each=True) if "x" in curve.log else spaced_axis(curve.x_label, xs)
    y = log_axis(curve.y_label, ys) if "y" in curve.log else axis(curve.y_label) | level(ys)
    styles = legend(series.role for series in curve.series)
    styles += [Style("guessing", GREY, "dot", "")] if is_roc else []
    return Plot(data, layout(x, y, 340), styles, f"{curve.title}: {curve.y_label} over {curve.x_label}")


def level(ys: Iterable[float | None]) -> Json:
    """The range of an axis on which every line lies at one same share: plotly would show what no share can be."""
    levels = set(present(ys))
    return {"range": [-0.05, 1.05]} if len(levels) == 1 and 0 <= min(levels) <= 1 else {}


def undrawn(curve: Curve) -> int:
    """How many values of a curve lie at or below 0, where its logarithmic axes have no place for them."""
    pairs = [(x, y) for s in curve.series for x, y in zip(s.x, s.y, strict=False)]
    return sum(("x" in curve.log and x <= 0) or ("y" in curve.log and y is not None and y <= 0) for x, y in pairs)


def line(series: Series, log: str) -> Json:
    """One model's line, with markers where there are few enough points to see them."""
    look = style(series.role)
    x, y = [drawable(v, "x" in log) for v in series.x], [drawable(v, "y" in log) for v in series.y]
    drawn = {"line": lined(look), "opacity": 0.85 if look.numbered else 1}
    if len(series.x) > MANY:
        return scatter("lines", series.role, x, y, **drawn)
    return scatter("lines+markers", series.role, x, y, marker=marked(look, 5 if look.numbered else 8), **drawn)


def band(series: Series, log: str) -> list[Json]:
    """The interval around a line as one closed shape, over the points that have both ends."""
    ends = [
        (drawable(x, "x" in log), drawable(low, "y" in log), drawable(high, "y" in log))
        for x, low, high in zip(series.x, series.low, series.high, strict=False)
    ]
    whole = [point for point in ends if None not in point]
    if len(whole) < 2:
        return []
    xs, lows, highs = zip(*whole, strict=True)
    look = style(series.role)
    area: Json = {"fill": "toself", "fillcolor": faded(look.colour, 0.06 if look.numbered else 0.16)}
    area |= {"line": {"width": 0}, "hoverinfo": "skip"}
    return [scatter("lines", f"{series.role}, interval", [*xs, *xs[::-1]], [*highs, *lows[::-1]], **area)]


def diagonal(rates: Iterable[float], log: str) -> Json:
    """The diagonal of a ROC curve: what an attacker gets by guessing."""
    xs = sorted({x for x in rates if drawable(x, "x" in log) is not None})
    return scatter("lines", "guessing", xs, xs, line={"color": GREY, "width": 1, "dash": "dot"}, hoverinfo="name")


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
