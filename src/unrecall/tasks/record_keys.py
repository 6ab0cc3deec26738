"""What records say of a picture or a text beside itself: its class, and whose it is."""

import re
from collections.abc import Mapping
from typing import Any

from unrecall.errors import BadInput

LABELS = ("label", "category")
"""What the class of a record may be called."""


def label(record: Mapping[str, Any], where: str) -> str | int | None:
    """A record's class by its name, which may be empty, or by its number; None where it has neither key.

    A whole float is a whole number, as tables with gaps have it. BadInput, with `where`, for anything else.
    """
    value = next((record[key] for key in LABELS if record.get(key) is not None), None)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(
            f"{where}: expected label to be a class, by its name or number, got {value!r:.60}. Write one of the "
            "model's classes."
        )
    return value.strip() if isinstance(value, str) else value


def owner(record: Mapping[str, Any], group: str, where: str) -> str:
    """Whose a record is, by its key `group`; empty where that is missing or empty, and where no key is asked for.

    A number is the same one written as 1 and as 1.0, as tables with gaps have it. BadInput for what names nobody: true
    or false, and numbers that aren't whole.
    """
    value = record.get(group) if group else None
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise BadInput(f"{where}: {group}: expected the name or number of whose it is, got {value!r:.60}.")
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(int(value) if isinstance(value, float) else value))
