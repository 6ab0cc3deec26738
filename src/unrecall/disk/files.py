"""Files that are whole or absent: everything is written to a temporary name and renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unrecall.errors import BadInput

UNFINISHED = ".part"
"""How a file ends that was being written; one that is left over belongs to a process that was killed."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once the block ends well, and vanishes if it does not."""
    temporary = path.parent / f".{path.name}.{os.getpid()}{UNFINISHED}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> BadInput:
    """The one-line error for a disk that is full, a folder that is read-only, and the like."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return BadInput(f"{path}: expected to be able to write it, got: {reason}. Nothing was changed.")


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, all of it or nothing."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys, all of it or nothing."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """The text of a file that the user named; BadInput where it is missing, unreadable or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, got other bytes at position {error.start}.") from error
    except OSError as error:
        raise BadInput(f"{path}: expected a readable file, got: {error.strerror}. Check the path.") from error


def read_json(path: Path) -> Any:
    """What a JSON file that the user named holds; BadInput where it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: expected JSON, got {error.msg} at line {error.lineno}. Check the path.") from error


def file_key(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_key(*parts: str) -> str:
    """A short name for whatever the parts describe: the first 16 hex digits of their sha256."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
