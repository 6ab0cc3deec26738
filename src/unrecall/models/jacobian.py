"""The gradients of single examples as one matrix, of which a bounded sample is held."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrecall.data.batches import batch_size
from unrecall.data.examples import Examples
from unrecall.errors import NotSupported
from unrecall.models.importance import Values, per_example, trainable
from unrecall.tasks.base import Task


class Bound(NamedTuple):
    """The most that a matrix of gradients may take, and who says so; `examples` names what makes it smaller."""

    owner: str
    gigabytes: float
    examples: str = "examples"

    def check(self, rows: int, weights: int) -> None:
        """NotSupported for a matrix in float32 that takes more."""
        size = 4 * rows * weights / 2**30
        if size > self.gigabytes:
            raise NotSupported(
                f"{self.owner}: expected per-example gradients of at most {self.gigabytes:g} GB, got {size:.3g} GB ("
                f"{rows} of {weights} weights). Lower {self.examples}, set memory higher, or freeze layers."
            )


def jacobian(
    model: nn.Module, task: Task, examples: Examples, bound: Bound, of: Sequence[Values | None] = (None,)
) -> Tensor:
    """Computes the gradient of each value of each example in all trainable weights `[values * examples, d]`.

    The rows of one value follow each other, examples in order; `of` None is the loss. The model in eval mode.
    """
    weights = trainable(model)
    length = sum(weight.numel() for weight in weights.values())
    bound.check(len(of) * len(examples), length)
    first = next(iter(weights.values()))
    rows = torch.empty(len(of) * len(examples), length, dtype=torch.float32, device=first.device)
    place = 0
    for value in of:
        for gradients in per_example(model, task, examples, weights, of=value):
            count = batch_size(gradients)
            rows[place : place + count] = torch.cat([part.reshape(count, -1) for part in gradients.values()], 1)
            place += count
    return rows
