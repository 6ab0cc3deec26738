"""The one cache: what was computed once is kept under everything that decides it."""

import ast
import hashlib
import inspect
import json
import marshal
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel

from unrecall.disk.files import content_key, read_text, write_text, writing
from unrecall.errors import BadInput

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Form(Generic[T]):
    """How a value becomes a file and is read back from it."""

    suffix: str
    write: Callable[[Path, T], None]
    read: Callable[[Path], T]


@dataclass(frozen=True)
class Cache:
    """Values by name and key, in files below `folder`; without a folder in memory, for as long as this cache lives."""

    folder: Path | None = None
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def get(self, what: str, key: Sequence[str], form: Form[T], compute: Callable[[], T]) -> T:
        """The value that was computed before under this key, or what `compute` gives now.

        `key`: everything that decides the value: data, weights, parameters, seed, and the code (see `code_key`).
        BadInput where a file was damaged.
        """
        name = f"{what}-{content_key(*key)}{form.suffix}"
        if self.folder is None:
            if name not in self.memory:
                self.memory[name] = compute()
            value: T = self.memory[name]
            return value
        path = self.folder / name
        if not path.exists():
            form.write(path, compute())
        try:
            return form.read(path)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise BadInput(
                f"{path}: expected what was computed before, got a damaged file. Remove it, and it is computed again."
            ) from error


def shared(*, on_disk: bool) -> Cache:
    """The cache that all runs of this user share, or one in memory."""
    return Cache(cache_folder() if on_disk else None)


def cache_folder() -> Path:
    """Where trained originals and references are kept: $UNRECALL_CACHE, or ~/.cache/unrecall."""
    named = os.environ.get("UNRECALL_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "unrecall"


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


ARRAYS: Form[dict[str, np.ndarray]] = Form(".npz", _write_arrays, _read_arrays)


def _json_form(dump: Callable[[T], str], load: Callable[[str], T]) -> Form[T]:
    return Form(".json", lambda path, value: write_text(path, dump(value)), lambda path: load(read_text(path)))


JSON: Form[Any] = _json_form(json.dumps, json.loads)


def model_form(kind: type[M]) -> Form[M]:
    """Values of one pydantic class, as JSON."""
    return _json_form(kind.model_dump_json, kind.model_validate_json)


def code_key(*owners: Any) -> str:
    """sha256 of the code that decides what these classes, functions or objects compute.

    That is the files in which they and their base classes stand, and every file of unrecall that those import, directly
    or through others; what stands in files beside them can't change a result. Of what stands in no file, as in a
    notebook, it is the compiled functions.
    """
    state = hashlib.sha256()
    files: set[Path] = set()
    for owner in (owner.__self__ if inspect.ismethod(owner) else owner for owner in owners):
        kind = owner if isinstance(owner, type) or inspect.isfunction(owner) else type(owner)
        for part in kind.__mro__ if isinstance(kind, type) else (kind,):
            source = _source(part)
            if source is not None:
                files |= _needed(source)
            else:
                state.update(_compiled(part))
    for path in sorted(files):
        state.update(_digest(path))
    return state.hexdigest()


def _source(part: Any) -> Path | None:
    """The file in which a class or function stands; None for what stands in none."""
    try:
        source = inspect.getsourcefile(part)
    except (TypeError, OSError):
        return None
    return None if source is None or not Path(source).is_file() else Path(source).resolve()


def _compiled(part: Any) -> bytes:
    """The functions of a class, or the function itself, as Python compiled them."""
    members = vars(part).values() if isinstance(part, type) else (part,)
    return b"".join(marshal.dumps(member.__code__) for member in members if inspect.isfunction(member))


@cache
def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@cache
def _needed(start: Path) -> frozenset[Path]:
    """A file and all files of unrecall that it needs; of a file from elsewhere, itself and those."""
    needed, waiting = set[Path](), [start]
    while waiting:
        path = waiting.pop()
        if path not in needed and (path == start or path.is_relative_to(PACKAGE)):
            needed.add(path)
            waiting += _imports(path)
    return frozenset(needed)


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """The files of unrecall that a file imports anywhere."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    homes = [PACKAGE.joinpath(*name.split(".")[1:]) for name in names if name.split(".")[0] == "unrecall"]
    files = (file for home in homes for file in (home.with_suffix(".py"), home / "__init__.py"))
    return tuple(file for file in files if file.is_file())
