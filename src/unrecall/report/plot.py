"""A figure as static SVG: two axes, a frame between them, and marks that say what they are when pointed at."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from markupsafe import Markup

from unrecall.report import svg
from unrecall.report.roles import DASHES, Style

GREY: Final = "#7d828a"
WIDTH: Final = 400.0
"""All figures are as wide, so that their text is as large: on a phone, in two columns, and on paper."""
LETTER: Final = 6.9
"""About how wide a character is, in pixels."""


class Plot(NamedTuple):
    """A figure ready for the template: the drawing, its legend, and what it shows in words."""

    drawing: Markup
    legend: list[Style]
    about: str


@dataclass(frozen=True)
class Axis:
    """What stands along one side: a title, the ends in the values' own units, and which of them have a number."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False

    def at(self, value: float | None) -> float | None:
        """Where a value stands, 0 at the low end and 1 at the high one; None where the axis has no place for it."""
        if value is None or not math.isfinite(value) or (self.log and value <= 0):
            return None
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return min(max((value - low) / (high - low), -0.02), 1.02)

    def texts(self) -> list[tuple[float, str]]:
        """Each tick's place and number."""
        places = ((self.at(tick), f"{tick:,.6g}".replace("-", "−")) for tick in self.ticks)
        return [(place, text) for place, text in places if place is not None]


def axis(title: str, values: Iterable[float | None], *, log: bool = False, tick_each: bool = False) -> Axis:
    """An axis over all the values; `tick_each`: with a tick at each where they are few and far enough apart."""
    finite_values = sorted({v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)}) or [1.0]
    low, high = finite_values[0], finite_values[-1]
    if low == high:
        low, high = (low / 2, high * 2) if log else _around(low)
    own = svg.each(finite_values, log=log) if tick_each else []
    if log:
        return Axis(title, low, high, own or svg.of_powers(low, high), log=True)
    ticks, room = own or svg.spaced(low, high), 0.02 * (high - low)
    return Axis(title, min(low - room, ticks[0]), max(high + room, ticks[-1]), ticks)


def _around(value: float) -> tuple[float, float]:
    """Ends for one value alone: those of a share where it is one, else a little below and above."""
    return (0.0, 1.0) if 0 <= value <= 1 else (value - 0.1 * abs(value), value + 0.1 * abs(value))


@dataclass(frozen=True)
class Canvas:
    """The drawing between two axes; marks are added in the order in which they lie on each other."""

    x: Axis
    y: Axis
    height: float
    marks: list[Markup] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Where the frame begins: beside the longest number of the upright axis."""
        return 14 + LETTER * max((len(text) for _, text in self.y.texts()), default=0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The frame: left, right, top, bottom."""
        top = 8 + 15 * len(_lines(self.y.title))
        bottom = self.height - (24 if self.x.ticks else 8) - 15 * len(_lines(self.x.title))
        return self.left, WIDTH - 16, top, bottom

    def at(self, x: float | None, y: float | None) -> tuple[float, float] | None:
        """A pair of values in pixels; None where an axis has no place for one of them."""
        left, right, top, bottom = self.box
        across, up = self.x.at(x), self.y.at(y)
        return None if across is None or up is None else (left + across * (right - left), bottom - up * (bottom - top))

    def line(self, look: Style, xs: Sequence[float], ys: Sequence[float | None], about: str = "") -> None:
        """A line through values; it is broken where one is missing."""
        drawn = svg.path([self.at(x, y) for x, y in zip(xs, ys, strict=False)])
        dash, inside = DASHES[look.dash] or None, [svg.hint(about)] if about else []
        thin = 0.85 if look.numbered else None
        self.marks.append(
            svg.element("path", *inside, d=drawn, fill="none", stroke=look.colour, stroke_width=look.width,
                        stroke_dasharray=dash, opacity=thin)
        )  # fmt: skip

    def area(self, look: Style, ends: Sequence[tuple[float, float | None, float | None]]) -> None:
        """A band between low and high ends, over the values that have both."""
        pairs = [(self.at(x, low), self.at(x, high)) for x, low, high in ends]
        whole = [(low, high) for low, high in pairs if low is not None and high is not None]
        if len(whole) < 2:
            return
        shape = svg.path([*(high for _, high in whole), *(low for low, _ in reversed(whole))]) + "z"
        faint = 0.06 if look.numbered else 0.16
        self.marks.append(svg.element("path", d=shape, fill=look.colour, fill_opacity=str(faint)))

    def dot(self, look: Style, x: float | None, y: float | None, size: float, about: str) -> None:
        """A marker that says what it is."""
        place = self.at(x, y)
        if place is not None:
            self.marks.append(svg.glyph(look.symbol, look.colour, *place, size, about))

    def words(self, text: str, place: tuple[float, float], anchor: str = "start", kind: str = "") -> None:
        """A text whose baseline begins, ends or is centred at a place in pixels."""
        x, y = place
        self.marks.append(svg.element("text", text, x=float(x), y=float(y), text_anchor=anchor, class_=kind or None))

    def drawn(self, about: str, *, framed: bool = True) -> Markup:
        """The whole drawing."""
        label = {"role": "img", "aria_label": about, "class_": "plot"}
        size = f"0 0 {WIDTH:g} {self.height:g}"
        return svg.element("svg", *(self._frame() if framed else []), *self.marks, viewBox=size, **label)

    def _frame(self) -> list[Markup]:
        """Lines at the ticks, their numbers, and the titles: that of the upright axis stands above it."""
        left, right, top, bottom = self.box
        parts = []
        for place, text in self.y.texts():
            y = bottom - place * (bottom - top)
            parts += [svg.element("path", d=f"M{left:g} {y:.1f}H{right:g}", class_="grid")]
            parts += [svg.element("text", text, x=left - 6, y=y + 4, text_anchor="end")]
        for place, text in thinned(self.x.texts(), right - left):
            x = left + place * (right - left)
            parts += [svg.element("path", d=f"M{x:.1f} {top:g}V{bottom:g}", class_="grid")]
            parts += [svg.element("text", text, x=x, y=bottom + 16, text_anchor="middle")]
        for i, words in enumerate(_lines(self.y.title)):
            parts.append(svg.element("text", words, x=2.0, y=12.0 + 15 * i, class_="name"))
        middle = (left + right) / 2
        for i, words in enumerate(reversed(_lines(self.x.title))):
            y = self.height - 5 - 15 * i
            parts.append(svg.element("text", words, x=middle, y=y, text_anchor="middle", class_="name"))
        return parts


def thinned(texts: Sequence[tuple[float, str]], length: float) -> list[tuple[float, str]]:
    """The ticks whose numbers have room beside those before them."""
    chosen: list[tuple[float, str]] = []
    for place, text in texts:
        if not chosen or (place - chosen[-1][0]) * length > LETTER * (len(text) + len(chosen[-1][1])) / 2 + 6:
            chosen.append((place, text))
    return chosen


def _lines(title: str) -> list[str]:
    """A title in lines that fit, at most two."""
    return textwrap.wrap(title, int(WIDTH / LETTER), max_lines=2, placeholder=" …")
