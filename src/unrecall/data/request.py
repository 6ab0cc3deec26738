"""The nouns that pass between the layers; none of them knows a modality."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from unrecall.data.examples import Absent, Examples, Part, digest, iterate
from unrecall.errors import BadInput, MissingReference

Kind: TypeAlias = Literal["samples", "class", "concept", "backdoor"]
Split: TypeAlias = Literal["forget", "retain", "holdout", "test"]
SPLITS: tuple[Split, ...] = ("forget", "retain", "holdout", "test")
APART = {
    "forget": ("retain", "holdout", "test", "validation"),
    "retain": ("holdout", "test", "validation"),
    "validation": ("holdout", "test"),
    "holdout": ("test",),
}
"""Which sets may share no example."""


@dataclass(frozen=True)
class Request:
    """What must go, and what it is compared with.

    `forget` was trained on and must go; `retain` was trained on and stays; `holdout` comes from the distribution of
    `forget` and was never trained on (without it no privacy number means anything); `test` was never trained on and
    measures use. `validation` is like `holdout` and serves tuning alone: the audit never sees it.

    `kind`: samples (retrained may still know what they look like), class or concept (it has never met it), backdoor
    (the same; the holdout, and what must go of forget, carry a trigger and the label that an attacker wishes).
    `masked`: the classes that are forgotten whole; empty for samples. `holdout` and `test` may be `Absent(reason)`:
    what needs them is then a row with that reason. BadInput where a set is empty, or has an example twice or another's.
    """

    forget: Examples
    retain: Examples
    holdout: Examples
    test: Examples
    validation: Examples | None = None
    kind: Kind = "samples"
    masked: tuple[int, ...] = ()
    checked: set[str] = field(default_factory=set, init=False, compare=False, repr=False)
    """What a task has already looked for in these data, so that it reads them once and not once a model."""

    def __post_init__(self) -> None:
        for name in SPLITS:
            if len(self[name]) == 0 and not (name in ("holdout", "test") and isinstance(self[name], Absent)):
                hint = {
                    "forget": "Name at least one example to forget.",
                    "retain": "A request to forget everything needs no unlearning: delete the model.",
                    "holdout": "Privacy is judged against examples like the forgotten ones that were never trained on.",
                    "test": "Use is judged on examples that were never trained on.",
                }[name]
                raise BadInput(f"Request: expected a non-empty {name} set, got 0 examples. {hint}")
        if self.kind not in get_args(Kind) or (self.kind == "class") != bool(self.masked):
            raise BadInput(
                f"Request: expected masked to name the forgotten classes for kind='class' and for no other, and kind "
                f"to be one of {', '.join(get_args(Kind))}, got kind='{self.kind}' and masked={self.masked}."
            )
        places: dict[str, dict[str, int]] = {name: self._index(name) for name in SPLITS}
        if self.validation is not None:
            places |= {"validation": {digest(item): i for i, item in enumerate(iterate(self.validation))}}
        for first, second in ((first, second) for first, others in APART.items() for second in others):
            if {first, second} <= places.keys():
                self._disjoint(first, second, places)

    def __getitem__(self, split: Split) -> Examples:
        return {"forget": self.forget, "retain": self.retain, "holdout": self.holdout, "test": self.test}[split]

    def _index(self, name: Split) -> dict[str, int]:
        index: dict[str, int] = {}
        for i, key in enumerate(self.digests[name]):
            if name == "forget" and key in index:
                raise BadInput(
                    f"Request: expected each forget example once, got example {i} equal to {index[key]}. "
                    "Remove the duplicate."
                )
            index.setdefault(key, i)
        return index

    @staticmethod
    def _disjoint(first: str, second: str, places: Mapping[str, Mapping[str, int]]) -> None:
        shared = places[first].keys() & places[second].keys()
        if shared:
            key = min(shared, key=lambda digest: places[first][digest])
            raise BadInput(
                f"Request: expected {first} and {second} to share nothing, got {len(shared)} shared examples "
                f"({first}[{places[first][key]}] equals {second}[{places[second][key]}]). Remove them from {second}."
            )

    @cached_property
    def digests(self) -> dict[Split, list[str]]:
        """sha256 of each example of each split."""
        return {name: [digest(item) for item in iterate(self[name])] for name in SPLITS}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what is asked and all examples of all splits, in order; the same anywhere."""
        text = f"{self.kind}{self.masked}|" + "|".join(f"{name}:{','.join(self.digests[name])}" for name in SPLITS)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_validation(self) -> Request:
        """This request with examples for tuning: its own, or every second example of the holdout, taken out of it."""
        if self.validation is not None and len(self.validation):
            return self
        n = len(self.holdout)
        if n < 4:
            raise MissingReference(f"tune: expected a validation set or at least 4 holdout examples, got {n}.")
        whole = self.holdout
        return replace(self, validation=Part(whole, range(0, n, 2)), holdout=Part(whole, range(1, n, 2)))
