"""l1-sparse: goes on training on retain under a penalty that makes weights small, for a sparse model forgets easily."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength, phase_over
from unrecall.spec.parameters import NonNegative
from unrecall.training.loop import StepState, epoch_steps, plain_step


@dataclass(frozen=True)
class L1Sparse(GradientMethod):
    """Fine-tunes on retain under an L1 penalty, which fades over the run so that use can come back.

        L_t = CE(retain) + alpha (1 - t / T) ||theta||_1,    t = 0 .. T - 1 the epoch, T = `fit.epochs`

    theta is all trainable weights, those of norms and biases among them. With alpha 0 it is fine-tuning, bit for bit.

    Args:
        alpha: weight of the penalty in the first epoch.
        fit: SGD, lr 0.01, momentum 0.9, weight decay 5e-4, batch 256, 10 epochs over retain.

    Expected to fail: where nothing is pressed to 0 for good. The penalty pulls at every weight alike, so that what
    forget left behind goes only as far as use goes with it, and fine-tuning brings both back where they share weights.

    Reference: Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS
    2023, arXiv 2304.04934, from its code. Its alpha was not found and is ours (peers have 1e-4 to 5e-4). Differs from
    the paper in nothing else known.
    """

    title = "l1-sparse"
    strength = Strength(("alpha",))

    alpha: NonNegative = 5e-4
    fit: Fit = Fit(lr=0.01, weight_decay=5e-4, epochs=10, batch_size=256)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, whose steps know how far the penalty has faded."""
        phase = phase_over("retain", job, self.fit)
        epoch = epoch_steps(phase)

        def step(current: StepState) -> Tensor:
            weight = faded(self.alpha, current.number // epoch, self.fit.epochs)

            def loss(model: nn.Module, batches: Batches) -> Tensor:
                return current.loss(model, batches) + weight * l1_norm(model)

            return plain_step(replace(current, loss=loss) if weight > 0 else current)

        return [replace(phase, step=step)]


def faded(alpha: float, epoch: int, epochs: int) -> float:
    """Computes alpha (1 - t / T) in epoch t, 0 from epoch T on."""
    return alpha * max(0.0, 1 - epoch / epochs)


def l1_norm(model: nn.Module) -> Tensor:
    """Sums the absolute values of all trainable weights."""
    return torch.stack([p.abs().sum() for p in model.parameters() if p.requires_grad]).sum()
