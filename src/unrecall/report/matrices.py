"""Who paid, who gained: tables of classes as heat maps of what changed, in one sentence, and as numbers."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from unrecall.record.schema import Matrix
from unrecall.report.plot import Json, Plot, axis, label, layout
from unrecall.report.sentences import number
from unrecall.report.strips import finite, minus

ROLES: Final = {"unlearned": "unlearned", "retrained": "retrained (mean)"}
SCALE: Final = [[0.0, "#D55E00"], [0.5, "rgba(213,94,0,0)"], [0.5, "rgba(0,114,178,0)"], [1.0, "#0072B2"]]
"""From less to more; no change is clear, so that it has the page's own colour, by day and by night."""
WIDE: Final = 16
"""Characters of a name beside a heat map."""
PAID: Final = "lost accuracy", "{} paid most: its accuracy fell by {}"
GAINED: Final = (
    "is given to other classes’ examples more often than before",
    "{} gained most: on average {} more of another class’s examples are taken for it",
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
    cells, before, after = change(matrix, role), matrix.values["original"], matrix.values[role]
    changes = [abs(v) for other in roles(matrix) for row in change(matrix, other) for v in row if v is not None]
    most = max([0.01, *changes])
    positions = [str(k) for k in range(len(matrix.labels))]
    trace: Json = {
        "type": "heatmap",
        "name": label(ROLES[role]),
        "x": positions,
        "y": positions,
        "z": cells,
        "zmin": -most,
        "zmax": most,
        "colorscale": SCALE,
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "text",
        "text": [
            [pointed_at(true, called, *cell) for called, *cell in zip(matrix.labels, *row, strict=False)]
            for true, *row in zip(matrix.labels, before, after, cells, strict=False)
        ],
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickformat": "+.2~f", "len": 1, "xpad": 4},
    }
    names = {str(k): label(named(matrix, k, WIDE)) for k in range(len(matrix.labels))}
    frame = layout(classes("predicted as", names), classes("true class", names), 150 + 24 * max(5, len(names)))
    frame["yaxis"]["autorange"] = "reversed"
    return Plot([trace], frame, [], f"{matrix.title}: {ROLES[role]} minus original, true class by predicted class")


def classes(title: str, names: dict[str, str]) -> Json:
    """An axis of classes, which leaves names out where they would overprint each other."""
    frame = {key: value for key, value in axis(title).items() if key in ("title", "automargin")}
    return frame | {"type": "category", "labelalias": names, "showgrid": False}


def pointed_at(true: str, called: str, before: float | None, after: float | None, by: float | None) -> str:
    """What a cell says when it is pointed at."""
    what = f"“{true}” called “{called}”"
    if by is None:
        return label(f"{what}: no examples")
    return f"{label(what)}<br>{number(before)} before, {number(after)} after ({'+' if by > 0 else ''}{number(by)})"


def named(matrix: Matrix, k: int, most: int | None = None) -> str:
    """A class's name, of `most` characters, and a sign where it is to be forgotten."""
    name = matrix.labels[k]
    short = name if most is None or len(name) <= most else name[: most - 1].rstrip() + "…"
    return short + (" ✗" if k in matrix.forgotten else "")


def sentence(matrix: Matrix) -> str:
    """Which class that stays paid most, which gained most, and what retrained models show of both."""
    return " ".join(_most(matrix, by_role, *words) for by_role, words in ((matrix.paid, PAID), (matrix.gained, GAINED)))


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
