"""Examples, and batches of them; nothing here knows a modality."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from functools import cache, cached_property
from inspect import getattr_static
from numbers import Integral
from os import PathLike
from os.path import normpath
from pathlib import Path, PurePath
from pickle import PickleError
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from unrecall.errors import BadInput

Batch: TypeAlias = dict[str, Tensor]
"""Named tensors that share their first dimension: one entry an example. Only a task knows the names."""


class Examples(Protocol):
    """A map-style data set, as PyTorch has them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Absent:
    """No examples, and why there are none: `ur.Absent("every picture of hers was trained on")`.

    It stands in the place of a holdout or a test set. What needs that set is then a row with this reason.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int, /) -> Any:
        raise IndexError(index)


class Selection:
    """Some examples of a data set, by index; its own indices start at 0. BadInput for an index that it hasn't."""

    def __init__(self, whole: Examples, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, list(indices)
        check_indices("Selection", self.indices)
        outside = next((i for i in self.indices if not 0 <= i < len(whole)), None)
        if outside is not None:
            raise BadInput(
                f"Selection: expected indices in 0..{len(whole) - 1}, got {outside}. Name examples that are there."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        return self.whole[self.indices[index]]

    def __getitems__(self, indices: Sequence[int], /) -> Sequence[Any]:
        return several(self.whole, [self.indices[i] for i in indices])


def check_indices(owner: str, indices: Any) -> None:
    """BadInput where what picks examples are truth values, or anything else that are no whole numbers in order."""
    if not isinstance(indices, Sequence | np.ndarray | Tensor):
        kind = type(indices).__name__
        raise BadInput(f"{owner}: expected indices in a list, got {kind}. Give list(indices).")
    for value in map(plain, indices):
        if isinstance(value, bool) or not isinstance(value, Integral):
            advice = "[i for i, chosen in enumerate(mask) if chosen]" if isinstance(value, bool) else "[3, 17, ...]"
            raise BadInput(f"{owner}: expected indices, got {value!r:.40}. Give whole numbers: {advice}.")


def plain(value: Any) -> Any:
    """A number or a text of NumPy's or PyTorch's as Python's own, anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def several(examples: Examples, indices: Sequence[int]) -> Sequence[Any]:
    """These examples: at once where the data set can (`__getitems__`, as PyTorch has it), else one by one."""
    if not _at_once(type(examples)):
        return [examples[i] for i in indices]
    items: Sequence[Any] = examples.__getitems__(indices)  # type: ignore[attr-defined]
    return items


@cache
def _at_once(kind: type) -> bool:
    """Whether a class gives several examples at once, as its own `__getitem__` would give each of them.

    A subclass may have changed that alone, and still inherits the other.
    """
    first = next((base for base in kind.__mro__ if {"__getitem__", "__getitems__"} & vars(base).keys()), object)
    return "__getitems__" in vars(first)


def split(data: Examples, chosen: Iterable[int | str | PathLike[str]]) -> tuple[Selection, Selection]:
    """What must go and what stays: the chosen examples of a data set, in their order there, and all others.

    `chosen`: indices; or, where the data set knows its files (`samples`, pairs of a path and a class, as torchvision's
    ImageFolder has them), names of files, and of folders for all that lies in them, below the data set's `root`.
    BadInput for an index or a name that it hasn't, and where nothing or everything is chosen.
    """
    several = isinstance(chosen, Iterable) and not isinstance(chosen, str | PathLike)
    names = getattr(chosen, "tolist", lambda: list(chosen) if several else chosen)()
    names = names if isinstance(names, list) else [names]
    below: dict[str, list[int]] | None = None
    indices = set[int]()
    for name in names:
        if isinstance(name, Integral) and not isinstance(name, bool):
            indices.add(int(name))
            continue
        if not isinstance(name, str | PathLike):
            raise BadInput(
                f"split: expected indices or names of files, got {name!r:.40}. Give whole numbers: [3, 17, ...]."
            )
        if below is None:
            below = _places_of_files(data, name)
        indices.update(_places_of(data, name, below))
    first, rest = Selection(data, sorted(indices)), Selection(data, sorted({*range(len(data))} - indices))
    if not len(first) or not len(rest):
        raise BadInput(f"split: expected some of {len(data)} examples, not all, got {len(first)}. Choose others.")
    return first, rest


def file_of(examples: Examples, index: int) -> str:
    """The file that an example was read from, below its data set's root; empty where the data set knows no files."""
    if isinstance(examples, Selection):
        return file_of(examples.whole, examples.indices[index])
    samples, root = getattr(examples, "samples", None), getattr(examples, "root", None)
    sample = samples[index] if isinstance(samples, list | tuple) and index < len(samples) else None
    match sample:
        case (str() | PathLike() as name, Integral()):
            file, top = Path(name), Path(root) if isinstance(root, str | PathLike) else Path()
            return str(file.relative_to(top) if file.is_relative_to(top) else file)
    return ""


def _places_of_files(data: Examples, name: str | PathLike[str]) -> dict[str, list[int]]:
    """The places in a data set of each file, and of all files below each folder, by its real path."""
    files = getattr(data, "samples", None)
    if files is None:
        raise BadInput(
            f"split: expected indices, for {type(data).__name__} has no samples that name its files, got '{name}'. "
            "Give [i for i in range(len(data)) if ...]."
        )
    places: dict[str, list[int]] = {}
    real = cache(Path.resolve)
    for i, (file, *_) in enumerate(files):
        path = real(Path(file))  # a link lies where it leads to, and where it is
        for part in {path, *path.parents, *map(real, Path(normpath(Path(file).absolute())).parents)}:
            places.setdefault(str(part), []).append(i)
    return places


def _places_of(data: Examples, name: str | PathLike[str], below: Mapping[str, list[int]]) -> list[int]:
    """The places of the file of that name, or of all files below that folder: below the data set's root, or anywhere.

    `below`: those of all files and folders.
    """
    root = Path(getattr(data, "root", ""))
    for path in (root / name, Path(name)):
        if places := below.get(str(path.resolve())):
            return places
    files = [Path(file) for file, *_ in getattr(data, "samples", ())]
    names = [str(file.relative_to(root)) for file in files if root in file.parents]
    close = get_close_matches(str(name), names, n=1, cutoff=0.6) or names[:1]
    raise BadInput(f"split: expected a file or folder of the data set, got '{name}'. They have names such as {close}.")


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of the indices 0..n-1, evenly spread."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, most)).round()]


def iterate(examples: Examples) -> Iterator[Any]:
    """The examples in order; `__getitem__` and `__len__` are all that a data set needs."""
    return (examples[i] for i in range(len(examples)))


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
        held = {field.name: getattr(item, field.name) for field in fields(kind)} | _attributes(item)
        return {name: value for name, value in held.items() if name not in caches}
    if isinstance(item, Set):
        return sorted(map(digest, item))
    numbers = np.asarray(item)
    if hasattr(item, "getpalette") and item.mode in PALETTE_MODES:
        return [item.mode, item.getpalette(None), item.info.get("transparency"), numbers]
    if numbers.ndim or not numbers.dtype.hasobject:
        return numbers
    kept = item.__reduce_ex__(2)
    if isinstance(kept, str):
        return kept
    _, values, *states = kept
    parts = [list(state) if isinstance(state, Iterator) else _without(caches, state) for state in states]
    return [kind.__qualname__, [value for value in values if not isinstance(value, type)], *parts]


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


def batch_size(batch: Batch) -> int:
    """How many examples a batch holds."""
    return len(next(iter(batch.values())))


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def repeat(batch: Batch, times: int) -> Batch:
    """Each example `times` times in a row: [a, b] -> [a, a, b, b]."""
    return {name: value.repeat_interleave(times, 0) for name, value in batch.items()}


def concatenated(batches: Sequence[Batch]) -> Batch:
    """Several batches, one after another, as one, on the device of the last."""
    return {name: torch.cat([batch[name].to(value.device) for batch in batches]) for name, value in batches[-1].items()}


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """The examples of a batch in `count` batches, as equal as can be, in their order."""
    split = {name: torch.tensor_split(value, count) for name, value in batch.items()}
    return [{name: values[i] for name, values in split.items()} for i in range(count)]


class Joined:
    """Several data sets, one after another."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int, /) -> object:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


def split_off(examples: Examples, first: int, generator: torch.Generator) -> tuple[Selection, Selection]:
    """The `first` examples of a random order, and the rest of it."""
    order = torch.randperm(len(examples), generator=generator).tolist()
    return Selection(examples, order[:first]), Selection(examples, order[first:])
