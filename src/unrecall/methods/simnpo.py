"""SimNPO: NPO without a reference, on the mean loss in place of the sum."""

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
from unrecall.spec.parameters import Finite, NonNegative, Positive


@dataclass(frozen=True)
class SimNPO(GradientMethod):
    """Raises the mean loss of each forget example, ever more gently, and holds retain; needs no reference model.

        L = -gamma (2 / beta) mean log sigmoid(beta (CE(x) - delta)) + alpha CE(retain)

    CE(x) is the mean negative log-likelihood over the example's rows, in nats, so that long answers do not weigh more
    than short ones. The push is strong where the loss is below delta and fades as it rises above, over 1 / beta nats.

    Args:
        beta: how soon the push fades.
        delta: the mean loss at which the push has half its full strength; the paper's margin is beta * delta.
        gamma: weight of the forget term (the paper, on a twentieth of TOFU: 0.1375, at beta 2.5).
        alpha: weight of the retain term.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
        fit: AdamW, lr 1e-5, batch 32, 10 epochs over forget.

    Expected to fail: relearning, as NPO; and every example is raised to about the same loss, whatever loss a retrained
    model would have given it.

    Reference: Fan, Liu, Lin, Jia, Zhang, Mei, Liu, "Simplicity Prevails: Rethinking Negative Preference Optimization
    for LLM Unlearning", NeurIPS 2025, arXiv 2410.07163. Differs from the paper in the defaults, which are those of
    open-unlearning; the paper tunes beta and gamma for each data set.
    """

    title = "SimNPO"
    strength = Strength(("fit.lr",), high=2**10)

    beta: Positive = 4.5
    delta: Finite = 0.0
    gamma: Positive = 0.125
    alpha: NonNegative = 1.0
    average: Average = "example"
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it."""
        loss = loss_on("forget", job.task, lambda rows, _: self.gamma * simnpo_loss(rows, self.beta, self.delta))
        return with_retain(loss, RetainTerm(self.alpha, self.average), job, self.fit)


def simnpo_loss(rows: Rows, beta: float, delta: float) -> Tensor:
    """Computes the forget term, without its weight."""
    return -2 / beta * F.logsigmoid(beta * (rows.losses() - delta)).mean()
