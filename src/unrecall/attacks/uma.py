"""Unlearning mapping attack: searches near each forgotten input for one on which the model answers as it used to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.examples import Examples, move
from unrecall.data.request import Request
from unrecall.models.observe import batches, device_of
from unrecall.models.perturb import Walk, perturbable, pgd
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import Task
from unrecall.training.randomness import draw_seed, seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy


@dataclass(frozen=True)
class UMA(RecoveryAttack):
    """Perturbs inputs, never weights, until the unlearned model says what the original said.

        delta* = argmin_{|delta|_inf <= eps} CE(f_u(x + delta), argmax f_o(x))

    f_u the model attacked, f_o the original; projected sign gradient steps, each example on its own. Success is
    measured on the perturbed inputs with the true labels.

    Args:
        radii: eps, in input units, one point of the curve each.
        steps: gradient steps.
        step: their size, in input units; never more than the radius.
        on: "forget", or "holdout" as the control: an attack this strong flips examples that were never forgotten too.
        batch_size: inputs a pass.

    Expected to fail: as evidence on its own. Any undefended model can be led to any answer at 8/255; what counts is
    how much sooner forget examples turn than they do on a retrained model.

    Reference: Xuan, Li, "Unlearning Mapping Attack: Exposing Hidden Vulnerabilities in Machine Unlearning", 2025,
    arXiv 2504.14798. Steps and sizes are not in the paper: 40 steps of 2/255 from a random start are ours.
    """

    title: ClassVar[str] = "Unlearning mapping attack"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's gradients, the original model's predictions",
        data="the forget examples",
        budget="the largest change of an input value; 40 gradient steps an example",
    )
    axis: ClassVar[str] = "perturbation radius"
    unmixed: ClassVar[bool] = True

    radii: tuple[Positive, ...] = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    steps: Count = 40
    step: Positive = 2 / 255
    on: Literal["forget", "holdout"] = "forget"
    batch_size: Count = 256

    def probe(self, request: Request, generator: torch.Generator) -> Examples:
        """The clean examples; at each budget the same ones, perturbed."""
        return request[self.on]

    def recover(
        self,
        model: nn.Module,
        original: nn.Module,
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session,
    ) -> Iterator[Attacked]:
        """The model as it was, with perturbed examples, for each radius."""
        able, seed = perturbable(task), draw_seed(generator)
        attacked, goal = frozen_copy(model), frozen_copy(original).to(device_of(model))
        for radius in sorted(self.radii):
            starts = seeded(seed)
            found: list[Any] = []
            for batch in batches(request[self.on], task, self.batch_size, device_of(model)):
                with torch.no_grad():
                    wished = task.rows(goal, batch).logits.argmax(1)
                moved = pgd(
                    attacked,
                    task,
                    batch,
                    Walk(radius=radius, step=min(self.step, radius), steps=self.steps, targets=wished),
                    starts,
                )
                found += able.items(move(moved, torch.device("cpu")))
            yield Attacked(radius, attacked, found)

    def control(self, request: Request) -> tuple[str, RecoveryAttack] | None:
        """The same on holdout: an attack this strong turns examples that were never trained on too."""
        return ("holdout", replace(self, on="holdout")) if self.on == "forget" and len(request.holdout) else None
