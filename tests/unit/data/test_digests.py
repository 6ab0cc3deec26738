"""What an example holds tells it from others, whatever holds it."""

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unrecall.data.digests import digest, is_finite
from unrecall.errors import BadInput

DATA = [(torch.tensor([float(i)]), i % 2) for i in range(6)]


def test_keys_of_two_kinds_are_told_apart() -> None:
    assert digest({1: "a", "b": 2}) == digest({"b": 2, 1: "a"}) != digest({"1": "a", "b": 2})


@dataclass
class Sample:
    input: Any
    label: int = 0


class Slotted:
    __slots__ = ("input",)

    def __init__(self, input: Any) -> None:
        self.input = input


def coloured(colour: tuple[int, ...]) -> Image.Image:
    picture = Image.new("P", (2, 2), 0)
    picture.putpalette([*colour, *(0,) * 765])
    return picture


@pytest.mark.parametrize("holding", [Sample, Slotted, SimpleNamespace, lambda input: {"a": [Sample(input)]}])
def test_objects_are_told_apart_by_all_that_they_hold(holding: Callable[..., object]) -> None:
    """PyTorch's `repr` leaves out the middle of a long tensor, and shows four digits of a number."""
    long, other = torch.zeros(2000), torch.zeros(2000)
    other[1000] = 1e-6
    assert digest(holding(input=long)) == digest(holding(input=long.clone())) != digest(holding(input=other))
    other[1000] = torch.nan
    assert is_finite(holding(input=long)) and not is_finite(holding(input=other))


class Captioned(Sample):
    def __init__(self, input: Any, caption: str) -> None:
        super().__init__(input)
        self.caption = caption


def test_a_dataclass_holds_what_its_subclass_or_anybody_adds_too() -> None:
    assert digest(Captioned(1, "a cat")) == digest(Captioned(1, "a cat")) != digest(Captioned(1, "a dog"))
    plain, noted = Sample(1), Sample(1)
    vars(noted).update(note="seen twice")
    assert digest(plain) == digest({"input": 1, "label": 0}) != digest(noted)


class Lazy:
    def __init__(self, number: int) -> None:
        self.number = number

    @cached_property
    def image(self) -> torch.Tensor:
        return torch.full((2,), float(self.number))


@dataclass
class LazyFields:
    number: int
    pixels: torch.Tensor | None = field(default=None, init=False, compare=False)

    @property
    def image(self) -> torch.Tensor:
        self.pixels = torch.full((2,), float(self.number))
        return self.pixels


class LazyState(LazyFields):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.cache: dict[str, torch.Tensor] = {}

    @property
    def image(self) -> torch.Tensor:
        return self.cache.setdefault("image", torch.full((2,), float(self.number)))

    def __getstate__(self) -> dict[str, int]:
        return {"number": self.number}


@pytest.mark.parametrize("kind", [Lazy, LazyFields, LazyState, dataclass(Lazy)])
def test_what_is_filled_in_on_first_reading_is_no_part_of_an_example(kind: Callable[[int], Any]) -> None:
    example, before = kind(1), digest(kind(1))
    assert float(example.image.sum()) == 2
    assert digest(example) == before != digest(kind(2))


def test_a_field_that_is_given_counts_though_nobody_compares_it() -> None:
    """`==` of tensors is no truth value, so that their fields are often left out of it."""
    pictured = make_dataclass("Pictured", ["label", ("input", torch.Tensor, field(compare=False))])
    assert digest(pictured(1, torch.zeros(2))) != digest(pictured(1, torch.ones(2)))


def test_pictures_of_other_colours_and_sets_are_told_apart() -> None:
    red, green = coloured((255, 0, 0)), coloured((0, 255, 0))
    assert digest((red, 1)) == digest((red.copy(), 1)) != digest((green, 1))
    for mode in ("L", "RGB", "LA", "CMYK", "YCbCr", "I;16"):
        picture = Image.new(mode, (2, 2))
        assert digest(picture) == digest(np.asarray(picture)), f"{mode}: its numbers say all, and are its key"
    assert digest({"a", "b"}) == digest({"b", "a"}) != digest({"a", "c"})


def test_keys_are_what_they_were() -> None:
    """Of these `repr` says all; what is kept on disk under their keys stays valid."""
    for item in (Path("a.png"), date(2026, 1, 2), Decimal("1.50"), 3 + 2j, None, True, "a"):
        assert digest(item) == sha256(f"{item!r};".encode()).hexdigest()


@pytest.mark.parametrize("held", [lambda: 0, Sample, (i for i in range(3))])
def test_what_tells_no_content_is_refused(held: object) -> None:
    with pytest.raises(BadInput, match=r"example: expected tensors, .* got Sample, whose content can't be read \("):
        digest(Sample(held))


def test_what_holds_itself_is_refused() -> None:
    ring = SimpleNamespace()
    ring.own = ring
    with pytest.raises(BadInput, match=r"SimpleNamespace, whose content can't be read [(]it holds itself"):
        digest(ring)
