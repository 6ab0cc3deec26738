"""Probes of continuous inputs: points of a small ball around an example, drawn or climbed to."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.models.knowledge_holes.search import Probes
from unrecall.models.observe import device_of
from unrecall.models.perturb import gaussian, width
from unrecall.nn.hooks import frozen, mode
from unrecall.tasks.protocols import perturbable


@dataclass(frozen=True)
class InputProbes(Probes):
    """A probe has the class of its home, and lies within `radius` of it in every entry.

    One that is climbed to starts half a radius or less from its parent, and takes `steps` steps of `step` along the
    sign of the gradient of (loss of the model - loss of the original). It is well formed where the original answers it
    right under each of `draws` draws of Gaussian noise of deviation `radius`. What lies so near an example that stays
    is not answered from forget. Radius and step are shares of the width of the task's bounds.
    """

    radius: float = 8 / 255
    step: float = 2 / 255
    steps: int = 5
    draws: int = 8

    def at_home(self, examples: Sequence[Any]) -> list[Any]:
        """The examples as they are."""
        return self._items(self.task.collate(list(examples)))

    def varied(
        self, parents: list[Any], homes: list[Any], generator: torch.Generator, model: nn.Module | None = None
    ) -> list[Any]:
        """Uniform points of the ball around each home, or points that are climbed to from the parents."""
        able, device = perturbable(self.task), device_of(self.original)
        home, batch = (move(self.task.collate(items), device) for items in (homes, parents))
        centre, reach = able.inputs(home), self.radius * width(able)
        shift = 2 * torch.rand(centre.shape, generator=generator).to(centre) - 1

        def inside(inputs: Tensor) -> Tensor:
            within = torch.maximum(torch.minimum(inputs, centre + reach), centre - reach)
            return within.clamp(*able.bounds)

        if model is None:
            return self._items(able.with_inputs(home, inside(centre + reach * shift)))
        inputs = inside(able.inputs(batch) + reach / 2 * shift)
        for _ in range(self.steps):
            inputs = inside(inputs + self.step * width(able) * self._uphill(model, able.with_inputs(batch, inputs)))
        return self._items(able.with_inputs(batch, inputs))

    def _uphill(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sign of the gradient of the model's loss less the original's."""
        able = perturbable(self.task)
        inputs = able.inputs(batch).detach().requires_grad_(True)
        probes = able.with_inputs(batch, inputs)
        with ExitStack() as stack:
            for asker in (model, self.original):
                stack.enter_context(mode(asker, training=False))
                stack.enter_context(frozen(asker))
            losses = [self.task.rows(asker, probes).losses().sum() for asker in (model, self.original)]
            (gradient,) = torch.autograd.grad(losses[0] - losses[1], inputs)
        return gradient.sign()

    def allowed(self, items: list[Any]) -> np.ndarray:
        """Which of them the original answers right whatever small noise is added."""
        batch, generator = move(self.task.collate(items), device_of(self.original)), torch.Generator().manual_seed(0)
        stable = np.ones(len(items), dtype=bool)
        for _ in range(self.draws):
            noisy = self._items(gaussian(self.task, batch, self.radius, generator))
            stable &= self.answers(self.original, noisy).right
        return stable

    def _items(self, batch: Batch) -> list[Any]:
        return perturbable(self.task).items(move(batch, torch.device("cpu")))
