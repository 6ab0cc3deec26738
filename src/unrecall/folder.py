"""The folder of a run: what was asked, what is finished, and that nobody else's run is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unrecall.errors import BadInput
from unrecall.storage import read_text, unwritable, write_json

ASKED = "run.json"


def claim(folder: Path, asked: dict[str, Any]) -> Path:
    """Makes `folder` this run's, or takes it up again if it already is; BadInput if it holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder, got a file. Choose another --out.")
    if folder.is_dir() and any(folder.iterdir()):
        known = _asked(folder)
        if known != asked:
            differing = sorted(key for key in known.keys() | asked.keys() if known.get(key) != asked.get(key))
            what = "files that are no run's" if not known else f"another run (its {', '.join(differing)} differ)"
            raise BadInput(f"{folder}: expected an empty folder or this same run, got {what}. Choose another --out.")
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    write_json(folder / ASKED, asked)
    return folder


def _asked(folder: Path) -> dict[str, Any]:
    path = folder / ASKED
    if not path.exists():
        return {}
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: expected JSON, got {error.msg}. Choose another --out.") from error
    return found if isinstance(found, dict) else {}


def records_in(paths: list[Path]) -> list[Path]:
    """The record files that folders and file names stand for, in order; BadInput where there is none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: expected a record or a folder of records, got nothing there. Check the path.")
        found += sorted(path.rglob("record.json")) if path.is_dir() else [path]
    if not found:
        raise BadInput(f"{paths[0]}: expected at least one record.json below it, got none. Run 'unrecall run' first.")
    return found
