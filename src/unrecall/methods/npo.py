"""NPO: preference optimisation with forget as the answers that are not wanted, and none that are."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.methods.base import (
    Average,
    Fit,
    GradientMethod,
    Job,
    Phase,
    RetainTerm,
    Rows,
    Strength,
    loss_on,
    with_retain,
)
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.training.teacher import remembered, summed_losses


@dataclass(frozen=True)
class NPO(GradientMethod):
    """Pushes the probability of forget below the original model's, ever more gently, and holds retain.

        L = -(2 / beta) mean log sigmoid(-beta log(p(y|x) / p_0(y|x))) + retain_weight CE(retain)

    p(y|x) is the product over an example's rows (a sum of log-probabilities, not a mean), p_0 the original's, which is
    read once from a pass over forget. As beta falls to 0 the gradient becomes gradient ascent's on that sum.

    Args:
        beta: how soon the push fades; the paper: 0.1.
        retain_weight: weight of the retain loss; at 0 retain is not read.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
        fit: AdamW, lr 1e-5, batch 32, 10 epochs over forget.

    Expected to fail: relearning. What is pushed down in the last layers stands in the others, and comes back.

    Reference: Zhang, Lin, Bai, Mei, "Negative Preference Optimization: From Catastrophic Collapse to Effective
    Unlearning", COLM 2024, arXiv 2404.05868, as "NPO + RT" on TOFU. Differs from the paper in the fit, which is
    open-unlearning's (the authors' code: batches of 16, weight decay 0.01). Others' code that takes the mean over
    tokens in place of the sum is another method.
    """

    title = "NPO"
    strength = Strength(("fit.lr",), high=2**10)

    beta: Positive = 0.1
    retain_weight: NonNegative = 1.0
    average: Average = "example"
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it."""
        before = remembered(original, job.task, job.request.forget, summed_losses)
        loss = loss_on("forget", job.task, lambda rows, batch: npo_loss(rows, before(batch), self.beta))
        return with_retain(loss, RetainTerm(self.retain_weight, self.average), job, self.fit)


def npo_loss(rows: Rows, before: Tensor, beta: float) -> Tensor:
    """Computes the forget term, given the original's summed negative log-likelihoods `before` `[examples]`."""
    gained = before - summed_losses(rows)
    return -2 / beta * F.logsigmoid(-beta * gained).mean()
