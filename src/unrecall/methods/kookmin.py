"""Kookmin: starts the weights anew on which forget and retain agree, and repairs the rest."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, repair
from unrecall.models.curvature import summed_gradient
from unrecall.models.importance import trainable
from unrecall.models.vector import shaped
from unrecall.spec.parameters import Count, Share
from unrecall.tasks.interaction_graph import retained
from unrecall.training.fresh import reinitialise
from unrecall.training.loop import StepState, plain_step


@dataclass(frozen=True)
class Kookmin(GradientMethod):
    """Draws fresh values for the weights that forget and retain pull at alike, and trains on retain.

        d = sum over retained of grad L - sum over forget of grad L
        of each tensor of n weights, the floor(share n) with the smallest |d|, at least 1, start anew
        then min CE(retain), where the gradients of these weights count `boost` times

    Retained are what retain has of the users who forget, and random examples of all other users, so many that there
    are `retained` for each forget example (or all there are); for a task without users, retain as a whole. Fresh values
    are those that a layer starts with. The optimiser begins without a memory.

    Args:
        share: of each tensor's weights that start anew, in [0, 1]; 0 leaves them all. ERASE also tries 1e-4.
        retained: examples of retain in d for each forget example.
        boost: what the gradients of the fresh weights are multiplied by.
        repaired: examples of retain that the repair draws, for each forget example.
        fit: of the repair; Adam, lr 1e-3, batch 128. Its epochs are so many times those examples.

    Expected to fail: at a share of 0.01 little is lost, and little forgotten. Adam's steps don't depend on the scale of
    a gradient, so that under it `boost` does next to nothing; under SGD it multiplies the rate.

    Reference: the entry of team Kookmin to the NeurIPS 2023 Machine Unlearning Challenge, in Triantafillou et al., "Are
    we making progress in unlearning?", arXiv 2406.09073, in the form and with the defaults of Lubitzsch, de Rijke,
    Schelter, "ERASE", arXiv 2603.08341, from its code. Differs from that code in the fresh values, which there are
    Kaiming's for matrices and convolutions and N(0, 0.02^2) for all else, gains of norms included; and in an optimiser
    of its own, where it goes on with the one that the model was trained with.
    """

    title = "Kookmin"
    strength = Strength(("share",), high=2**6)
    has_null: ClassVar[bool] = False

    share: Share = 0.01
    retained: Count = 128
    boost: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    repaired: Count = 32
    fit: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Re-initialises, and makes one phase over retain."""
        fresh = self._restart(student, job)
        step = partial(boosted, fresh=fresh, by=self.boost)
        return [replace(phase, step=step) for phase in repair(job, self.fit, self.repaired)]

    def _restart(self, student: nn.Module, job: Job) -> dict[str, Tensor]:
        """Draws the fresh values, in place, and marks where they are, by the weight's name."""
        request, task, weights = job.request, job.task, trainable(student)
        staying = retained(task, request, self.retained * len(request.forget), job.generator)
        difference = summed_gradient(student, task, staying, weights)
        difference = difference - summed_gradient(student, task, request.forget, weights)
        masks = {name: smallest(value.abs(), self.share) for name, value in shaped(difference, weights).items()}
        start = copy.deepcopy(student)
        reinitialise(start, job.generator)
        initial = dict(start.named_parameters())
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if name in masks:
                    weight.copy_(torch.where(masks[name], initial[name], weight))
        return masks


def smallest(values: Tensor, share: float) -> Tensor:
    """Marks the floor(share n) smallest of n values, at least 1 unless `share` is 0; of equal ones, the earlier."""
    count = max(int(share > 0), int(share * values.numel()))
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.flatten().argsort(stable=True)[:count]] = True
    return mask.view_as(values)


def boosted(current: StepState, fresh: Mapping[str, Tensor], by: float) -> Tensor:
    """A step in which the gradients of the marked weights are multiplied."""

    def multiply() -> None:
        for name, weight in current.model.named_parameters():
            if weight.grad is not None and name in fresh:
                weight.grad.mul_(torch.where(fresh[name], by, 1.0))

    current.on_gradients = multiply
    return plain_step(current)
