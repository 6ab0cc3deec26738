"""Text that people can read: what counts as some, and how two texts are alike."""

import re
import unicodedata
from typing import Any

from unrecall.errors import BadInput


def filled(value: Any, where: str) -> str:
    """The value if it is text with something to read in it; BadInput otherwise."""
    text = string(value, where)
    if not readable(text):
        raise BadInput(
            f"{where}: expected an answer of at least one token, got {text!r:.60}. Remove the record, or give it one."
        )
    return text


def readable(text: str) -> bool:
    """Whether anything but white space and invisible characters stands in a text."""
    return any(character.isprintable() and not character.isspace() for character in plain(text))


INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""Characters without a shape of their own: Unicode's default ignorable ones, and the empty Braille pattern."""


def plain(text: str) -> str:
    """A text as it reads: without invisible characters, one space for any white space, in one Unicode form."""
    return " ".join(INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).split())


def string(value: Any, where: str) -> str:
    """The value if it is text that can be written; BadInput otherwise."""
    if not isinstance(value, str):
        raise BadInput(f"{where}: expected text, got {type(value).__name__}.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"{where}: expected text, got half of a surrogate pair (\\ud800 to \\udfff). Mend the escape.")
    return value
