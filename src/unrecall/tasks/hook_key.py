"""What decides what a user's function does: its code, and the values that it holds."""

import functools
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrecall.data.digests import digest
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.disk.notebook_code import closed_over
from unrecall.errors import BadInput

PLAIN = (str, bytes, int, float, bool, type(None))
"""Values whose text says all of them."""


def hook_key(hook: Callable[..., Any]) -> str:
    """16 hex digits that change when the hook's code, or a value that it holds, changes.

    It holds what it closes over, its defaults, the arguments of a `functools.partial`, whose method it is and what that
    object holds; in all of them numbers, texts, arrays, lists, sets, mappings and further functions. What it remembers
    of earlier calls counts too; of a logger its name. Variables of its file count as the file does. BadInput where it
    holds tensors without values, or what is nested too deep.
    """
    try:
        return content_key(*_parts(hook, {}))
    except (BadInput, RecursionError) as error:
        line = "lists or objects nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"hook: expected read and forward to hold what can be told from other values, got {line}") from (
            error
        )


def _parts(value: Any, earlier: dict[int, tuple[int, Any]]) -> Iterator[str]:
    """A value in texts that tell it from others; `earlier`: values before it, by id, as some hold each other."""
    if type(value) in PLAIN:
        yield repr(value)
        return
    yield type(value).__qualname__
    if isinstance(value, Tensor | np.ndarray | np.generic) or hasattr(value, "__array_interface__"):
        yield digest(value if isinstance(value, Tensor) else np.asarray(value))
        return
    if id(value) in earlier:
        yield f"again {earlier[id(value)][0]}"
        return
    earlier[id(value)] = len(earlier), value
    inside = _inside(value)
    if inside is None:
        yield from _code(value)
        inside = _held_values(value)
    if all(type(part) in PLAIN for part in inside):  # at once: a list may be long
        yield repr(inside)
        return
    for part in inside:
        yield from _parts(part, earlier)


def _inside(value: Any) -> list[Any] | None:
    """What a container holds, in an order of its own where it has none; None for anything else."""
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return list(value) if isinstance(value, list | tuple | deque) else None


def _code(value: Any) -> Iterator[str]:
    """The code of a function or an object; the name of a class or of what Python itself brings."""
    if isinstance(value, ModuleType | type) or inspect.isbuiltin(value):
        yield getattr(value, "__qualname__", value.__name__)
    elif not inspect.ismethod(value) and not isinstance(value, functools.partial):
        yield code_key(value)


def _held_values(value: Any) -> list[Any]:
    """What a function or an object holds; of a module, a class and what has no attributes, nothing."""
    owner = getattr(value, "__self__", None)
    if isinstance(value, functools.partial):
        held = [value.func, value.args, value.keywords]
    elif inspect.ismethod(value):
        held = [value.__func__, owner]
    elif inspect.isbuiltin(value):
        held = [] if isinstance(owner, ModuleType) else [owner]
    elif inspect.isfunction(value):
        held = [*closed_over(value), value.__defaults__, value.__kwdefaults__]
    elif isinstance(value, logging.Logger):
        held = [value.name]
    elif isinstance(value, torch.Generator):
        held = [value.get_state()]
    elif isinstance(value, ModuleType | type):
        held = []
    else:
        slots = chain.from_iterable(getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
        own = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        attributes = dict(getattr(value, "__dict__", {})) | own
        held = [attributes] if attributes else [repr(value).partition(" at 0x")[0]]
    return held
