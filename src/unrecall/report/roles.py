"""How each model looks on the page: one colour, dash and marker per role, the same in every plot and legend."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from unrecall.record.schema import Label, Record


@dataclass(frozen=True)
class Style:
    """The look of one line or dot; `name` is what the legend says."""

    name: str
    colour: str
    dash: str
    symbol: str
    width: float = 2.5
    numbered: bool = False


# Okabe and Ito's palette: told apart by readers with any of the common colour blindnesses, and legible on white and
# on near-black. Dash and marker say the same once more, for print in grey.
STYLES: Final = {
    "original": Style("original", "#E69F00", "dash", "square"),
    "unlearned": Style("unlearned", "#0072B2", "solid", "circle"),
    "retrained": Style("retrained", "#009E73", "longdash", "diamond"),
    "null": Style("null (learning rate 0)", "#CC79A7", "dot", "triangle-up"),
}
OTHERS: Final = (
    Style("", "#D55E00", "dashdot", "x"),
    Style("", "#56B4E9", "longdashdot", "cross"),
    Style("", "#8A8A8A", "dot", "triangle-down"),
)
DASHES: Final = {
    "solid": "",
    "dash": "6 3",
    "longdash": "10 4",
    "dot": "2 3",
    "dashdot": "6 3 2 3",
    "longdashdot": "10 3 2 3",
}
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down")
PALETTE: Final = ("#0072B2", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")

MARKS: Final[dict[Label, str]] = {
    "like retrained": "✓",
    "leaks": "▲",
    "over-forgets": "▼",
    "inconclusive": "?",
    "not judged": "–",
    "unchanged": "=",
    "stands out": "▼",
    "damaged": "✗",
    "can't be told": "?",
    "no more than 25 %": "✓",
    "no more than 50 %": "✓",
}


def slug(label: str) -> str:
    """A label as the name of a class in the page's style sheet."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def style(role: str) -> Style:
    """The look of a series: its model's, drawn open and thin where the role names a control or counts the models."""
    match = re.match(r"(original|unlearned|retrained|null)\b[\s,:]*(.*)", role, re.DOTALL)
    if match is None:
        # Not hash(): that differs from one process to the next, and the same records must give the same bytes.
        return replace(OTHERS[sum(role.encode()) % len(OTHERS)], name=role)
    base, rest = STYLES[match[1]], match[2]
    if not rest:
        return base
    if rest.isdigit():
        return replace(base, width=1.5, numbered=True)
    return replace(base, name=role, dash="dashdot", symbol=f"{base.symbol}-open", width=1.5)


def legend(roles: Iterable[str]) -> list[Style]:
    """One entry per look, in the order first seen; numbered models share one entry that counts them."""
    styles = [style(role) for role in roles]
    entries: dict[str, Style] = {}
    for look in styles:
        count = sum(other.numbered and other.name == look.name for other in styles)
        name = f"{look.name} ({count} models)" if look.numbered and count > 1 else look.name
        entries.setdefault(look.name, replace(look, name=name))
    return list(entries.values())


def by_method(records: Iterable[Record]) -> dict[str, Style]:
    """One look per method, no two alike among the first 35; orange and green stay original's and retrained's."""
    methods = dict.fromkeys(record.method for record in records)
    return {
        method: Style(method, PALETTE[i % 5], "solid", SYMBOLS[(i % 5 + 3 * (i // 5)) % 7])
        for i, method in enumerate(methods)
    }
