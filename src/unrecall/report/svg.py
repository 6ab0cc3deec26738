"""Pieces of SVG as text: elements with everything escaped, the markers of the models, and numbers beside an axis."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from markupsafe import Markup, escape

FEW: Final = 8
"""How many values may each have a tick of their own."""

NEAR: Final = 0.7
"""Pixels within which two points of a line look like one."""


def element(name: str, *inside: str, **attributes: object) -> Markup:
    """An element. `inside`: texts, which are escaped, and other elements. `attributes`: None leaves one out."""
    parts = [f' {key.rstrip("_").replace("_", "-")}="{_plain(v)}"' for key, v in attributes.items() if v is not None]
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(map(Markup, parts)), Markup("").join(inside))


def _plain(value: object) -> Markup:
    """An attribute's value: numbers to a tenth of a pixel, texts escaped."""
    return escape(f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value))


def hint(text: str) -> Markup:
    """What is shown when the element around it is pointed at."""
    return element("title", text)


def glyph(symbol: str, colour: str, x: float, y: float, r: float = 4.5, about: str = "") -> Markup:
    """A model's marker around (x, y), open where its name ends in "-open"."""
    shape, is_open = symbol.removesuffix("-open"), symbol.endswith("-open")
    strokes = {
        "x": f"M{x - r + 1:.1f} {y - r + 1:.1f}l{2 * r - 2:.1f} {2 * r - 2:.1f}"
        f"m0 {2 - 2 * r:.1f}l{2 - 2 * r:.1f} {2 * r - 2:.1f}",
        "cross": f"M{x - r:.1f} {y:.1f}h{2 * r:.1f}M{x:.1f} {y - r:.1f}v{2 * r:.1f}",
    }
    shapes = {
        "square": f"M{x - r + 0.5:.1f} {y - r + 0.5:.1f}h{2 * r - 1:.1f}v{2 * r - 1:.1f}h{1 - 2 * r:.1f}z",
        "diamond": f"M{x:.1f} {y - r - 0.5:.1f}l{r + 0.5:.1f} {r + 0.5:.1f}l{-r - 0.5:.1f} {r + 0.5:.1f}"
        f"l{-r - 0.5:.1f} {-r - 0.5:.1f}z",
        "triangle-up": f"M{x:.1f} {y - r:.1f}l{r:.1f} {2 * r - 1:.1f}h{-2 * r:.1f}z",
        "triangle-down": f"M{x:.1f} {y + r:.1f}l{r:.1f} {1 - 2 * r:.1f}h{-2 * r:.1f}z",
    }
    inside = [hint(about)] if about else []
    if shape in strokes:
        return element("path", *inside, d=strokes[shape], fill="none", stroke=colour, stroke_width=2.5)
    paint = {"fill": "none", "stroke": colour, "stroke_width": 1.5} if is_open else {"fill": colour}
    if shape in shapes:
        return element("path", *inside, d=shapes[shape], **paint)
    return element("circle", *inside, cx=float(x), cy=float(y), r=float(r), **paint) if shape else Markup("")


def path(points: Sequence[tuple[float, float] | None]) -> str:
    """The commands of a line through points; None lifts the pen. Points too near the last to be seen are left out."""
    commands: list[str] = []
    last: tuple[float, float] | None = None
    for i, point in enumerate(points):
        is_end = i + 1 == len(points) or points[i + 1] is None
        if point is not None and (last is None or is_end or math.dist(point, last) >= NEAR):
            place = " ".join(f"{value:.1f}".removesuffix(".0") for value in point)
            commands.append(f"{'M' if last is None else 'L'}{place}")
            last = point
        elif point is None:
            last = None
    return "".join(commands)


def spaced(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step for step in (size, 2 * size, 5 * size, 10 * size, 20 * size) if (high - low) / step <= most - 1)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def of_powers(low: float, high: float) -> list[float]:
    """Numbers for a logarithmic axis: powers of ten, seven at most; below two decades also 2 and 5 times those."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    every = max(1, math.ceil((last - first + 1) / 7))
    values = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def each(values: Iterable[float], *, log: bool = False) -> list[float]:
    """The values themselves, where they are few and far enough apart to have a tick each; else none."""
    ticks = sorted({value for value in values if math.isfinite(value) and (value > 0 or not log)})
    places = [math.log10(tick) if log else tick for tick in ticks]
    apart = [high - low for low, high in pairwise(places)]
    if not apart or len(ticks) > FEW or min(apart) < (places[-1] - places[0]) / (2 * FEW):
        return []
    return ticks
