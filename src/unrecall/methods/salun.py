"""SalUn: another method's training, on the weights that matter most to forget alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unrecall.methods.base import GradientMethod, Phase, Strength
from unrecall.models.importance import Weights, mean_gradient
from unrecall.spec.parameters import Share
from unrecall.training.job import Job
from unrecall.training.loop import Step, StepState


def _random_label() -> GradientMethod:
    from unrecall.methods.random_label import RandomLabel

    return RandomLabel()


@dataclass(frozen=True)
class SalUn(GradientMethod):
    """Lets the base method move the most salient weights and holds all others where they were, to the bit.

        m_j = 1 where |d CE(forget) / d theta_j| is among the largest `share` over all weights together, by rank
        after each step of the base:   theta <- m theta + (1 - m) theta_original

    Weight decay and momentum can't move a weight that is held, for it is put back after the step.

    Args:
        share: how much of the weights is free, in [0, 1].
        base: the method that is masked; random labels, SGD lr 0.013, momentum 0.9, weight decay 5e-4, 10 epochs.

    Expected to fail: as the base does, if less; what is held may carry the memory just as well. BatchNorm's statistics
    are no weights and move with the base.

    Reference: Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight
    Saliency in Both Image Classification and Generation", ICLR 2024, arXiv 2310.12508. Differs from its code in the
    saliency of a short last batch, whose examples weigh the same as all others here. The base's learning rate is its
    setting for a random tenth of CIFAR-10.
    """

    title: ClassVar[str] = "SalUn"
    strength: ClassVar[Strength | None] = None

    share: Share = 0.5
    base: GradientMethod = field(default_factory=_random_label)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """The phases of the base, each with a step that puts the held weights back."""
        request, task = job.request, job.task
        free = most_salient(mean_gradient(student, task, request.forget), self.share)
        held = dict(original.named_parameters())
        phases = self.base.phases(student, original, job)
        return [replace(phase, step=holding(phase.step, student, free, held)) for phase in phases]


def most_salient(gradient: Weights, share: float) -> dict[str, Tensor]:
    """True at the round(share * n) largest of all |gradient| together; ties go to the earlier weight, none extra."""
    saliency = torch.cat([value.abs().flatten() for value in gradient.values()])
    order = saliency.argsort(descending=True, stable=True)
    free = torch.zeros_like(saliency, dtype=torch.bool)
    free[order[: round(share * len(order))]] = True
    parts = torch.split(free, [value.numel() for value in gradient.values()])
    return {name: part.view_as(value) for (name, value), part in zip(gradient.items(), parts, strict=True)}


def holding(step: Step, student: nn.Module, free: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> Step:
    """`step`, after which every weight of `student` that is not `free` is again what it is in `held`."""

    def held_step(current: StepState) -> Tensor:
        loss = step(current)
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if name in free:
                    weight.copy_(torch.where(free[name], weight, held[name]))
        return loss

    return held_step
