"""What a line such as "half:3" has forgotten, and the request that follows from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from unrecall.data.examples import Examples, Selection
from unrecall.data.request import Request
from unrecall.disk.files import read_text
from unrecall.errors import BadInput
from unrecall.training.randomness import seeded

T = TypeVar("T")
LONGEST_NUMBER = 18
"""The longest number that is read as an index or a class."""


def read_indices(path: Path, total: int) -> list[int]:
    """Indices from a text file, one a line; BadInput names the line of one that is no number, repeated or too large."""
    lines: dict[int, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.isdecimal() or len(text) > LONGEST_NUMBER:
            raise BadInput(f"{path}:{number}: expected an index, got '{text[:LONGEST_NUMBER]}'.")
        if int(text) >= total:
            raise BadInput(f"{path}:{number}: expected an index in 0..{total - 1}, got {text}.")
        if int(text) in lines:
            raise BadInput(f"{path}:{number}: expected each index once, got {text} again (line {lines[int(text)]}).")
        lines[int(text)] = number
    return list(lines)


def shuffled(items: Sequence[T], seed: int) -> list[T]:
    """The items in a random order that the seed decides."""
    order = torch.randperm(len(items), generator=seeded(seed))
    return [items[int(i)] for i in order]


class Choice(NamedTuple):
    """Which training examples are forgotten, of which classes, and which classes are forgotten whole.

    `at_random`: whether they were drawn, and not chosen by somebody.
    """

    indices: list[int]
    classes: set[int]
    masked: tuple[int, ...]
    at_random: bool = True

    def request(self, train: Examples, alike: Examples, test: Examples, holdout: int) -> Request:
        """The request. `alike`: unseen examples of the same classes; up to `holdout` of them become the holdout, and up
        to half as many more the validation set."""
        forgotten, n = set(self.indices), len(alike)
        size = min(holdout, 2 * n // 3)
        return Request(
            forget=Selection(train, self.indices),
            retain=Selection(train, [i for i in range(len(train)) if i not in forgotten]),
            holdout=Selection(alike, range(size)),
            validation=Selection(alike, range(size, min(n, size + holdout // 2))),
            test=test,
            kind="class" if self.masked else "samples",
            masked=self.masked,
            control="random split" if self.at_random else "matched",
        )


def choose(forget: str, labels: Sequence[int], seed: int, classes: int) -> Choice:
    """What "share:P", "half:C", "class:C" or the path of a file of training indices means for these labels."""
    how, _, which = forget.partition(":")
    if how == "share" and which:
        indices = share_of(which, len(labels), seed)
        return Choice(indices, {labels[i] for i in indices}, ())
    if how not in ("half", "class") or not which:
        indices = read_indices(Path(forget), len(labels))
        return Choice(indices, {labels[i] for i in indices}, (), at_random=False)
    if not which.isdecimal() or len(which) > LONGEST_NUMBER or int(which) >= classes:
        raise BadInput(f"forget: expected a class in 0..{classes - 1}, got '{which}'.")
    members = shuffled([i for i, y in enumerate(labels) if y == int(which)], seed)
    if how == "half":
        return Choice(sorted(members[: len(members) // 2]), {int(which)}, ())
    return Choice(sorted(members), {int(which)}, (int(which),))


def share_of(share: str, count: int, seed: int) -> list[int]:
    """A random share, as a user writes it, of so many examples; BadInput unless it is between 0 and 1."""
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not 0 < number < 1:
        raise BadInput(f"forget: expected share:P with P between 0 and 1, got '{share}'.")
    return sorted(shuffled(range(count), seed)[: max(1, round(number * count))])
