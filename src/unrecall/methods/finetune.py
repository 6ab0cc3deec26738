"""Fine-tuning on retain, "GD" in the papers' tables."""

from dataclasses import dataclass

from torch import nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, phase_over


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

    title = "Fine-tune"
    strength = Strength(("fit.lr",))

    fit: Fit = Fit(lr=1e-2, weight_decay=1e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain."""
        return [phase_over("retain", job, self.fit)]
