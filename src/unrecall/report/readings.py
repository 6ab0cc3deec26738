"""What the models say: the true answer tinted by how likely each model finds it, and what each model writes."""

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from unrecall.record.schema import Piece, Reading, Record, verbatim
from unrecall.report.numbers import finite, present
from unrecall.report.roles import Style, style

SHOWN: Final = ("original", "unlearned", "retrained")
OPEN: Final = 3
LONG: Final = 480
TALL: Final = 10
TITLE: Final = 160
SIGNS: Final = {"\n": "↵\n", "\t": "⇥", "\r": "␍"}
JOINERS: Final = "\u200c\u200d"


class Tinted(NamedTuple):
    """One piece of an answer: the space before it, its text, the tenth of its probability or none, the number."""

    space: str
    text: str
    tenth: str
    number: str


class Line(NamedTuple):
    """An answer as one model sees it, or as several retrained ones do on average."""

    name: str
    look: Style
    models: int
    mean: float | None
    pieces: list[Tinted]


class Text(NamedTuple):
    """What one model writes; `head` is its beginning where it is long, `exact` whether it gives the true answer."""

    role: str
    look: Style
    text: str
    head: str
    exact: bool


class Written(NamedTuple):
    """What stands side by side, and what is folded below."""

    beside: list[Text]
    folded: list[Text]


def has_texts(record: Record) -> bool:
    """Whether the record holds what its texts say, and not only which they are."""
    return any(reading.prompt or reading.answer for reading in record.readings)


def models(record: Record) -> list[str]:
    """The models that were asked for the record's texts, in the order first seen."""
    return list(dict.fromkeys(role for reading in record.readings for role in reading.mean))


def lines(reading: Reading) -> list[Line]:
    """The true answer once for each of original, unlearned and retrained."""
    answer = []
    for name in SHOWN:
        members = [role for role in roles(reading.pieces) if style(role).name == name]
        values = [mean(piece.probability.get(role) for role in members) for piece in reading.pieces]
        if members:
            pieces = [tinted(piece.text, value) for piece, value in zip(reading.pieces, values, strict=True)]
            pieces[0] = pieces[0]._replace(space="")
            shown = members[0] if len(members) == 1 else name
            answer.append(Line(shown, style(name), len(members), mean(values), pieces))
    return answer


def written(reading: Reading) -> Written:
    """Original, unlearned and one retrained model side by side; whatever else there is, below."""
    styles = {role: style(role) for role in reading.written}
    first = [next((role for role, look in styles.items() if look.name == name), None) for name in SHOWN]
    beside = [role for role in first if role is not None]
    folded = [role for role in styles if role not in beside]
    return Written(*([text_of(role, styles[role], reading) for role in group] for group in (beside, folded)))


def text_of(role: str, look: Style, reading: Reading) -> Text:
    """One model's text, ready to be shown."""
    text = reading.written[role].strip()
    exact = reading.verbatim.get(role, verbatim(text, reading.answer))
    return Text(role if look.numbered else look.name, look, plain(text), beginning(plain(text)), exact)


def numbers(reading: Reading) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """The probabilities as a table: all roles, and one row per piece."""
    names = roles(reading.pieces)
    values = [[finite(piece.probability.get(role)) for role in names] for piece in reading.pieces]
    return names, [(tinted(piece.text, None).text, row) for piece, row in zip(reading.pieces, values, strict=True)]


def halved(reading: Reading) -> bool:
    """Whether the models were shown the beginning of a text that has no prompt, and write what comes after it."""
    return not reading.prompt.strip() and any(text.startswith("... ") for text in reading.written.values())


def roles(pieces: Sequence[Piece]) -> list[str]:
    """Every role that gives a probability, in the order first seen."""
    return list(dict.fromkeys(role for piece in pieces for role in piece.probability))


def tinted(text: str, probability: float | None) -> Tinted:
    """A piece with its tenth, 0 for [0, 0.1) and 9 for [0.9, 1]; the space that begins a word stays without a tint."""
    space = " " if text.startswith(" ") and text.strip(" ") else ""
    shown = visible(text.removeprefix(space))
    if probability is None:
        return Tinted(space, shown, "none", "no value")
    return Tinted(space, shown, str(min(max(int(10 * probability), 0), 9)), f"{probability:.3g}")


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there and finite; None where none is."""
    finite_values = present(values)
    return sum(finite_values) / len(finite_values) if finite_values else None


def visible(piece: str) -> str:
    """A piece in which nothing is invisible: line breaks, tabs, lone spaces, emptiness, characters without a shape."""
    if not piece.strip(" "):
        return "␣" * len(piece) or "∅"
    return "".join(SIGNS.get(mark) or coded(mark) for mark in piece)


def plain(text: str) -> str:
    """A text with its line breaks and tabs, but without characters that have no shape or turn the writing round."""
    return "".join(mark if mark in "\n\t" else coded(mark) for mark in text)


def coded(mark: str) -> str:
    """The character, or its code point where it can't be seen."""
    unseen = unicodedata.category(mark) in ("Cc", "Cf", "Cn", "Co", "Zl", "Zp") and mark not in JOINERS
    return f"<U+{ord(mark):04X}>" if unseen else mark


def beginning(text: str) -> str:
    """Where a text is too long to stand beside others, how it begins; else nothing."""
    rows = text.split("\n")
    if len(text) <= LONG and len(rows) <= TALL:
        return ""
    head = "\n".join(rows[: TALL // 2])[: LONG // 2]
    return (head.rsplit(" ", 1)[0] if len(head) == LONG // 2 else head).rstrip() + " …"


def title(reading: Reading) -> str:
    """One line that names a reading: its prompt, or where there is none how the text begins."""
    return textwrap.shorten(plain(reading.prompt or reading.answer), TITLE, placeholder=" …")
