"""What tells two hooks apart, and what doesn't."""

import functools
import logging
import operator
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unrecall.errors import BadInput
from unrecall.tasks import Classification
from unrecall.tasks.hook_key import hook_key


def by_list(names: list[str]) -> Callable[[Any], Any]:
    return lambda item: (item[0], names.index(item[1]))


def by_mapping(places: dict[str, int]) -> Callable[[Any], Any]:
    return lambda item: (item[0], places[item[1]])


def by_keyword(flip: bool) -> Callable[..., Any]:
    def read(item: Any, *, flip: bool = flip) -> Any:
        return (item[0], item[1] if flip else 1 - item[1])

    return read


def by_function(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda item: inner(item)[::1]


def flipped(item: Any, flip: bool) -> Any:
    return (item[0], 1 - item[1] if flip else item[1])


class Reader:
    def __init__(self, names: Any) -> None:
        self.names, self.itself = names, self

    def __call__(self, item: Any) -> Any:
        return (item[0], self.names.index(item[1]))

    def read(self, item: Any) -> Any:
        return self(item)


class Slotted:
    __slots__ = ("places",)

    def __init__(self, places: Any) -> None:
        self.places = places

    def __call__(self, item: Any) -> Any:
        return (item[0], self.places[item[1]])


def test_what_a_hook_took_along_decides_its_key() -> None:
    pairs: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (by_list(["a", "b"]), by_list(["b", "a"])),
        (by_mapping({"a": 0, "b": 1}), by_mapping({"a": 1, "b": 0})),
        (by_keyword(True), by_keyword(False)),
        (by_function(by_list(["a"])), by_function(by_list(["b"]))),
        (functools.partial(flipped, flip=True), functools.partial(flipped, flip=False)),
        (Reader(["a", "b"]), Reader(["b", "a"])),
        (Reader(["a", "b"]).read, Reader(["b", "a"]).read),
        (Reader(np.array([1, 2])), Reader(np.array([2, 1]))),
        (Reader(torch.tensor([1.0])), Reader(torch.tensor([2.0]))),
        (Reader({"a", "b"}), Reader({"a", "c"})),
        (operator.itemgetter(0), operator.itemgetter(1)),
        (Reader.read, Reader.__call__),
        (["a", "b"].index, ["b", "a"].index),
        ({"a": 0, "b": 1}.get, {"a": 1, "b": 0}.get),
        (Slotted({"a": 0}), Slotted({"a": 1})),
        (Reader(deque([np.zeros(2000)])), Reader(deque([np.ones(2000)]))),
        (Reader(torch.Generator().manual_seed(0)), Reader(torch.Generator().manual_seed(1))),
        (Reader(Image.new("L", (4, 4), 0)), Reader(Image.new("L", (4, 4), 1))),
    ]
    keys = [hook_key(hook) for pair in pairs for hook in pair]
    assert len({*keys}) == len(keys)


def test_the_same_hook_has_the_same_key() -> None:
    for make in (
        lambda: by_list(["a", "b"]),
        lambda: Reader({"b", "a"}),
        lambda: functools.partial(flipped, flip=True),
    ):
        assert hook_key(make()) == hook_key(make())
    names = ["a", "b"]
    task = Classification(read=by_list(names))
    before = repr(task)
    names.append("c")
    assert repr(task) == before, "what a hook holds may change as it runs"
    assert repr(replace(task, classes=("x",))).split("read=")[1] == before.split("read=")[1], "handed on"
    assert repr(replace(task, read=by_list(names))) != before
    assert repr(pickle.loads(pickle.dumps(Classification(read=Reader(["a"]))))) == repr(
        Classification(read=Reader(["a"]))
    )


def test_no_other_logger_of_the_process_counts() -> None:
    before = hook_key(Reader(logging.getLogger("unrecall.test")))
    logging.getLogger("unrecall.another one")
    assert hook_key(Reader(logging.getLogger("unrecall.test"))) == before


def test_what_can_not_be_told_apart_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    for value in (deep, torch.zeros(2, device="meta")):
        with pytest.raises(BadInput, match="hook: expected read and forward to hold what can be told from other"):
            hook_key(Reader(value))
