"""Changes class by class: tables of classes as heat maps of what changed, in one sentence, and as numbers."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from unrecall.record.schema import Matrix
from unrecall.report import svg
from unrecall.report.numbers import finite, minus, number
from unrecall.report.plot import LETTER, WIDTH, Plot

ROLES: Final = {"unlearned": "unlearned", "retrained": "retrained (mean)"}
LESS, MORE = "#D55E00", "#0072B2"
NAMED: Final = 30
"""Classes from which on a table has no names, and its cells no numbers to point at."""
FAINT: Final = 0.02
"""The share of the largest change below which a cell of such a table can't be seen."""
WIDE: Final = 16
"""Characters of a name beside a heat map."""
TITLE: Final = "Changes class by class"
"""What such a table is called, whatever an older record says."""
PAID: Final = "lost accuracy", "Class {} lost most accuracy: {}"
GAINED: Final = (
    "is given to other classes’ examples more often than before",
    "Class {} gained most: on average {} more of another class’s examples are taken for it",
)
SLIGHT: Final = 0.005
"""A change of a share that is no change: half a point."""


class Row(NamedTuple):
    """One class: its accuracy before, and by role what it paid and what it gained."""

    name: str
    before: float | None
    paid: list[float | None]
    gained: list[float | None]


def roles(matrix: Matrix) -> dict[str, str]:
    """The models that have a table beside the original's, and what people call them."""
    return {role: name for role, name in ROLES.items() if role in matrix.values and "original" in matrix.values}


def change(matrix: Matrix, role: str) -> list[list[float | None]]:
    """The model's shares minus the original's."""
    rows = zip(matrix.values["original"], matrix.values[role], strict=False)
    return [[minus(after, before) for before, after in zip(*row, strict=False)] for row in rows]


def heat(matrix: Matrix, role: str) -> Plot:
    """What changed, true class by predicted class; all models of a table on one scale, 0 in its middle."""
    changes = [abs(v) for other in roles(matrix) for row in change(matrix, other) for v in row if v is not None]
    most = max([0.01, *changes])
    count = len(matrix.labels)
    names = [named(matrix, k, WIDE) for k in range(count)] if count <= NAMED else []
    left = 20 + LETTER * max(map(len, names), default=0)
    size = (WIDTH - left - 8) / max(1, count)
    marks = cells(matrix, role, most, Cells(left, 22.0, size, pointed=bool(names)))
    below = 22 + count * size
    for k, name in enumerate(names):
        middle = (k + 0.5) * size
        marks.append(svg.element("text", name, x=left - 5, y=26 + middle, text_anchor="end"))
        turned = f"translate({left + middle + 4:.1f} {below + 6:.1f}) rotate(-90)"
        marks.append(svg.element("text", name, transform=turned, text_anchor="end"))
    below += 26 + LETTER * max(map(len, names), default=0)
    marks.append(svg.element("text", "true class, down; predicted as, across", x=2.0, y=12.0, class_="name"))
    marks += scale(most, below)
    about = f"{TITLE}: {ROLES[role]} minus original, true class by predicted class"
    frame = {"viewBox": f"0 0 {WIDTH:g} {below + 24:.0f}", "role": "img", "aria_label": about, "class_": "plot"}
    return Plot(svg.element("svg", *marks, **frame), [], about)


class Cells(NamedTuple):
    """Where the cells lie, how large one is, and whether each says its numbers when pointed at."""

    left: float
    top: float
    size: float
    pointed: bool


def cells(matrix: Matrix, role: str, most: float, place: Cells) -> list[Markup]:
    """A rectangle for each cell that changed; of a table with many classes, for those that changed enough to see."""
    before, after = matrix.values["original"], matrix.values[role]
    marks = []
    for i, row in enumerate(change(matrix, role)):
        for j, by in enumerate(row):
            if not place.pointed and (by is None or abs(by) < FAINT * most):
                continue
            hint = pointed_at(matrix.labels[i], matrix.labels[j], before[i][j], after[i][j], by)
            side, x, y = place.size - min(1.0, place.size / 8), place.left + j * place.size, place.top + i * place.size
            inside = [svg.hint(hint)] if place.pointed else []
            marks.append(svg.element("rect", *inside, x=x, y=y, width=side, height=side, **shade(by, most)))
    return marks


def shade(by: float | None, most: float) -> dict[str, object]:
    """The colour of a change: blue for more, orange for less, the clearer the larger; no change is the page's own."""
    if by is None:
        return {"class_": "empty"}
    return {"fill": MORE if by > 0 else LESS, "fill_opacity": f"{abs(by) / most:.2f}"}


def scale(most: float, top: float) -> list[Markup]:
    """The colours from the largest loss to the largest gain, with their numbers."""
    marks = [
        svg.element("rect", x=66.0 + 24 * k, y=top, width=24.0, height=12.0, **shade((k - 5) / 5 * most, most))
        for k in range(11)
    ]
    ends = ((60.0, "end", f"−{number(most)}"), (336.0, "start", f"+{number(most)}"))
    return marks + [svg.element("text", label, x=x, y=top + 10, text_anchor=anchor) for x, anchor, label in ends]


def pointed_at(true: str, called: str, before: float | None, after: float | None, by: float | None) -> str:
    """What a cell says when it is pointed at."""
    what = f"“{true}” called “{called}”"
    if by is None:
        return f"{what}: no examples"
    return f"{what}: {number(before)} before, {number(after)} after ({'+' if by > 0 else ''}{number(by)})"


def named(matrix: Matrix, k: int, most: int | None = None) -> str:
    """A class's name, of `most` characters, and a sign where it is to be forgotten."""
    name = matrix.labels[k]
    short = name if most is None or len(name) <= most else name[: most - 1].rstrip() + "…"
    return short + (" ✗" if k in matrix.forgotten else "")


def sentence(matrix: Matrix) -> str:
    """Which class that stays lost most, which gained most, and what retrained models show of both."""
    return f"{paid(matrix)} {_most(matrix, matrix.gained, *GAINED)}"


def paid(matrix: Matrix) -> str:
    """Which class that stays lost most accuracy, and what retrained models show of it."""
    return _most(matrix, matrix.paid, *PAID)


def _most(matrix: Matrix, by_role: Mapping[str, list[float | None]], nothing: str, words: str) -> str:
    unlearned, retrained = by_role.get("unlearned", []), by_role.get("retrained", [])
    staying = [k for k in range(len(matrix.labels)) if k not in matrix.forgotten]
    values = [(value, k) for k in staying if (value := _at(unlearned, k)) is not None]
    value, best = max(values, key=lambda pair: pair[0], default=(0.0, 0))
    if value < SLIGHT:
        return f"No class that stays {nothing}."
    usual = _at(retrained, best)
    beside = "no retrained model tells what would be usual" if usual is None else f"{number(usual)} in retrained models"
    return words.format(f"“{matrix.labels[best]}”", number(value)) + f" ({beside})."


def rows(matrix: Matrix) -> list[Row]:
    """The numbers by class, in the order of the table."""
    table = []
    for k, line in zip(range(len(matrix.labels)), matrix.values.get("original", []), strict=False):
        paid, gained = ([_at(by.get(role, []), k) for role in roles(matrix)] for by in (matrix.paid, matrix.gained))
        table.append(Row(named(matrix, k), _at(line, k), paid, gained))
    return table


def _at(values: Sequence[float | None], k: int) -> float | None:
    return finite(values[k]) if k < len(values) else None
