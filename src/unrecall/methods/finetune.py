"""Fine-tuning on retain, "GD" in the papers' tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from unrecall.methods.base import Fit, GradientMethod, Phase, Strength, loss_on
from unrecall.training.job import Job


@dataclass(frozen=True)
class Finetune(GradientMethod):
    """Goes on training on retain and hopes that forget fades.

        L = CE(retain)

    Args:
        fit: SGD, lr 1e-2, momentum 0.9, weight decay 1e-4, 10 epochs over retain.

    Expected to fail: what the model knows about forget costs it nothing on retain, so little fades.

    Reference: defaults of "GD" in Hsu et al., "The Unseen Threat: Residual Knowledge in Machine Unlearning under
    Perturbed Samples", NeurIPS 2025, arXiv 2601.22359, appendix B.3.
    """

    title: ClassVar[str] = "Fine-tune"
    strength: ClassVar[Strength | None] = Strength(("fit.lr",))

    fit: Fit = Fit(lr=1e-2, weight_decay=1e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Makes one phase over retain."""
        return [Phase(loss_on("retain", job.task), {"retain": job.request.retain}, self.fit)]
