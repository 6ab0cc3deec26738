"""Loose code is what stands in no file, as in a notebook: what it does hangs on all that it holds and names."""

import dis
import hashlib
import inspect
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple, TypeAlias

from unrecall.disk.numbers import numbers_in
from unrecall.errors import PACKAGE, of_user

HOLDERS = (staticmethod, classmethod, property, cached_property, type(cache(len)))
"""What a class's member can be that has a function inside."""
INSIDE = ("__wrapped__", "func", "fget", "fset", "fdel")
"""The attributes in which it stands there."""


class Imported(NamedTuple):
    """A module that code imports as it runs."""

    name: str


def is_loose(part: Any) -> bool:
    """Whether a class or function stands in no file: it was written in a notebook, at a prompt, by `exec`, or piped in.

    It stands in a file if the `__file__` of its module exists and, for a function, is also the file of its code (a
    debugger's copy of a cell has another). Installed code, and methods generated in a class of a file, are never loose.
    """
    if isinstance(part, type):
        name = part.__module__
        names = getattr(sys.modules.get(name), "__dict__", {})
    elif inspect.isfunction(part):
        names = part.__globals__
        name = names.get("__name__", "")
    else:
        return False
    file = names.get("__file__")
    if name == "__main__" and hasattr(sys, "ps1"):  # a prompt, which may have run a file before
        return True
    if not isinstance(file, str):
        return name not in sys.builtin_module_names
    if _installed(file) or not Path(file).is_file():  # such as "<stdin>"
        return not _installed(file)
    return not (isinstance(part, type) or _generated(part) or _same(file, part.__code__.co_filename))


def _generated(function: Any) -> bool:
    """Whether a function in a class of a file was written by what made the class, as `dataclass` does."""
    return bool(function.__name__.startswith("__") and function.__code__.co_filename.startswith("<"))


def _same(file: str, other: str) -> bool:
    return file == other or os.path.realpath(file) == os.path.realpath(other)


@cache
def _installed(file: str) -> bool:
    """Whether a module's file is a package's, of which the version counts, or unrecall's own."""
    return not of_user(Path(file))


def held_by(part: Any) -> list[Any]:
    """What a loose class or function holds and names: classes, functions, files of modules, and what it imports.

    Of each value there is also the sha256 of what `pickle` writes, which for classes and functions is their name. What
    it can't write gives other bytes each time, so that nothing that hangs on it is taken from a cache; this is said.
    """
    parts: list[Any] = []
    for name, value in (_members(part) if isinstance(part, type) else _named(part)).items():
        parts.append(name.encode() + _value_digest(part, name, value, parts))
    compiled = () if isinstance(part, type) else _codes(part.__code__)
    return parts + [Imported(module) for code in compiled for module in _names(code)[1]]


def functions(member: Any) -> list[Any]:
    """The function that a class's member is, or those inside it."""
    if isinstance(member, HOLDERS):
        return [inner for value in _inside(member) for inner in functions(value)]
    return [member] if inspect.isfunction(member) else []


def closed_over(function: Any) -> Iterator[Any]:
    """What a function closes over, but names that were never given a value."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            yield cell.cell_contents


def _members(kind: type) -> dict[str, Any]:
    """What a class was given: its functions and values, but not what Python itself keeps there."""
    reserved = {name for name in vars(kind) if name == "_abc_impl" or (name.startswith("__") and name.endswith("__"))}
    return {name: value for name, value in vars(kind).items() if name not in reserved or functions(value)}


def _named(function: Any) -> dict[str, Any]:
    """What a function has to hand as it runs: defaults, what it closes over, and the globals that its code reads."""
    own = {
        "its defaults": (function.__defaults__, function.__kwdefaults__),
        "what it closes over": list(closed_over(function)),
    }
    read = chain.from_iterable(_names(code)[0] for code in _codes(function.__code__))
    return own | {name: function.__globals__[name] for name in read if name in function.__globals__}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Compiled code and all that stands inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@cache
def _names(code: CodeType) -> tuple[list[str], list[str]]:
    """The globals that code reads, and the modules that it imports, those among their names that may be modules too."""
    read, imported, module = list[str](), list[str](), ""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.append(step.argval)
        elif step.opname == "IMPORT_NAME":
            module = step.argval
            imported.append(module)
        elif step.opname == "IMPORT_FROM":
            imported.append(f"{module}.{step.argval}")
    return read, imported


def _value_digest(part: Any, name: str, value: Any, code: list[Any]) -> bytes:
    """The sha256 of a value. Classes, functions and files inside it are appended to `code`."""
    try:
        return _digest(value, code, {})
    except Exception as error:  # whatever pickle, or an object's own code, raises
        _say(part.__qualname__, name, type(error).__name__)
        return os.urandom(32)


_Sets: TypeAlias = dict[int, tuple[Any, list[bytes] | None]]


def _digest(value: Any, code: list[Any], sets: _Sets) -> bytes:
    file = _Hashed()
    _Writer(file, code, sets).dump(value)
    return file.state.digest()


@cache
def _say(part: str, name: str, error: str) -> None:
    warnings.warn(
        f"{part}: nothing that hangs on it is taken from the cache, since {name} can't be told from other values "
        f"({error}). Put the code into a file.",
        stacklevel=2,
    )


class _Hashed:
    """A file of which nothing is kept but the sha256."""

    def __init__(self) -> None:
        self.state = hashlib.sha256()

    def write(self, data: Any) -> None:
        """Counts what would be written."""
        self.state.update(data)


class _Writer(pickle.Pickler):
    """Writes values to tell them apart, not to be read; code by its name alone, as it is appended to `code`.

    `sets`: each set that was met, by its id, and the digests of its elements; None while they are being made.
    """

    def __init__(self, file: _Hashed, code: list[Any], sets: _Sets) -> None:
        super().__init__(file)
        self.code = code
        self.sets = sets

    def persistent_id(self, value: Any) -> Any:
        """Writes a set in an order that is the same in each process; None for all else. It is asked for everything."""
        if not isinstance(value, set | frozenset):
            return None
        if id(value) not in self.sets:
            self.sets[id(value)] = value, None
            self.sets[id(value)] = value, sorted(_digest(element, self.code, self.sets) for element in value)
        elements = self.sets[id(value)][1]
        if elements is None:
            raise ValueError("a set that holds itself")
        return type(value), elements, getattr(value, "__dict__", None)

    def reducer_override(self, value: Any) -> Any:
        """Writes a stand-in that tells values apart; it is never read back."""
        if isinstance(value, ModuleType):
            self.code += _files(value)
            return repr, (value.__name__,)
        if isinstance(value, type) or inspect.isfunction(value):
            self.code.append(value)
            return repr, (value.__qualname__,)
        if isinstance(value, HOLDERS):
            return repr, (_inside(value),)
        if inspect.isgetsetdescriptor(value) or inspect.ismemberdescriptor(value):
            return repr, (value.__name__,)
        numbers = numbers_in(value)
        return NotImplemented if numbers is None else (repr, (numbers,))


def _inside(holder: Any) -> list[Any]:
    return [inner for name in INSIDE if (inner := getattr(holder, name, None)) is not None]


def _files(module: ModuleType) -> list[Path]:
    """The file of a module of unrecall's or the user's own, or all files of a package; none of an installed one."""
    file = vars(module).get("__file__")
    return _files_at(file if isinstance(file, str) else "", tuple(vars(module).get("__path__") or ()))


@cache
def _files_at(file: str, folders: tuple[str, ...]) -> list[Path]:
    """The same of a module in this file, or of a package in these folders, as they were at the first key."""
    ours = [Path(folder) for folder in folders if _counts(Path(folder))]
    files = [path for folder in ours for path in folder.rglob("*.py")] if folders else [Path(file)] if file else []
    return [path for path in map(Path.resolve, files) if _counts(path)]


def _counts(path: Path) -> bool:
    """Whether a file or folder is unrecall's or the user's own."""
    return path.resolve().is_relative_to(PACKAGE) or of_user(path)
