"""What an objective promises: an original and its retrained models are trained by it, not by plain cross-entropy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from unrecall.data.batches import Batch
from unrecall.nn.hooks import mode
from unrecall.spec.parameters import Parameters
from unrecall.tasks.base import Task
from unrecall.training.loop import Loss, loss_on

STREAM = "train"
"""The name of the data that an original is trained on, as its loss has it."""


class Start(NamedTuple):
    """What an objective is given: the untrained model and what it may need beside it.

    `model`: what it trains, in place; `probe`: a few examples, which show the shapes. Networks that an objective adds
    may draw from PyTorch's own randomness, which is seeded then.
    """

    model: nn.Module
    task: Task
    probe: Batch

    @property
    def outputs(self) -> int:
        """How many logits the model gives."""
        with torch.no_grad(), mode(self.model, training=False):
            return self.task.rows(self.model, self.probe).logits.shape[1]


class Course(NamedTuple):
    """What the loop trains by an objective: a module that holds the model and all networks beside it, and its loss."""

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
