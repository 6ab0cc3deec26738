"""Random labels on forget, "RL" in the papers' tables; with other classes only, "Amnesiac"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength
from unrecall.models.perturb import other_classes
from unrecall.nn.functional import nll
from unrecall.spec.parameters import NonNegative


@dataclass(frozen=True)
class RandomLabel(GradientMethod):
    """Teaches forget anew under random labels, beside retain under its true ones.

        L = CE(X_f, Y') + retain_weight CE(X_r, Y_r),   Y' uniform over the classes, drawn anew for each batch

    One forget batch is drawn per retain batch; the two go through the model in separate passes. Where an example has
    many rows, each row draws its own label.

    Args:
        exclude_true: whether Y' must differ from the true label (Amnesiac) or may equal it (as in SalUn's code).
        retain_weight: weight of the retain loss; at 0 retain is not read and an epoch is a pass over forget.
        fit: SGD, lr 0.013, momentum 0.9, weight decay 5e-4, 10 epochs over retain.

    Expected to fail: a retrained model is not uniformly unsure of examples that it never saw. Forgotten ones stand out
    by their high loss, and a label that is only overwritten comes back within a few steps of relearning.

    Reference: Graves, Nagisetty, Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981; as a baseline, and
    its defaults (CIFAR-10, 10 % forgotten), in Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based
    Weight Saliency", ICLR 2024, arXiv 2310.12508. Differs from the paper in drawing both sets at each step, as SalUn's
    objective has it; its code passes once over forget and then once over retain each epoch, so forget is met more
    often here. Amnesiac draws labels once and trains with Adam, lr 1e-4, 3 epochs.
    """

    title = "Random label"
    strength = Strength(("fit.lr",))

    exclude_true: bool = False
    retain_weight: NonNegative = 1.0
    fit: Fit = Fit(lr=0.013, weight_decay=5e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, with forget cycling beside it; over forget alone where retain has no weight."""
        request, task, generator = job.request, job.task, job.generator

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            forget = task.rows(model, batches["forget"])
            classes = forget.logits.shape[1]
            if self.exclude_true:
                labels = other_classes(forget.targets, classes, generator)
            else:
                labels = any_class(forget.targets, classes, generator)
            wrong = forget.per_example(nll(forget.logits, labels)).mean()
            if self.retain_weight == 0:
                return wrong
            return wrong + self.retain_weight * task.rows(model, batches["retain"]).losses().mean()

        forget_only = {"forget": request.forget}
        streams = forget_only if self.retain_weight == 0 else {"retain": request.retain, **forget_only}
        return [Phase(loss, streams, self.fit)]


def any_class(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Draws a class for each row `[rows]`, all equally likely, the target's own among them."""
    drawn = torch.randint(classes, targets.shape, generator=generator, device=generator.device)
    return drawn.to(targets)
