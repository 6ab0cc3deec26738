"""Gradient ascent on forget, "GA" in the papers' tables."""

from dataclasses import dataclass

from torch import nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, phase_over


@dataclass(frozen=True)
class GradAscent(GradientMethod):
    """Climbs the loss of forget, and asks nothing of retain.

        L = -CE(forget)

    Args:
        fit: SGD, lr 1e-5, momentum 0.9, weight decay 1e-4, clip 1, 1 epoch over forget (3 for a whole class).

    Expected to fail: nothing holds retain, so use falls with forgetting; on examples that are fit perfectly the
    gradient is nearly 0, then it grows without bound. With BatchNorm in train mode most of what seems forgotten at this
    learning rate is statistics, which now describe forget alone: look at the null, or set fit.batchnorm to "frozen".

    Reference: defaults of "GA" in Hsu et al., "The Unseen Threat: Residual Knowledge in Machine Unlearning under
    Perturbed Samples", NeurIPS 2025, arXiv 2601.22359, appendix B.3. Differs from the paper in nothing known.
    """

    title = "Gradient ascent"
    strength = Strength(("fit.lr",), low=2**-4, high=2**12)

    fit: Fit = Fit(lr=1e-5, weight_decay=1e-4, clip=1.0, epochs=1)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget."""
        return [phase_over("forget", job, self.fit, lambda rows, _: -rows.losses().mean())]
