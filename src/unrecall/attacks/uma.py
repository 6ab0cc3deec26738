"""Unlearning mapping attack: searches near each forgotten input for one on which the model answers as it used to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.batches import move
from unrecall.data.examples import Examples
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import batches, device_of
from unrecall.models.perturb import Walk, pgd
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.protocols import Perturbable, perturbable
from unrecall.training.randomness import draw_seed, seeded
from unrecall.training.teacher import frozen_copy


@dataclass(frozen=True)
class UMA(RecoveryAttack):
    """Perturbs inputs, never weights, until the unlearned model says what the original said.

        delta* = argmin_{|delta|_inf <= eps} CE(f_u(x + delta), argmax f_o(x))

    f_u the model attacked, f_o the original; projected sign gradient steps, each example on its own. Success is
    measured on the perturbed inputs with the true labels.

    Args:
        radii: eps, as shares of the width of the task's bounds, one point of the curve each.
        steps: gradient steps.
        step: their size, a share too; never more than the radius.
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
    needs: ClassVar[tuple[type, ...]] = (Perturbable,)
    shows_holdout: ClassVar[bool] = True
    needs_own_rows: ClassVar[bool] = True

    radii: tuple[Positive, ...] = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    steps: Count = 40
    step: Positive = 2 / 255
    batch_size: Count = 256

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The model as it was, with perturbed examples, for each radius."""
        task, continuous, seed = setting.task, perturbable(setting.task), draw_seed(pool.generator())
        attacked, goal = frozen_copy(model), frozen_copy(setting.models.original).to(device_of(model))
        for radius in sorted(self.radii):

            def perturbed(examples: Examples, radius: float = radius) -> Examples:
                starts = seeded(seed)
                items: list[Any] = []
                for batch in batches(examples, task, self.batch_size, device_of(model)):
                    with torch.no_grad():
                        targets = task.rows(goal, batch).logits.argmax(1)
                    walk = Walk(radius=radius, step=min(self.step, radius), steps=self.steps, targets=targets)
                    moved = pgd(attacked, task, batch, walk, starts)
                    items += continuous.items(move(moved, torch.device("cpu")))
                return items

            yield Attacked(radius, attacked, tuple(perturbed(examples) for examples in pool.tested))
