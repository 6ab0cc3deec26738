"""The nouns that pass between the layers; none of them knows a modality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from unrecall.errors import BadInput, MissingReference
from unrecall.functional import nll

Batch: TypeAlias = dict[str, Tensor]
"""Named tensors that share their first dimension: one entry an example. Only a task knows the names."""

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


class Examples(Protocol):
    """A map-style data set, as PyTorch has them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Absent:
    """No examples, and why there are none; a request may lack a holdout or a test set if it says so."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int, /) -> Any:
        raise IndexError(index)


class Seen(dict[Split, "Signals"]):
    """Signals by split; MissingReference, with the reason, for a split that the request lacks."""

    def __init__(self, signals: Mapping[Split, Signals], reasons: Mapping[Split, str]) -> None:
        super().__init__(signals)
        self.reasons = reasons

    def __missing__(self, split: Split) -> Signals:
        raise MissingReference(self.reasons.get(split, f"{split}: not looked at"))


class Part:
    """Some examples of a data set, by index; its own indices start at 0. BadInput for an index that it hasn't."""

    def __init__(self, whole: Examples, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, list(indices)
        outside = next((i for i in self.indices if not 0 <= i < len(whole)), None)
        if outside is not None:
            raise BadInput(f"Part: expected indices in 0..{len(whole) - 1}, got {outside}.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        return self.whole[self.indices[index]]


@dataclass(frozen=True)
class Rows:
    """What a model said about a batch, one row per predicted unit.

    `logits` [rows, classes]; `targets` [rows]; `example` [rows], which example of the batch each row belongs to;
    `examples`, how many examples the batch has.
    """

    logits: Tensor
    targets: Tensor
    example: Tensor
    examples: int

    def per_example(self, values: Tensor) -> Tensor:
        """The mean of a per-row quantity over each example's rows: `[rows]` -> `[examples]`."""
        zeros = torch.zeros(self.examples, dtype=values.dtype, device=values.device)
        counts = zeros.index_add(0, self.example, torch.ones_like(values)).clamp_min(1)
        return zeros.index_add(0, self.example, values) / counts

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a per-row quantity over each example's rows: `[rows]` -> `[examples]`."""
        zeros = torch.zeros(self.examples, dtype=values.dtype, device=values.device)
        return zeros.index_add(0, self.example, values)

    def losses(self) -> Tensor:
        """Mean negative log-likelihood of each example, `[examples]`, in nats."""
        return self.per_example(nll(self.logits, self.targets))


class View(NamedTuple):
    """Rows and, from the same forward pass, the features [examples, d] that enter the head."""

    rows: Rows
    features: Tensor


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
        seen: dict[str, dict[str, int]] = {name: self._index(name) for name in SPLITS}
        if self.validation is not None:
            seen |= {"validation": {digest(item): i for i, item in enumerate(iterate(self.validation))}}
        for first, second in ((first, second) for first, others in APART.items() for second in others):
            if {first, second} <= seen.keys():
                self._disjoint(first, second, seen)

    def __getitem__(self, split: Split) -> Examples:
        return {"forget": self.forget, "retain": self.retain, "holdout": self.holdout, "test": self.test}[split]

    def _index(self, name: Split) -> dict[str, int]:
        index: dict[str, int] = {}
        for i, digest in enumerate(self.digests[name]):
            if name == "forget" and digest in index:
                raise BadInput(
                    f"Request: expected each forget example once, got example {i} equal to {index[digest]}. "
                    "Remove the duplicate."
                )
            index.setdefault(digest, i)
        return index

    @staticmethod
    def _disjoint(first: str, second: str, seen: Mapping[str, Mapping[str, int]]) -> None:
        shared = seen[first].keys() & seen[second].keys()
        if shared:
            one = min(shared, key=lambda digest: seen[first][digest])
            raise BadInput(
                f"Request: expected {first} and {second} to share nothing, got {len(shared)} shared examples "
                f"({first}[{seen[first][one]}] equals {second}[{seen[second][one]}]). Remove them from {second}."
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


def iterate(examples: Examples) -> Iterator[Any]:
    """The examples in order; `__getitem__` and `__len__` are all that a data set needs."""
    return (examples[i] for i in range(len(examples)))


def digest(item: Any) -> str:
    """sha256 of an example, whatever it is made of: tensors, arrays, numbers, strings, and containers of them."""
    state = hashlib.sha256()
    for part in _bytes(item):
        state.update(part)
    return state.hexdigest()


def _bytes(item: Any) -> Iterator[bytes]:
    if isinstance(item, Tensor):
        item = item.detach().cpu().contiguous().numpy()
    if isinstance(item, np.ndarray | np.generic):
        if isinstance(item, np.generic) or item.ndim == 0:
            yield f"{item.item()!r};".encode()
        else:
            yield f"{item.dtype}{item.shape}".encode()
            yield np.ascontiguousarray(item).tobytes()
    elif isinstance(item, Mapping):
        for key in sorted(item):
            yield f"{key!r}:".encode()
            yield from _bytes(item[key])
    elif isinstance(item, list | tuple):
        yield f"{len(item)}(".encode()
        for part in item:
            yield from _bytes(part)
    elif isinstance(item, str | bytes | int | float | bool) or item is None:
        yield f"{item!r};".encode()
    else:
        yield from _bytes(np.asarray(item))


@dataclass(frozen=True)
class Signals:
    """All that one forward pass over one split tells, as arrays; every metric and membership attack reads these.

    Per example: `loss` (mean nats), `confidence` in [0, 1] (exp of minus loss; the probability of the target where an
    example is one row), `correct` in [0, 1] (share of rows predicted right), `features` [n, d].
    Per row: `prediction`, `target`, `example`; `log_prob` of the target; `expected` and `deviation`, the mean and the
    standard deviation that a log-probability has if the class is drawn from the model's own distribution.
    """

    loss: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    features: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    example: np.ndarray
    log_prob: np.ndarray
    expected: np.ndarray
    deviation: np.ndarray

    def __len__(self) -> int:
        return len(self.loss)

    def of_rows(self, values: np.ndarray) -> list[np.ndarray]:
        """A per-row quantity as one array an example."""
        return np.split(values, np.flatnonzero(np.diff(self.example)) + 1)


@dataclass(frozen=True)
class Evidence:
    """What one model (the subject) showed, and the models it is held against.

    `signals`: the subject's, by split. `references`: the retrained models', never the subject itself. `original`: the
    model before unlearning. `looked`: what an attack asked for beyond that one pass, by split.
    """

    request: Request
    signals: Mapping[Split, Signals]
    references: tuple[Mapping[Split, Signals], ...]
    original: Mapping[Split, Signals]
    looked: Mapping[Split, np.ndarray] = field(default_factory=dict)


def batch_size(batch: Batch) -> int:
    """How many examples a batch holds."""
    return len(next(iter(batch.values())))


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def repeat(batch: Batch, times: int) -> Batch:
    """Each example `times` times in a row: [a, b] -> [a, a, b, b]."""
    return {name: value.repeat_interleave(times, 0) for name, value in batch.items()}
