"""Data sets, their parts, and several as one; nothing here knows a modality."""

from collections.abc import Iterator, Sequence
from functools import cache
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unrecall.errors import BadInput


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


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of the indices 0..n-1, evenly spread."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, most)).round()]


def iterate(examples: Examples) -> Iterator[Any]:
    """The examples in order; `__getitem__` and `__len__` are all that a data set needs."""
    return (examples[i] for i in range(len(examples)))


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
