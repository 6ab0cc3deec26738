"""The one cache: what was computed once is kept under everything that decides it."""

import json
import os
import platform
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel

from unrecall.disk.files import (
    check_writable,
    content_key,
    discard,
    held,
    intact,
    read_text,
    sealed_as,
    sweep,
    writing,
)
from unrecall.errors import BadInput, visible

CACHED = re.compile(r".+-[0-9a-f]{16}\.[0-9a-f]{16}\.[A-Za-z]+")
"""How the file of a value is called: what it is, the key and the seal, which no file of anybody else has."""
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Form(Generic[T]):
    """How a value becomes a file and is read back from it; `write` fills the file that is there."""

    suffix: str
    write: Callable[[Path, T], None]
    read: Callable[[Path], T]


@dataclass(frozen=True)
class Cache:
    """Values by name and key, in files below `folder`; without a folder in memory, for as long as this cache lives.

    `say`: is told, in a line, of a value that another process is making and that is waited for.
    """

    folder: Path | None = None
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    say: Callable[[str], None] = field(default=lambda line: None, repr=False, compare=False)

    def check(self) -> None:
        """BadInput where nothing could be kept; nothing is changed."""
        if self.folder is not None:
            check_writable(self.folder / "value", private=True)

    def files(self) -> list[Path]:
        """The files of all values, and of nothing else that lies there; none where there is no folder."""
        places = [] if self.folder is None else self.folder.glob("*")
        return sorted(path for path in places if path.is_file() and CACHED.fullmatch(path.name))

    def clear(self) -> None:
        """Removes all values, and the folder where nothing else is in it; what another process is writing stays."""
        for path in self.files():
            discard(path)
        self.memory.clear()
        if self.folder is not None:
            sweep(self.folder)
            with suppress(OSError):  # other files are there, or there is no such folder
                self.folder.rmdir()

    def holds(self, what: str, key: Sequence[str], suffix: str) -> bool:
        """Whether a value is there in a file, damaged or not."""
        return self.folder is not None and bool(sealed_as(self.folder / _name(what, key, suffix)))

    def get(self, what: str, key: Sequence[str], form: Form[T], compute: Callable[[], T]) -> T:
        """The value that was computed before under this key and in this environment, or what `compute` gives now.

        `key`: everything that decides the value: data, weights, parameters, seed, and the code (see `code_key`). A
        damaged file is made anew, with a warning. BadInput, before anything is computed, where it can't be written.
        Of several processes that want the same value one computes it, and the others wait.
        """
        name = _name(what, key, form.suffix)
        if self.folder is None:
            if name not in self.memory:
                self.memory[name] = compute()
            value: T = self.memory[name]
            return value
        path = self.folder / name
        _sweep_once(self.folder)
        for stored in _stored(path, form):
            return stored
        with held(path, lambda holder: self.say(f"{what}: waits for {holder}, which is making it")):
            for stored in _stored(path, form):
                return stored
            with writing(path, sealed=True, private=True) as temporary:
                form.write(temporary, compute())
        return form.read(sealed_as(path)[0])


def _name(what: str, key: Sequence[str], suffix: str) -> str:
    """The name of a value's file, without its seal."""
    return f"{what}-{content_key(*key, *environment().values())}{suffix}"


def _stored(path: Path, form: Form[T]) -> Iterator[T]:
    """The value that was written as `path`, if there is one; what is damaged goes, with a warning."""
    for file in sealed_as(path):
        try:
            if intact(file):
                yield form.read(file)
                return
        except FileNotFoundError:  # another process has just taken it away
            continue
        except (BadInput, ValueError, LookupError, EOFError, zipfile.BadZipFile):
            pass
        warnings.warn(f"{visible(str(file))}: damaged, so it is made anew.", stacklevel=3)
        discard(file)


@cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def environment() -> dict[str, str]:
    """What decides the last bits of every number beside data and code: versions, processor, threads."""
    import torch

    return {
        **_versions(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
    }


@cache
def _versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute, where they are installed."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", "scipy", "scikit-learn", "transformers", "tokenizers", "peft", "accelerate"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def shared(*, on_disk: bool, say: Callable[[str], None] = lambda line: None) -> Cache:
    """The cache that all runs of this user share, or one in memory. `say`: as in `Cache`."""
    return Cache(cache_folder() if on_disk else None, say=say)


def cache_folder() -> Path:
    """Where trained originals and references are kept: $UNRECALL_CACHE, or ~/.cache/unrecall."""
    named = os.environ.get("UNRECALL_CACHE")
    try:
        return Path(named) if named else Path.home() / ".cache" / "unrecall"
    except RuntimeError as error:  # neither HOME nor an entry of this user
        raise BadInput("cache: expected UNRECALL_CACHE or a home folder, got neither. Set UNRECALL_CACHE.") from error


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


ARRAYS: Form[dict[str, np.ndarray]] = Form(".npz", _write_arrays, _read_arrays)


def _json_form(dump: Callable[[T], str], load: Callable[[str], T]) -> Form[T]:
    def write(path: Path, value: T) -> None:
        path.write_text(dump(value), encoding="utf-8")

    return Form(".json", write, lambda path: load(read_text(path)))


JSON: Form[Any] = _json_form(json.dumps, json.loads)


def model_form(kind: type[M]) -> Form[M]:
    """Values of one pydantic class, as JSON."""
    return _json_form(kind.model_dump_json, kind.model_validate_json)
