"""ULE, a reconstruction: its paper's abstract and notes on it were read, the formula of its loss was not found."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.spec.parameters import NonNegative
from unrecall.tasks.protocols import Classifying, Perturbable, check_offers
from unrecall.training.loop import Batches
from unrecall.training.objectives.base import STREAM, Course, Objective, Start

ADVICE = "Train by objective=plain."


@dataclass(frozen=True)
class ULE(Objective):
    """A teacher that may not follow what a student follows, which takes every shortcut; the teacher is what stays.

        L = CE(S(x), y) + CE(T(x), y) + weight <g_T, g_S>^2,   g_M = d max_c M_c(x) / dx, scaled to length 1

    The student S is one linear layer over the inputs: a shortcut is what is easiest to learn. g_S is detached, so that
    the student learns by cross-entropy alone; the inner product squared, a mean over examples, lies in [0, 1]. At
    weight 0 the teacher T is trained by cross-entropy alone.

    Args:
        weight: of the inner product; to be chosen by the accuracy of the worst group of a validation set.

    Expected to fail: where no linear layer finds the shortcut, and where training goes on until the few examples
    without it are fitted too. On `coloured-digits:rho=0.98` the worst group has 13 points more than by cross-entropy
    after 10 epochs (0.22 in place of 0.09) and none after 25 (0.29, 0.30).

    Reference: Mitchell, Martínez del Rincón, McLaughlin, "UnLearning from Experience to Avoid Spurious Correlations",
    Pattern Analysis and Applications 2025, arXiv 2409.02792. A reconstruction: that a student and a teacher see the
    same batches, and that the teacher uses the gradient of the student's output by the input, is the paper's; the term
    is ours. Differs from the paper in the student, whose architecture there is not known to us, and in one optimiser
    for both, whose clipping, where there is one, is by the gradient of both.
    """

    weight: NonNegative = 10.0

    def course(self, start: Start) -> Course:
        """Teacher and student, side by side."""
        check_offers(self, start.task, Perturbable, Classifying, advice=ADVICE)
        task, able = start.task, cast(Perturbable, start.task)
        probe = able.inputs(start.probe)
        student = nn.Sequential(nn.Flatten(), nn.Linear(probe[0].numel(), start.outputs)).to(probe.device)

        def loss(networks: nn.Module, batches: Batches) -> Tensor:
            own, batch = cast(_Two, networks), batches[STREAM]
            if self.weight == 0:
                return task.rows(own.teacher, batch).losses().mean()
            inputs = able.inputs(batch).detach().requires_grad_(True)
            rows, guessed = task.rows(own.teacher, able.with_inputs(batch, inputs)), own.student(inputs)
            overlap = (direction(rows.logits, inputs) * direction(guessed, inputs).detach()).sum(1).square().mean()
            return rows.losses().mean() + F.cross_entropy(guessed, rows.targets) + self.weight * overlap

        return Course(_Two(start.model, student), loss)


class _Two(nn.Module):
    """The teacher, which is what is trained, and the student beside it."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student


def direction(logits: Tensor, inputs: Tensor) -> Tensor:
    """d max_c logits_c / d inputs of each example, scaled to length 1 `[examples, inputs]`; can be differentiated."""
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), inputs, create_graph=True)
    return F.normalize(gradient.flatten(1), dim=1)
