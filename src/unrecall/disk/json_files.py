"""JSON that people and programs wrote: read strictly, and written whole or not at all."""

import json
import re
from pathlib import Path
from typing import Any

from unrecall.disk.files import read_text, write_text
from unrecall.errors import BadInput


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Writes `value` as indented JSON with sorted keys, all of it or nothing. `private`: as in `writing`."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", private=private)


def read_json(path: Path) -> Any:
    """What a JSON file that the user named holds; BadInput where it is none."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, place: str, expected: str = "JSON", hint: str = "Check the path.") -> Any:
    """The value of a JSON text that stands at `place`; BadInput where it is none, or none that can be held.

    `hint`: what to do then.
    """
    cause: Exception
    try:
        value = json.loads(text, object_pairs_hook=_object)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        actual, cause = "half of a surrogate pair (\\ud800 to \\udfff), which is no character", error
    except RepeatedKey as error:
        actual, cause = f"the key {error} twice in an object", error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}" if "\n" in text else f"character {error.colno}"
        actual, cause = f"{error.msg.removesuffix(' at')} at {where}", error
    except RecursionError as error:
        actual, cause = "lists or objects nested too deep", error
    except ValueError as error:  # Python reads no integer of more than some thousand digits
        actual, cause = "a number of too many digits", error
    raise BadInput(f"{place}: expected {expected}, got {actual}. {hint}") from cause


SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""A half of a pair that stands for one character, as JSON escapes it."""


class RepeatedKey(ValueError):
    """A JSON object names a key twice: which value is meant can't be told."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of these keys and values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKey(repr(next(name for name in names if names.count(name) > 1)))
    return values
