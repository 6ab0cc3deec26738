"""What an objective promises: an original and its retrained models are trained by it, not by plain cross-entropy."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from unrecall.data.examples import Batch
from unrecall.errors import BadInput
from unrecall.spec.parameters import Parameters
from unrecall.tasks.base import Task
from unrecall.training.loop import Loss, loss_on

STREAM = "train"
"""The name of the data that an original is trained on, as its loss has it."""


class Start(NamedTuple):
    """What an objective begins with.

    `model`: what it trains, in place; `probe`: a few examples, which show the shapes. `another()`: an untrained network
    like the model, with weights of its own; None where none can be had. Layers that an objective adds may draw from
    PyTorch's own randomness, which is seeded then.
    """

    model: nn.Module
    task: Task
    probe: Batch
    another: Callable[[], nn.Module] | None = None

    def second(self, owner: object) -> nn.Module:
        """A second network, where the model is; BadInput, said by `owner`, where none can be had."""
        if self.another is None:
            raise BadInput(
                f"{type(owner).__name__}: expected build to make a second network, got none. Give the Scenario a build."
            )
        return self.another().to(next(self.model.parameters()).device)


class Course(NamedTuple):
    """What the loop trains: the model and all networks beside it in one module, and a loss of that module."""

    networks: nn.Module
    loss: Loss


@dataclass(frozen=True)
class Objective(Parameters, ABC):
    """What an original and its retrained models are trained to minimise; the model's architecture stays as it is."""

    @abstractmethod
    def course(self, start: Start) -> Course:
        """Puts the networks together and says their loss over batches of `STREAM`. NotSupported for other tasks."""


@dataclass(frozen=True)
class Plain(Objective):
    """Cross-entropy alone: how an original is trained unless it is said otherwise."""

    def course(self, start: Start) -> Course:
        """The model itself."""
        return Course(start.model, loss_on(STREAM, start.task))
