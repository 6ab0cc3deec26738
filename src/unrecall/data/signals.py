"""What models say about examples: rows of one batch, and signals of a whole split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from unrecall.data.request import Split
from unrecall.errors import MissingReference
from unrecall.nn.functional import exact_nll, nll

Average: TypeAlias = Literal["example", "row"]
"""What a mean is taken over: examples, which weigh the same; or rows, so that those of many rows weigh more."""


class SplitSignals(dict[Split, "Signals"]):
    """Signals by split; MissingReference, with the reason, for a split that the request lacks."""

    def __init__(self, signals: "Mapping[Split, Signals]", reasons: Mapping[Split, str]) -> None:
        super().__init__(signals)
        self.reasons = reasons

    def __missing__(self, split: Split) -> "Signals":
        raise MissingReference(self.reasons.get(split, f"{split}: not looked at"))


@dataclass(frozen=True)
class Rows:
    """What a model said about a batch, one row per predicted unit.

    `logits` [rows, classes]; `targets` [rows]; `example` [rows], which example of the batch each row belongs to;
    `examples`, how many examples the batch has. `single`: whether each example has one row, in the batch's order, so
    that nothing need be summed.
    """

    logits: Tensor
    targets: Tensor
    example: Tensor
    examples: int
    single: bool = False

    def per_example(self, values: Tensor) -> Tensor:
        """The mean of a per-row quantity over each example's rows: `[rows]` -> `[examples]`."""
        if self.single:
            return values
        return self.summed(values) / self.summed(torch.ones_like(values)).clamp_min(1)

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a per-row quantity over each example's rows: `[rows]` -> `[examples]`."""
        if self.single:
            return values
        zeros = torch.zeros(self.examples, dtype=values.dtype, device=values.device)
        return zeros.index_add(0, self.example, values)

    def counts(self) -> Tensor:
        """How many rows each example has, `[examples]`."""
        return torch.bincount(self.example, minlength=self.examples)

    def places(self) -> Tensor:
        """Which row of its example each row is, from 0 `[rows]`; an example's rows follow one another."""
        counts = self.counts()
        starts = counts.cumsum(0) - counts
        return torch.arange(len(self.example), device=self.example.device) - starts[self.example]

    def mean(self, values: Tensor, over: Average = "example") -> Tensor:
        """The mean of a per-row quantity `[rows]`: over an example's rows, then over examples; or over all rows."""
        return (self.per_example(values) if over == "example" else values).mean()

    def losses(self) -> Tensor:
        """Mean negative log-likelihood of each example, `[examples]`, in nats."""
        return self.per_example(nll(self.logits, self.targets))

    def exact_losses(self) -> Tensor:
        """The same in float64, for scores: losses that float32 rounds to 0 alike keep their order."""
        return self.per_example(exact_nll(self.logits, self.targets))


class View(NamedTuple):
    """Rows and, from the same forward pass, the features [examples, d] that enter the head."""

    rows: Rows
    features: Tensor


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

    def part(self, chosen: np.ndarray) -> "Signals":
        """The signals of some of the examples `[chosen]`, in that order."""
        counts = np.bincount(self.example, minlength=len(self))
        rows = np.split(np.argsort(self.example, kind="stable"), np.cumsum(counts)[:-1])
        places = np.concatenate([np.empty(0, int), *(rows[i] for i in chosen)])
        of_examples = {name: getattr(self, name)[chosen] for name in ("loss", "confidence", "correct", "features")}
        of_rows = {
            name: getattr(self, name)[places] for name in ("prediction", "target", "log_prob", "expected", "deviation")
        }
        return Signals(**of_examples, **of_rows, example=np.repeat(np.arange(len(chosen)), counts[chosen]))
