"""SFR-on: now and then up the loss of forget, by the weights that matter most to it; in between down that of retain."""

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, loss_on
from unrecall.models.importance import batch_mean
from unrecall.spec.parameters import Count, NonNegative, Positive
from unrecall.training.loop import StepState, plain_step, total_steps
from unrecall.training.terms import check_own_loss

TINY = 1e-15
"""What keeps a ratio finite, as in the authors' code."""


@dataclass(frozen=True)
class SFRon(GradientMethod):
    """Every few steps climbs forget's loss, most for what is least known, in salient weights; else learns retain.

        m_j = 1 where F_j(forget) / F_j(retain) >= gamma,    F_j the mean over batches of (d CE / d theta_j)^2
        each k-th step:  theta <- theta + lr clip(alpha_t m grad sum_i w_i CE_i),    w_i ~ CE_i^-lambda, of sum 1
        each step:       theta <- theta - lr grad CE(retain),    alpha_t = alpha (1 + cos(pi t / T)) / 2

    CE_i is the mean over the rows of an example, w_i is no part of the gradient: examples that are forgotten already
    push least; with `accumulate` the w_i of each part have sum 1. The mask is made once, in eval mode. Both steps share
    one optimiser, momentum included.

    Args:
        alpha: the size of the ascent at its beginning; the gradient is clipped, so that it saturates.
        every: k, steps of retain for each of forget.
        power: lambda; 0 weighs all examples alike.
        gamma: how many times more a weight must matter to forget; 0 frees all.
        ascent_clip: the largest norm of the ascent's gradient, after alpha and the mask.
        fit: SGD, lr 0.01, momentum 0.9, weight decay 5e-4, batch 128, cosine, 1,500 steps whatever the size of retain.

    Expected to fail: where forget and retain rest on the same weights, so that the mask frees few; where retain is so
    small that 1,500 steps learn it by heart. As after any ascent, a short relearning may bring back what it hid.

    Reference: Huang, Cheng, Zheng, Wang, He, Li, Huang, "Unified Gradient-Based Machine Unlearning with Remain Geometry
    Enhancement", NeurIPS 2024, arXiv 2409.19732, from the authors' code, at its settings for a random tenth of CIFAR-10
    (a tenth of TinyImageNet has AdamW, lr 2e-5, 500 steps, every=1, alpha=500, power=0.6). Differs from the code in
    drawing a batch of forget at every step, of which it uses each k-th; in examples of several rows; and in leaving out
    a moving average of the weights, whose factor there makes it none.
    """

    title = "SFR-on"
    strength = Strength(("alpha",))

    alpha: Positive = 25.0
    every: Count = 5
    power: NonNegative = 0.5
    gamma: NonNegative = 1.0
    ascent_clip: Positive = 7.0
    fit: Fit = Fit(lr=0.01, epochs=1500, steps=1500, schedule="cosine")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, beside which forget cycles."""
        request, task = job.request, job.task
        own, others = (batch_mean(student, task, request[s], self.fit.batch_size) for s in ("forget", "retain"))
        free = {name: (own[name] + TINY) / (others[name] + TINY) >= self.gamma for name in own}
        phase = Phase(loss_on("retain", task), {"retain": request.retain, "forget": request.forget}, self.fit)
        total = total_steps(phase)

        def masked() -> None:
            for name, weight in student.named_parameters():
                if weight.grad is not None:
                    weight.grad *= free[name]

        def step(current: StepState) -> Tensor:
            check_own_loss("SFRon", current, phase)
            if current.number % self.every == 0:
                size = self.alpha * (1 + math.cos(math.pi * current.number / total)) / 2
                away = loss_on("forget", task, lambda rows, batch: -size * self._weighted(rows, batch))
                plain_step(replace(current, loss=away, clip=self.ascent_clip, on_gradients=masked))
            return plain_step(current)

        return [replace(phase, step=step)]

    def _weighted(self, rows: Rows, _: Batch) -> Tensor:
        """The weighted mean of a batch's losses: the larger a loss, the less it counts."""
        losses = rows.losses()
        weights = 1 / (losses.detach() ** self.power + TINY)
        return (weights / weights.sum() * losses).sum()
