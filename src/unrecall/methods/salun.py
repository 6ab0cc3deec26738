"""SalUn: another method's training, on the weights that matter most to forget alone."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from unrecall.methods.base import Around, GradientMethod, Job, Plugin
from unrecall.methods.random_label import RandomLabel
from unrecall.models.importance import mean_gradient, most_salient
from unrecall.spec.parameters import Share
from unrecall.training.loop import Step, StepState


@dataclass(frozen=True)
class SalUn(Plugin):
    """Lets the base method move the most salient weights and holds all others where they were, to the bit.

        m_j = 1 where |d CE(forget) / d theta_j| is among the largest `share` over all weights together, by rank
        after each step of the base:   theta <- m theta + (1 - m) theta_original

    Weight decay and momentum can't move a weight that is held, for it is put back after the step.

    Args:
        base: the method that is masked; random labels, SGD lr 0.013, momentum 0.9, weight decay 5e-4, 10 epochs.
        share: how much of the weights is free, in [0, 1].

    Expected to fail: as the base does, if less; what is held may carry the memory just as well. BatchNorm's statistics
    are no weights and move with the base.

    Reference: Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight
    Saliency in Both Image Classification and Generation", ICLR 2024, arXiv 2310.12508. Differs from its code in the
    saliency of a short last batch, whose examples weigh the same as all others here, and in the base's batch of 128
    (256 there). The base's learning rate is its setting for a random tenth of CIFAR-10.
    """

    title = "SalUn"

    base: GradientMethod = RandomLabel()
    share: Share = 0.5

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Gives each phase a step that puts the held weights back."""
        free = most_salient(mean_gradient(student, job.task, job.request.forget), self.share)
        before = dict(original.named_parameters())

        def holding(current: StepState, inner: Step) -> Tensor:
            loss = inner(current)
            with torch.no_grad():
                for name, weight in student.named_parameters():
                    if name in free:
                        weight.copy_(torch.where(free[name], weight, before[name]))
            return loss

        return lambda phase: replace(phase, step=partial(holding, inner=phase.step))
