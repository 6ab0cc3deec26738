"""EU-k: exact unlearning of the last k layers."""

from dataclasses import dataclass

from torch import nn

from unrecall.errors import BadInput
from unrecall.methods.base import Fit, GradientMethod, Job, Phase, last_blocks, phase_over, train_only
from unrecall.spec.parameters import Count
from unrecall.training.fresh import reinitialise


@dataclass(frozen=True)
class EUk(GradientMethod):
    """Throws the last blocks away, trains fresh ones on retain, and freezes everything before them.

        theta_last ~ initialisation,   min over theta_last of  L = CE(retain)

    BatchNorm of frozen blocks keeps its statistics. Nothing continuous decides how much is forgotten, only `blocks`.

    Args:
        blocks: how many of the task's blocks start anew, counted from the output, at most as many as the model has
            (which is retraining); 3 is the head and the last two residual blocks of a ResNet.
        fit: SGD, lr 1e-2, momentum 0.9, weight decay 1e-4, 10 epochs over retain.

    Expected to fail: features that know forget stay as they were, so it comes back fast; where retain is small, fresh
    blocks cost use.

    Reference: Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640; defaults
    of "EU-k" in Hsu et al., "The Unseen Threat", NeurIPS 2025, arXiv 2601.22359, appendix B.3. Differs from the paper
    in counting blocks; its k = 5 counts weight layers, the head and two in each of two residual blocks.
    """

    title = "EU-k"
    has_null = False

    blocks: Count = 3
    fit: Fit = Fit(lr=1e-2, weight_decay=1e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, with all but the last blocks frozen and those fresh, but for what was frozen."""
        last = last_blocks(student, self.blocks, job.task, "EUk")
        last = [module for module in last if all(p.requires_grad for p in module.parameters())]
        if not last:
            raise BadInput(
                f"EUk: expected one of the last {self.blocks} blocks to be trainable, got frozen ones. Unfreeze one."
            )
        train_only(student, [p for module in last for p in module.parameters()])
        reinitialise(student, job.generator, last)
        return [phase_over("retain", job, self.fit)]
