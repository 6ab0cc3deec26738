"""What the rest of unrecall may ask about a modality: nothing else knows one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from unrecall.records import Exhibit
from unrecall.types import Batch, Request, Rows, View


class Task(ABC):
    """How one modality is trained and observed; an adapter between a model, its data and everything else."""

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """Named tensors from a list of examples, one entry an example."""

    @abstractmethod
    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One forward pass: logits and target of each predicted unit. Nearly every loss is a function of rows."""

    @abstractmethod
    def view(self, model: nn.Module, batch: Batch) -> View:
        """One forward pass: the rows, and the features [examples, d] that enter the head."""

    @abstractmethod
    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """The linear layer that turns features into logits; NotSupported where there is none."""

    @abstractmethod
    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """The parts of the model in order, input to output, by name; together they hold every parameter once."""

    @abstractmethod
    def check(self, model: nn.Module, request: Request) -> None:
        """Raises BadInput where model and data do not fit, before any compute: shapes, labels, NaN, probabilities."""

    @abstractmethod
    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """An example as a person would look at it."""


@runtime_checkable
class Perturbable(Protocol):
    """A task whose inputs are continuous tensors, so that they can be perturbed and differentiated."""

    bounds: tuple[float, float]

    def inputs(self, batch: Batch) -> Tensor:
        """The continuous inputs [examples, ...]."""
        ...

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same batch with other inputs."""
        ...

    def items(self, batch: Batch) -> list[Any]:
        """The examples of a batch as a data set has them: what `collate` undoes."""
        ...
