"""What decides what a user's function does: its code, and all that it took along when it was handed over."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from unrecall.data.examples import digest
from unrecall.disk.cache import closed_over, code_key
from unrecall.disk.files import content_key


def hook_key(hook: Callable[..., Any]) -> str:
    """A name for what `hook` does: 16 hex digits, others once its code or what it took along differs.

    That is what it closes over, its defaults, the arguments of a `functools.partial`, whose method it is and what that
    object holds; in all of them numbers, texts, arrays, lists, sets, mappings and further functions. Variables of its
    file count as the file does.
    """
    return content_key(*_parts(hook, {}))


def _parts(value: Any, earlier: dict[int, Any]) -> Iterator[str]:
    """A value in texts that tell it from others; `earlier`: what came before, by id, for some may hold each other."""
    if isinstance(value, str | bytes | int | float | bool | Tensor | np.ndarray | np.generic) or value is None:
        yield digest(value)
        return
    yield type(value).__qualname__
    if id(value) in earlier:
        yield f"again {list(earlier).index(id(value))}"
        return
    earlier[id(value)] = value
    if isinstance(value, Mapping):
        inside: list[Any] = [part for pair in value.items() for part in pair]
    elif isinstance(value, set | frozenset):
        inside = sorted(value, key=repr)
    elif isinstance(value, list | tuple):
        inside = list(value)
    else:
        yield from _code(value)
        inside = _taken_along(value)
    for part in inside:
        yield from _parts(part, earlier)


def _code(value: Any) -> Iterator[str]:
    """The code of a function or an object; the name of a class or of what Python itself brings."""
    if isinstance(value, ModuleType | type) or inspect.isbuiltin(value):
        yield getattr(value, "__qualname__", value.__name__)
    elif not inspect.ismethod(value) and not isinstance(value, functools.partial):
        yield code_key(value)


def _taken_along(value: Any) -> list[Any]:
    """What a function or an object holds; of a module, a class and what has no attributes, nothing."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if inspect.isfunction(value):
        return [*closed_over(value), value.__defaults__, value.__kwdefaults__]
    if isinstance(value, ModuleType | type):
        return []
    return [dict(vars(value))] if hasattr(value, "__dict__") else [repr(value).partition(" at 0x")[0]]
