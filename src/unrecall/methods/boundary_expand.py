"""Boundary Expand: sends what must go into a class of its own, and then takes that class away."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrecall.data.batches import move
from unrecall.data.signals import View
from unrecall.errors import NotSupported
from unrecall.methods.base import (
    Batches,
    Fit,
    GradientMethod,
    Job,
    Method,
    Phase,
    Strength,
    Task,
    copy_of,
    restore_flags,
    train,
)
from unrecall.methods.random_label import RandomLabel
from unrecall.models.observe import device_of
from unrecall.nn.functional import nll
from unrecall.tasks.protocols import check_own_rows
from unrecall.training.randomness import draw_seed, own_randomness

SHADOW = "shadow_unit_of_boundary_expand"
"""Under which name the head of the student holds the unit of the class that is taken away again."""


@dataclass(frozen=True)
class BoundaryExpand(Method):
    """Widens the head by a shadow class, trains forget into it, and drops it: what is left of forget goes elsewhere.

        L = CE((f_1(x), .., f_C(x), w h(x) + b), C + 1),    h(x) what enters the head,    w, b drawn anew

    No retain data, and no labels. All weights are trained, w and b among them.

    Args:
        fit: SGD, lr 1e-5, momentum 0.9, weight decay 5e-4, batch 64, 10 epochs over forget.

    Expected to fail: at the paper's rate where epochs are short: it was set for thousands of examples. The shadow class
    takes the features of forget along as they were, and a head that is trained anew finds them there. NotSupported
    where an example has several rows, or the model no linear head.

    Reference: Chen, Gao, Liu, Peng, Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the
    Decision Boundary", CVPR 2023, arXiv 2303.11570, from notes and peers' code; the official code was not read.
    Differs from the paper in nothing known; its weight decay is that of peers.
    """

    title = "Boundary Expand"
    strength = Strength(("fit.lr",), high=2**12)
    has_null = True

    fit: Fit = Fit(lr=1e-5, weight_decay=5e-4, epochs=10, batch_size=64)

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Trains a copy of the model with the shadow class beside its head, and takes that class away."""
        student, job = copy_of(model, job), job.settled(model)
        wider = Wider.of(student, job)

        def loss(_: nn.Module, batches: Batches) -> Tensor:
            return wider.loss(job.task.view(student, batches["forget"]))

        wider.head.add_module(SHADOW, wider.unit)
        train(student, [Phase(loss, {"forget": job.request.forget}, self.fit)], job, self)
        delattr(wider.head, SHADOW)
        return restore_flags(student, model)

    def null_base(self) -> GradientMethod | None:
        """Gives a method of the very same passes: at learning rate 0 it doesn't matter which loss they have."""
        return RandomLabel(retain_weight=0.0, fit=self.fit)


class Wider(NamedTuple):
    """The head of a student, and the unit of the class beside those that it has."""

    head: nn.Linear
    unit: nn.Linear

    @classmethod
    def of(cls, student: nn.Module, job: Job) -> "Wider":
        """Draws a unit for the head; NotSupported where there is none, or an example has several rows."""
        task: Task = job.task
        check_own_rows("BoundaryExpand", task, "Choose another method.")
        batch = move(task.collate([job.request.forget[0]]), device_of(student))
        with torch.no_grad():
            rows = task.rows(student.eval(), batch)
        if len(rows.targets) != rows.examples:
            raise NotSupported(
                f"BoundaryExpand: expected one row an example, got {type(task).__name__}'s. Choose another method."
            )
        head = task.head(student, batch)
        with own_randomness(draw_seed(job.generator)):
            unit = nn.Linear(head.in_features, 1, bias=head.bias is not None)
        return cls(head, unit.to(head.weight))

    def loss(self, view: View) -> Tensor:
        """Computes the mean CE of a batch to the class beside all others."""
        logits = torch.cat([view.rows.logits, self.unit(view.features)], 1)
        return nll(logits, torch.full_like(view.rows.targets, logits.shape[1] - 1)).mean()
