"""The cache: what was computed once, kept under everything that decides it."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


@cache
def code_key() -> str:
    """sha256 of unrecall's own source: what is kept of one run is only read again by the same code."""
    state = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        state.update(path.read_bytes())
    return state.hexdigest()


def cache_folder() -> Path:
    """Where trained originals and references are kept: $UNRECALL_CACHE, or ~/.cache/unrecall."""
    named = os.environ.get("UNRECALL_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "unrecall"
