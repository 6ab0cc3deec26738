"""CF-k: catastrophic forgetting in the last k layers."""

from dataclasses import dataclass

from torch import nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, last_blocks, phase_over, train_only
from unrecall.spec.parameters import Count


@dataclass(frozen=True)
class CFk(GradientMethod):
    """Fine-tunes the last blocks on retain and freezes everything before them.

        min over theta_last of  L = CE(retain)

    BatchNorm of frozen blocks keeps its statistics.

    Args:
        blocks: how many of the task's blocks are trained, counted from the output, at most as many as the model has;
            3 is the head and the last two residual blocks of a ResNet.
        fit: SGD, lr 1e-2, momentum 0.9, weight decay 1e-4, 10 epochs over retain.

    Expected to fail: like fine-tuning, and more so: features that know forget stay as they were.

    Reference: Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640; defaults
    of "CF-k" in Hsu et al., "The Unseen Threat", NeurIPS 2025, arXiv 2601.22359, appendix B.3. Differs from the paper
    in counting blocks; its k = 5 counts weight layers, the head and two in each of two residual blocks.
    """

    title = "CF-k"
    strength = Strength(("fit.lr",))

    blocks: Count = 3
    fit: Fit = Fit(lr=1e-2, weight_decay=1e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, with all but the last blocks frozen."""
        last = last_blocks(student, self.blocks, job.task, "CFk")
        train_only(student, (p for module in last for p in module.parameters()))
        return [phase_over("retain", job, self.fit)]
