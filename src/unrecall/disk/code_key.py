"""A key of code: what decides the results of classes and functions, besides what they are given."""

import ast
import hashlib
import inspect
import marshal
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, fields, is_dataclass
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from unrecall.disk.files import (
    content_key,
    exists,
    file_key,
)
from unrecall.disk.notebook_code import Imported, closed_over, functions, held_by, is_loose
from unrecall.errors import INSTALLED, PACKAGE, of_user


def code_key(*owners: Any) -> str:
    """sha256 of the code that decides what these classes, functions or objects compute.

    Counted: their files and those of their base classes; every file of unrecall or the user that these import, directly
    or through others; an object's parameters, with arrays, the code of those that have parameters of their own, and the
    files and folders that texts among them name; the numbers, texts and parameters that a function closes over. A file
    counts as it was when it was last loaded, since a later edit doesn't run yet. Code that stands in no file, as in a
    notebook, counts by all that it holds and names (`held_by`). Installed packages count by version (`environment`).

    Not counted: what stands in lists and mappings that a function closes over, files that code opens by itself, and
    variables of the environment.
    """
    state = hashlib.sha256()
    sources: set[Path] = set()
    whole = [part for owner in owners for part in _parts(owner.__self__ if inspect.ismethod(owner) else owner)]
    for name in sorted({name for owner in whole for name in _texts(owner) if exists(name)}):
        state.update(path_key(Path(name)).encode())
    for array in (value for owner in whole for _, value in _parameters(owner) if hasattr(value, "__array__")):
        state.update(np.ascontiguousarray(array).tobytes())  # of which the text of a parameter shows a part
    for value in (value for part in whole if inspect.isfunction(part) for value in closed_over(part)):
        if _is_plain(value):
            state.update(repr(value).encode())
    for part in whole:
        sources.update(_sources(part))
        if inspect.isfunction(part):  # a file may hold several
            state.update(_compiled(part.__code__))
        elif isinstance(part, bytes):
            state.update(part)
    for _, digest in sorted(_needed(*sources).items()):
        state.update(digest)
    return state.hexdigest()


def _parts(owner: Any) -> list[Any]:
    """An object, its class, its parameters that have parameters or code of their own, and the code that these hold.

    Of what stands in no file there is all that it holds and names too (see `held_by`).
    """
    parts: list[Any] = []
    waiting = [owner]
    while waiting:
        part = waiting.pop()
        if any(part is other for other in parts):
            continue
        parts.append(part)
        values = [value for _, value in _parameters(part)]
        values += [value for by_name in values if isinstance(by_name, Mapping) for value in by_name.values()]
        waiting += [value for value in values if is_dataclass(value) or inspect.isfunction(value)]
        if isinstance(part, type):
            waiting += part.__mro__
            waiting += _methods(part)
        elif inspect.isfunction(part):
            waiting += filter(inspect.isfunction, closed_over(part))
        elif not isinstance(part, bytes | Path | Imported):
            waiting.append(type(part))
        if is_loose(part):
            waiting += held_by(part)
    return parts


def _methods(kind: type) -> list[Any]:
    """A class's functions, where it stands in no installed file: one from before a reload isn't what the file says."""
    source = _source(kind)
    members = () if source and not of_user(source) else vars(kind).values()
    return [function for member in members for function in functions(member)]


def _is_plain(value: Any) -> bool:
    """Whether the text of a value says all of it: numbers, texts, and objects whose parameters are such."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(own) for _, own in _parameters(value))
    return value is None or isinstance(value, bool | int | float | str)


def _texts(owner: Any) -> Iterator[str]:
    """The parameters of an object that can be the path of a file: texts that are no choice among a few."""
    for parameter, value in _parameters(owner):
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and "Literal" not in str(parameter.type):
                yield str(text)


def _parameters(owner: Any) -> list[tuple[Field[Any], Any]]:
    """The fields of an object with parameters, and their values; none of anything else, classes too."""
    if isinstance(owner, type) or not is_dataclass(owner):
        return []
    return [(parameter, getattr(owner, parameter.name, None)) for parameter in fields(owner)]


def _source(part: Any) -> Path | None:
    """The file in which a class or function stands; None for what stands in none."""
    try:
        source = inspect.getsourcefile(part)
    except (TypeError, OSError):
        return None
    return None if source is None or not Path(source).is_file() else _resolved(source)


def _sources(part: Any) -> Iterable[Path]:
    """The files of a class or function, or of what code in no file imports."""
    if isinstance(part, Path):
        return [part]
    if isinstance(part, Imported):
        return _files_of([(0, part.name)], Path.cwd() / "notebook")
    source = _source(part)
    return [] if source is None else [source]


def _compiled(code: CodeType) -> bytes:
    """A function as Python compiled it, wherever it stands.

    In the second format of marshal: later ones also write which parts others hold at the moment, which running changes.
    """
    inner = tuple(_compiled(part) if isinstance(part, CodeType) else part for part in code.co_consts)
    return marshal.dumps(code.replace(co_filename="", co_firstlineno=1, co_linetable=b"", co_consts=inner), 2)


class _Text(NamedTuple):
    """A file of code as it was read: its sha256, the files that it imports, and which loading of it that was after.

    `owners`: the objects whose ids are in `loading`, so that they stay alive and no new one gets the same id.
    """

    digest: bytes
    imports: tuple[Path, ...]
    loading: tuple[int, ...]
    owners: list[object]


_READ: dict[Path, _Text] = {}


def _needed(*starts: Path) -> dict[Path, bytes]:
    """These files and all files of unrecall and of the user that they need, each with its sha256; see `_read`."""
    needed, waiting, modules = dict[Path, bytes](), list(starts), _modules_of(tuple(sys.modules))
    while waiting:
        path = waiting.pop()
        if path not in needed:
            text = _read(path, modules.get(path, ()))
            needed[path] = text.digest
            waiting += text.imports
    return needed


def _read(path: Path, modules: Sequence[str]) -> _Text:
    """A file as it stood at the first key after it was last loaded or reloaded, as any of these modules.

    What is edited later doesn't run before it is reloaded, so it doesn't count before. A file of which no module was
    loaded counts as it stands now.
    """
    loaded = [vars(sys.modules[name]) for name in modules if name in sys.modules]
    owners = [part for names in loaded for part in (names, names.get("__spec__"))]  # a reload gives another spec
    loading = tuple(map(id, owners)) or _stamp(path)
    text = _READ.get(path)
    if text is None or text.loading != loading:
        exists = path.is_file()
        digest = hashlib.sha256(path.read_bytes() if exists else b"").digest()
        text = _READ[path] = _Text(digest, _imports(path) if exists else (), loading, owners)
    return text


def _stamp(path: Path) -> tuple[int, ...]:
    """When a file was last written, and how long it is; nothing of one that isn't there."""
    with suppress(OSError):
        state = path.stat()
        return state.st_mtime_ns, state.st_size
    return ()


@lru_cache(maxsize=1)
def _modules_of(names: tuple[str, ...]) -> dict[Path, list[str]]:
    """The modules of these names by the file that each was loaded from; of installed packages unrecall's alone."""
    by_file: dict[Path, list[str]] = {}
    installed = tuple(f"{home}{os.sep}" for home in INSTALLED)
    for name in names:
        file = getattr(sys.modules.get(name), "__dict__", {}).get("__file__")
        if isinstance(file, str) and (name.startswith("unrecall") or not file.startswith(installed)):
            by_file.setdefault(_resolved(file), []).append(name)
    return by_file


@cache
def _resolved(file: str) -> Path:
    return Path(file).resolve()


def own_files(start: Path) -> set[Path]:
    """A user's Python file, and the user's other files that it needs."""
    return {path for path in _needed(start.resolve()) if not path.is_relative_to(PACKAGE)}


def path_key(path: Path) -> str:
    """sha256 of a file, of a Python file and the user's files that it imports, or of a folder and all that is in it."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        return content_key(*(f"{file.relative_to(path)} {file_key(file)}" for file in inside))
    files = sorted(own_files(path)) if path.suffix == ".py" else [path]
    return file_key(path) if len(files) == 1 else content_key(*map(file_key, files))


def _imports(path: Path) -> tuple[Path, ...]:
    """The files of unrecall and of the user that a file imports anywhere; none of an installed package."""
    names: list[tuple[int, str]] = []
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # what imports it will say so
        return ()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = [node.module] if node.module else []
            names += [(node.level, ".".join(part)) for part in (module, *([*module, a.name] for a in node.names))]
        elif isinstance(node, ast.Import):
            names += [(0, alias.name) for alias in node.names]
    return _files_of(names, path)


def _files_of(names: Sequence[tuple[int, str]], path: Path) -> tuple[Path, ...]:
    """The files of unrecall and of the user in which modules stand that `path` imports, each by its dots and name."""
    ours = [PACKAGE.joinpath(*name.split(".")[1:]) for _, name in names if name.split(".")[0] == "unrecall"]
    files = {file for home in ours for file in _module_files(home)}
    if not path.is_relative_to(PACKAGE) and of_user(path):
        files |= {file for level, name in names for file in _own_module(path, level, name)}
    return tuple(sorted(files))


def _own_module(path: Path, level: int, name: str) -> Iterator[Path]:
    """The files of a module that a user's file imports, and of the packages around it; none of what is installed.

    `level`: the dots before its name.
    """
    words = name.split(".")
    if level:
        home = path.parents[min(level, len(path.parents)) - 1]
    else:
        module_spec = PathFinder.find_spec(words[0], [*sys.path, str(path.parent)])
        places = [] if module_spec is None else [*(module_spec.submodule_search_locations or ()), module_spec.origin]
        file = Path(places[0] or "").resolve() if places else None
        if file is None or not of_user(file) or words[0] == "unrecall":
            return
        home, words = file if file.is_dir() else file.with_suffix(""), words[1:]
    for count in range(len(words) + 1):
        yield from _module_files(home.joinpath(*words[:count]))


def _module_files(home: Path) -> Iterator[Path]:
    """The files that a module which stands at `home` can have: its own, or the first of a package."""
    return (file for file in (Path(f"{home}.py"), home / "__init__.py") if file.is_file())
