"""ULE, a reconstruction: its paper's abstract and notes on it were read, the formula of its loss was not found."""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from unrecall.data.examples import Batch
from unrecall.data.signals import Rows
from unrecall.spec.parameters import NonNegative
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Perturbable, check_offers
from unrecall.training.loop import Batches
from unrecall.training.objectives.base import STREAM, Course, Objective, Start

ADVICE = "Train by objective=plain."


@dataclass(frozen=True)
class ULE(Objective):
    """A teacher that may not look where a student looks, which is free to take every shortcut; the teacher stays.

        L = CE(S(x), y) + CE(T(x), y) + weight <g_T, g_S>,   g_M = |d max_c M_c(x) / dx|, scaled to length 1

    S is a second network like T, built with a seed of its own. g_S is detached, so the student learns by cross-entropy
    alone. The inner product, a mean over examples, lies in [0, 1]. At weight 0 T is trained by cross-entropy alone.

    Args:
        weight: of the inner product; 0.1, 1 and 10 are to be tried, by the accuracy of the worst group of a validation
            set.

    Expected to fail: where the shortcut lies in the very inputs that hold what should be learned, so that where one
    looks does not tell them apart.

    Reference: Mitchell, Martínez del Rincón, McLaughlin, "UnLearning from Experience to Avoid Spurious Correlations",
    Pattern Analysis and Applications 2025, arXiv 2409.02792. A reconstruction: that a student and a teacher see the
    same batches, and that the teacher's loss has a term with the gradient of the student's output by the input, is the
    paper's; the term itself is ours. Differs from the paper in one optimiser for both, whose clipping, where there is
    one, is by the gradient of both.
    """

    weight: NonNegative = 1.0

    def course(self, start: Start) -> Course:
        """Teacher and student, side by side."""
        check_offers(self, start.task, Perturbable, advice=ADVICE)
        task = start.task

        def loss(networks: nn.Module, batches: Batches) -> Tensor:
            teacher, student = cast(_Two, networks).teacher, cast(_Two, networks).student
            if self.weight == 0:
                return task.rows(teacher, batches[STREAM]).losses().mean()
            learned = looked(student, task, batches[STREAM])
            own = looked(teacher, task, batches[STREAM])
            overlap = (own.where * learned.where.detach()).sum(1).mean()
            return own.rows.losses().mean() + learned.rows.losses().mean() + self.weight * overlap

        return Course(_Two(start.model, start.second(self)), loss)


class _Two(nn.Module):
    """The teacher, which is what is trained, and the student beside it."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student


class Looked(NamedTuple):
    """What a model said of a batch, and where it looked: how much each input moves it `[examples, inputs]`."""

    rows: Rows
    where: Tensor


def looked(model: nn.Module, task: Task, batch: Batch) -> Looked:
    """The rows of a pass, and |d max_c M_c(x) / dx| of each example, scaled to length 1; it can be differentiated."""
    able = cast(Perturbable, task)
    inputs = able.inputs(batch).detach().requires_grad_(True)
    rows = task.rows(model, able.with_inputs(batch, inputs))
    (gradient,) = torch.autograd.grad(rows.logits.max(1).values.sum(), inputs, create_graph=True)
    return Looked(rows, nn.functional.normalize(gradient.abs().flatten(1), dim=1))
