"""A plotly figure as plain data and layout, with every text made harmless, and the frame that all plots share."""

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from markupsafe import Markup, escape

from unrecall.report.roles import Style

Json: TypeAlias = dict[str, Any]
CLEAR = "rgba(0,0,0,0)"
GREY = "#7d828a"
FEW = 8


class Plot(NamedTuple):
    """A figure ready for the template: what to draw, in what frame, its legend, and what it shows in words."""

    data: list[Json]
    layout: Json
    legend: list[Style]
    about: str

    @property
    def json(self) -> Markup:
        """The figure as JSON that can't end the script element around it."""
        text = json.dumps({"data": self.data, "layout": self.layout}, sort_keys=True, allow_nan=False)
        # ensure_ascii has already turned U+2028 and U+2029 into escapes.
        for mark, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
            text = text.replace(mark, code)
        return Markup(text)


def label(text: str, width: int = 48) -> str:
    """Text for plotly, which reads some HTML: escaped, and wrapped so that a long name can't push the plot away."""
    lines = textwrap.wrap(text, width, max_lines=3, placeholder=" …") or [""]
    return "<br>".join(str(escape(line)) for line in lines)


def axis(title: str) -> Json:
    """One axis, without lines that say nothing."""
    return {
        "title": {"text": label(title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "gridcolor": "rgba(125,130,138,0.25)",
        "hoverformat": ".4~g",
    }


def spaced_axis(title: str, values: Iterable[float]) -> Json:
    """A linear axis with a tick at each value where they are few and far apart: no half layer, no part of a step."""
    ticks = sorted({value for value in values if math.isfinite(value)})
    apart = [high - low for low, high in pairwise(ticks)]
    if not apart or len(ticks) > FEW or min(apart) < (ticks[-1] - ticks[0]) / (2 * FEW):
        return axis(title)
    return axis(title) | {"tickvals": ticks, "ticktext": [f"{value:.6g}" for value in ticks]}


def log_axis(title: str, values: Iterable[float | None], tick_each: bool = False) -> Json:
    """A logarithmic axis: a tick at each value where they are few, else at each power of ten where there are two."""
    positive = sorted({value for value in values if value is not None and 0 < value < math.inf})
    ticks: Json = {"nticks": 7}
    if tick_each and len(positive) <= FEW:
        ticks = {"tickvals": positive, "ticktext": [f"{value:.6g}" for value in positive]}
    elif positive and positive[-1] > 10 * positive[0]:
        ticks = {"dtick": 1}
    short = bool(positive) and positive[0] >= 1e-4 and positive[-1] < 1e6
    numbers = {"tickformat": ",~g"} if short else {"exponentformat": "power"}
    return axis(title) | {"type": "log"} | numbers | ticks


def layout(x: Json, y: Json, height: int) -> Json:
    """What all plots share: clear background, neutral text, no legend as the page writes its own."""
    return {
        "xaxis": x,
        "yaxis": y,
        "height": height,
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        "margin": {"l": 48, "r": 14, "t": 10, "b": 44},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"namelength": -1},
        "dragmode": False,
    }


def scatter(mode: str, name: str, x: Sequence[float | None], y: Sequence[float | None], **more: Any) -> Json:
    """Points, tied by lines or not as `mode` says."""
    return {"type": "scatter", "mode": mode, "name": label(name), "x": x, "y": y, **more}


def lined(look: Style) -> Json:
    """How a model's line is drawn."""
    return {"color": look.colour, "dash": look.dash, "width": look.width}


def marked(look: Style, size: int) -> Json:
    """How a model's marker is drawn."""
    return {"symbol": look.symbol, "size": size, "color": look.colour}


def faded(colour: str, alpha: float) -> str:
    """A hex colour made transparent."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
