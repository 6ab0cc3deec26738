"""Weights that are distorted, or driven away from where they were, and trained on retain: forget is never read."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from unrecall.errors import BadInput
from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength, loss_on
from unrecall.models.perturb import noise_like
from unrecall.spec.parameters import Positive

TINY = 1e-12
"""Keeps the gradient of a root finite at 0."""


@dataclass(frozen=True)
class Distort(GradientMethod):
    """Moves all trainable weights far from the original's, and repairs use by retain's labels.

        noise:   theta <- theta + amount N(0, I)            shrink:  theta <- (1 - amount) theta
        drop:    theta <- theta B,  B = 0 with probability amount, 1 otherwise
        then     min over theta of  CE(retain)
        apart:   min over theta of  CE(retain) - amount RMS(theta - theta_0), from theta_0 itself

    What withstands fine-tuning on retain alone lies far from the original's weights, in its authors' findings, and with
    no low path between. Statistics of norms are trained on, not reset.

    Args:
        form: which of them.
        amount: 0.02 for "noise", 0.5 for "shrink", 0.2 for "drop", 1 for "apart" in the authors' code.
        fit: Adam, lr 1e-5, no weight decay, batch 128, 100 epochs over retain.

    Expected to fail: where retain teaches forget's answers anew, for nothing says what must go; at a rate too small for
    use to come back from so far. "apart" is bounded by nothing but the epochs.

    Reference: Siddiqui, Weller, Krueger, Dziugaite, Mozer, Triantafillou, "From Dormant to Deleted: Tamper-Resistant
    Unlearning Through Weight-Space Regularization", arXiv 2505.22310, from the authors' code. Differs from the code in
    nothing known but its form for mode connectivity, which is left out, and the schedule, a constant rate.
    """

    title = "Distorted weights"
    has_null = False
    strength = Strength(("amount",))

    form: Literal["noise", "shrink", "drop", "apart"] = "noise"
    amount: Positive = 0.02
    fit: Fit = Fit(optimizer="adam", lr=1e-5, weight_decay=0.0, epochs=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form in ("shrink", "drop") and self.amount > 1:
            raise BadInput(f"Distort: expected amount to be at most 1 for {self.form}, got {self.amount:g}. Lower it.")

    def scaled(self, factor: float) -> Self:
        """Gives the same method, `factor` times as strong; shrinking and dropping end at 1, where nothing is left."""
        amount = self.amount * factor
        return replace(self, amount=min(amount, 1.0) if self.form in ("shrink", "drop") else amount)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, of weights that were moved."""
        on_retain = loss_on("retain", job.task)
        before = [p.detach().clone() for p in student.parameters()] if self.form == "apart" else []
        distort(student, self.form, self.amount, job.generator)

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            value = on_retain(model, batches)
            return value - self.amount * distance(model, before) if before else value

        return [Phase(loss, {"retain": job.request.retain}, self.fit)]


@torch.no_grad()
def distort(model: nn.Module, form: str, amount: float, generator: torch.Generator) -> None:
    """Moves each trainable weight by noise, shrinking or dropping, in place; "apart" moves none."""
    for weight in (p for p in model.parameters() if p.requires_grad):
        if form == "noise":
            weight.add_(noise_like(weight, generator), alpha=amount)
        elif form == "shrink":
            weight.mul_(1 - amount)
        elif form == "drop":
            weight.mul_((torch.rand(weight.shape, generator=generator) >= amount).to(weight))


def distance(model: nn.Module, before: list[Tensor]) -> Tensor:
    """Computes the root of the mean square by which trainable weights differ from what they were."""
    pairs = [(p, old) for p, old in zip(model.parameters(), before, strict=True) if p.requires_grad]
    total = torch.stack([(p - old).square().sum() for p, old in pairs]).sum()
    return (total / sum(p.numel() for p, _ in pairs) + TINY).sqrt()
