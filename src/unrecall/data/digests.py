"""What an example holds: its digest, the forms of its numbers, and whether these are finite."""

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cache, cached_property
from inspect import getattr_static
from pathlib import PurePath
from pickle import PickleError
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrecall.errors import BadInput

UNREADABLE = (AttributeError, NotImplementedError, PickleError, RecursionError, TypeError, ValueError)
"""What objects raise that don't tell what they hold."""


def digest(item: Any) -> str:
    """sha256 of an example, whatever it is made of: tensors, arrays, numbers, strings, and what holds such.

    BadInput for what holds what can't be read, as a function or an open file, or itself.
    """
    state = hashlib.sha256()
    try:
        for part in _bytes(item):
            state.update(part)
    except UNREADABLE as error:
        reason = "it holds itself" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise BadInput(
            "example: expected tensors, arrays, numbers, texts and pictures, or tuples, dicts and dataclasses of them, "
            f"got {type(item).__name__}, whose content can't be read ({reason:.200}). Give one of these in the data "
            "set's [i]."
        ) from error
    return state.hexdigest()


TOLD_BY_REPR = (str, bytes, int, float, type(None), PurePath, date, Decimal, Enum)
"""Classes whose objects' `repr` says all that they hold."""

PALETTE_MODES = ("P", "PA")
"""Pillow's modes of pictures whose numbers are places in a palette."""


_dtype_name = cache(str)
"""How NumPy calls a number format, which takes it as long as to hash a small picture."""


def _bytes(item: Any) -> Iterator[Any]:
    """An example as what a hash takes: bytes, and arrays of them."""
    if isinstance(item, Tensor):
        item = _array(item)
    if isinstance(item, np.ndarray | np.generic):
        if item.ndim == 0:
            yield from _bytes(item.item()) if item.dtype.hasobject else [f"{item.item()!r};".encode()]
        else:
            yield f"{_dtype_name(item.dtype)}{item.shape}".encode()
            if item.dtype.hasobject:
                yield from _bytes(item.tolist())
            else:
                yield np.ascontiguousarray(item).reshape(-1).view(np.uint8)
    elif isinstance(item, Mapping):
        for key in sorted(item, key=lambda key: (type(key).__name__, key)):
            yield f"{key!r}:".encode()
            yield from _bytes(item[key])
    elif isinstance(item, list | tuple):
        yield f"{len(item)}(".encode()
        for part in item:
            yield from _bytes(part)
    elif isinstance(item, TOLD_BY_REPR):
        yield f"{item!r};".encode()
    else:
        yield from _bytes(_content(item))


def _content(item: Any) -> Any:
    """What an item of any other class holds, but caches: its attributes, its numbers, or what pickle would keep of it.

    A class says itself what that is by `__getstate__`.
    """
    kind: type = type(item)
    caches = _caches(kind)
    if is_dataclass(kind) and getattr(kind.__getstate__, "__module__", None) in (None, "dataclasses"):
        values = {field.name: getattr(item, field.name) for field in fields(kind)} | _attributes(item)
        return {name: value for name, value in values.items() if name not in caches}
    if isinstance(item, Set):
        return sorted(map(digest, item))
    numbers = np.asarray(item)
    if hasattr(item, "getpalette") and item.mode in PALETTE_MODES:
        return [item.mode, item.getpalette(None), item.info.get("transparency"), numbers]
    if numbers.ndim or not numbers.dtype.hasobject:
        return numbers
    reduction = item.__reduce_ex__(2)
    if isinstance(reduction, str):
        return reduction
    _, arguments, *states = reduction
    parts = [list(state) if isinstance(state, Iterator) else _without(caches, state) for state in states]
    return [kind.__qualname__, [value for value in arguments if not isinstance(value, type)], *parts]


@cache
def _caches(kind: type) -> Set[str]:
    """The attributes that objects of a class fill in by themselves: cached properties, and fields nobody compares.

    A field that is given is none: tensors aren't compared either, as their `==` is no truth value.
    """
    own = {field.name for field in fields(kind) if not (field.init or field.compare)} if is_dataclass(kind) else set()
    return own | {name for name in dir(kind) if isinstance(getattr_static(kind, name, None), cached_property)}


def _without(names: Set[str], state: Any) -> Any:
    """What pickle would keep of an object, but for attributes of these names."""
    if isinstance(state, tuple):
        return tuple(_without(names, part) for part in state)
    if isinstance(state, dict) and not names.isdisjoint(state):
        return {name: value for name, value in state.items() if name not in names} or None
    return state


def _attributes(item: object) -> dict[str, Any]:
    """All that an object itself holds, in its dictionary and in slots."""
    state: Any = object.__getstate__(item)
    parts = state if isinstance(state, tuple) else (state,)
    return {name: value for part in parts for name, value in (part or {}).items()}


def _array(tensor: Tensor) -> np.ndarray:
    """A tensor's values; BadInput where it holds none, or not all of them. NumPy has no bfloat16: its bytes."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        form = "meta" if tensor.is_meta else str(tensor.layout if tensor.layout != torch.strided else tensor.dtype)
        raise BadInput(
            f"example: expected tensors that hold every value, got one of {form.removeprefix('torch.')}. Load it, or "
            "make it dense and of floats, in the data set's [i]."
        )
    values = tensor.detach().cpu().contiguous()
    try:
        return values.numpy()
    except TypeError:
        return values.reshape(-1).view(torch.uint8).numpy()


class NumberForm(NamedTuple):
    """The format of numbers, and how many dimensions their array has; none for a single number."""

    format: str
    dimensions: int = 0

    def __str__(self) -> str:
        return f"{self.format} of {self.dimensions} dimensions" if self.dimensions else self.format


def number_forms(item: Any, place: str = "") -> Iterator[tuple[tuple[str, int], NumberForm]]:
    """The form of each number and array of an example, by its place there, as `[1]`, and how many dimensions it spans.

    Only what spans as many may be the same: a dimension of length 1 spans none. Floats that are no whole numbers are
    left out: no integer equals them.
    """
    if isinstance(item, Mapping):
        for key in item:
            yield from number_forms(item[key], f"{place}[{key!r}]")
    elif isinstance(item, list | tuple):
        for i, part in enumerate(item):
            yield from number_forms(part, f"{place}[{i}]")
    elif isinstance(item, Tensor | np.ndarray) and item.ndim:
        spanned = sum(length != 1 for length in item.shape)
        yield (place, spanned), NumberForm(str(item.dtype).removeprefix("torch."), item.ndim)
    elif isinstance(item, Tensor | np.ndarray | np.generic | int | float):
        value = item if isinstance(item, int | float) else item.item()
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            yield (place, 0), NumberForm(type(value).__name__)


def not_finite(where: str) -> BadInput:
    """What to raise where an example holds NaN or infinity; `where`: which one, as forget[5]."""
    return BadInput(f"{where}: expected finite inputs, got NaN or infinity. Remove the example.")


def is_finite(item: Any) -> bool:
    """Whether an example, whatever it is made of, holds no NaN and no infinity."""
    if isinstance(item, Tensor):
        return bool(item.isfinite().all())
    if isinstance(item, Mapping):
        return all(map(is_finite, item.values()))
    if isinstance(item, list | tuple | Set):
        return all(map(is_finite, item))
    if isinstance(item, np.ndarray | np.generic | float):
        array = np.asarray(item)
        if array.dtype.hasobject:
            return is_finite(array.tolist())
        return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
    return isinstance(item, TOLD_BY_REPR) or is_finite(_content(item))
