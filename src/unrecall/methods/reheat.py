"""Reheat: every weight is blurred towards a fresh start, and retain is then learned hot; forget is never read."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, phase_over
from unrecall.spec.parameters import NonNegative, Share
from unrecall.training.fresh import reinitialise
from unrecall.training.loop import Step, StepState
from unrecall.training.randomness import draw_seed, seeded


@dataclass(frozen=True)
class Reheat(GradientMethod):
    """Moves all weights part of the way to fresh ones, and trains on retain's labels at a high rate in small batches.

        theta <- keep theta + (1 - keep) theta_0,     then  min over theta of  L = CE(retain)

    theta_0 is drawn anew by the layers' own initialisation, or is a checkpoint from before forget was learned. The idea
    is that what single examples left in the weights is lost sooner than what retain can teach again, so that what costs
    is to converge once more; and that labels alone should teach, as a teacher's answers may carry the memory back. It
    was found on digits and isn't confirmed: on generated letters a class is gone as after retraining, but as much so
    with keep=1 or 0, and of single samples more is left than retrained models show (results/reheat). keep=0 is a short
    retraining, keep=1 fine-tuning at a high rate.

    Args:
        keep: the share of each weight that stays; the less, the more is forgotten.
        noise: the deviation of what is drawn and added to each part of a weight's gradient that isn't 0, after
            clipping, as a share of the root mean square of all its parts. It was to stand for the noise that large
            batches lack, which cost less time an epoch, and doesn't on the digits (results/reheat).
        towards: a checkpoint to move towards, as safetensors or a Transformers folder, in place of fresh weights: the
            model that was fine-tuned, where pretraining never saw forget.
        fit: SGD, lr 0.1 (twice what the original was trained at), momentum 0.9, weight decay 5e-4, batches of 24, 4
            epochs over retain, cosine.

    Expected to fail: where retain is small or the original took long to train, so that 4 epochs don't bring use back:
    of a Vision Transformer, and of facts learned by heart (results/reheat); with large batches, which take fewer steps.
    Its weights stay near the original's in direction, which whoever holds both sees.

    Reference: ours. Akin to shrink-and-perturb of Ash, Adams, "On Warm-Starting Neural Network Training", NeurIPS 2020,
    arXiv 1910.08475, which adds noise to smaller weights to generalise better, and to UNDO of Lee et al., arXiv
    2506.06278, which then distils from an unlearned model.
    """

    title = "Reheat"
    has_null = False
    strength = Strength(("keep",), inverse=True, low=0.5)

    keep: Share = 0.5
    noise: NonNegative = 0.0
    towards: str = ""
    fit: Fit = Fit(lr=0.1, batch_size=24, epochs=4, schedule="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.towards and not Path(self.towards).exists():
            raise BadInput(
                f"Reheat: expected towards to be a checkpoint, got '{self.towards}', where there is none. Name a file "
                "of safetensors, or a folder."
            )

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, of weights that were moved."""
        blur(student, self._start(student, job), self.keep)
        phase = phase_over("retain", job, self.fit)
        return [replace(phase, step=noisy(self.noise, draw_seed(job.generator))) if self.noise else phase]

    def _start(self, student: nn.Module, job: Job) -> nn.Module:
        """What the weights move towards."""
        start = copy.deepcopy(student)
        if self.towards:
            return weights.load(start, Path(self.towards))
        reinitialise(start, job.generator)
        return start


def noisy(noise: float, seed: int) -> Step:
    """A step along gradients to which as much noise is added; a later step draws other noise."""

    def step(current: StepState) -> Tensor:
        loss, generator = current.differentiate(), seeded(seed + current.number)
        for gradient in (weight.grad for weight in current.model.parameters() if weight.grad is not None):
            spread = noise * gradient.square().mean().sqrt()
            drawn = torch.randn(gradient.shape, generator=generator).to(gradient)
            gradient.add_(spread * drawn * (gradient != 0))
        current.optimizer.step()
        return loss

    return step


@torch.no_grad()
def blur(model: nn.Module, start: nn.Module, keep: float) -> None:
    """Gives each trainable weight of `model` the share `keep` of itself and the rest of `start`, in place."""
    for weight, fresh in zip(model.parameters(), start.parameters(), strict=True):
        if weight.requires_grad:
            weight.mul_(keep).add_(fresh, alpha=1 - keep)
