"""The folder of a run: what was asked, what is finished, and that nobody else's run is in it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unrecall.disk.code_key import path_key
from unrecall.disk.files import UNFINISHED, content_key, exists, reserved, sweep, unwritable
from unrecall.disk.json_files import read_json, write_json
from unrecall.errors import BadInput

ASKED = "run.json"
LONGEST = 100
"""How much of a text stands in the name of a file, in characters."""


def claim(folder: Path, asked_for: dict[str, Any]) -> Path:
    """Makes `folder` this run's, or takes it up again if it already is; BadInput if it holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder, got a file. Choose another --out.")
    if folder.is_dir() and any(path.suffix != UNFINISHED for path in folder.iterdir()):
        before = _command_of(folder)
        if before != asked_for:
            differing = sorted(key for key in before.keys() | asked_for.keys() if before.get(key) != asked_for.get(key))
            what = "files that are no run's" if not before else f"another run (other {', '.join(differing)})"
            raise BadInput(f"{folder}: expected an empty folder or this same run, got {what}. Choose another --out.")
        sweep(folder)
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    sweep(folder)
    write_json(folder / ASKED, asked_for)
    return folder


@contextmanager
def claimed(folder: Path, asked_for: dict[str, Any]) -> Iterator[Path]:
    """`claim` for the length of a block, in which no other process can have the folder.

    An error before anything else was written leaves the disk as it was.
    """
    ours = new = not folder.exists()
    try:
        claim(folder, asked_for)
        ours = False
        with reserved(folder):
            ours = True
            yield folder
    except BaseException as error:
        if ours and folder.exists() and not isinstance(error, KeyboardInterrupt):
            _abandon(folder, new)
        raise


def _abandon(folder: Path, new: bool) -> None:
    """Takes back a claim under which nothing was written; the folder too where the claim made it."""
    below = sorted(folder.rglob("*"), reverse=True)
    if any(path.is_file() and path.name != ASKED for path in below):
        return
    for path in below:
        path.rmdir() if path.is_dir() else path.unlink()
    if new:
        folder.rmdir()


def file_name(text: str) -> str:
    """The text as one name that any file system takes; texts that differ have names that do, in capitals alone too."""
    name = "".join(c if (c.isascii() and c.isalnum()) or c in "-_.=" else "-" for c in text)[:LONGEST]
    return name if name == text.lower() else f"{name}-{content_key(text)[:6]}"


def content_keys(*names: str) -> dict[str, str]:
    """What stands in the files and folders among these names, so that a changed file makes another run.

    A Python file counts with the user's files that it imports, a folder with all that lies in it.
    """
    return {name: path_key(Path(name)) for name in sorted(set(names)) if exists(name)}


def _command_of(folder: Path) -> dict[str, Any]:
    """The command whose run a folder holds, as `claim` wrote it; empty without one, BadInput where it can't be read."""
    path = folder / ASKED
    if not path.exists():
        return {}
    with suppress(BadInput):
        value = read_json(path)
        if isinstance(value, dict):
            return value
    raise BadInput(f"{path}: expected what this run was asked for, got a damaged file. Choose another --out.")


def records_in(paths: list[Path]) -> list[Path]:
    """The record files that folders and file names stand for, in order; BadInput where there is none."""
    records: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: expected a record or a folder of records, got nothing there. Check the path.")
        records += _below(path) if path.is_dir() else [path]
    if not records:
        hint = "Name a record, or a folder that 'unrecall run', bench or audit has filled."
        raise BadInput(f"{paths[0]}: expected at least one record.json below it, got none. {hint}")
    return records


def _below(folder: Path) -> list[Path]:
    """The records below a folder and below the folders that it links to, each once, in order."""
    linked = [path for path in folder.iterdir() if path.is_symlink() and path.is_dir()]
    places: dict[Path, Path] = {}
    for start in (folder, *linked):
        for record in start.rglob("record.json"):
            places.setdefault(record.resolve(), record)
    return sorted(places.values())
