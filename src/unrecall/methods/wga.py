"""WGA: gradient ascent in which each row weighs what the model still gives its target."""

from dataclasses import dataclass

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
from unrecall.nn.functional import nll
from unrecall.spec.parameters import NonNegative, Positive


@dataclass(frozen=True)
class WGA(GradientMethod):
    """Climbs the loss of forget, less and less where little of it is left, and holds retain.

        L = gamma mean over rows of  p^beta log p  + alpha CE(retain),   p = p(y | x) of the row, p^beta held constant

    Plain ascent's gradient grows as 1 / p; the weight takes that growth away. The mean is over all rows of the batch
    together, so that long answers weigh more.

    Args:
        beta: how strongly likely rows are preferred; at 0 it is gradient ascent, at 1 the gradient is that of p.
        gamma: weight of the forget term.
        alpha: weight of the retain term.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
        fit: AdamW, lr 1e-5, batch 32, 5 epochs over forget.

    Expected to fail: what the model gave little probability is left as it was, though an attacker with several
    attempts finds it there; and relearning.

    Reference: Wang, Zhou, Zhou, Shin, Han, Weinberger, "Rethinking LLM Unlearning Objectives: A Gradient Perspective
    and Go Beyond", ICLR 2025, arXiv 2502.19301. Differs from the authors' code in the retain term, which it lacks;
    weights, epochs and the rest of the defaults are those of open-unlearning.
    """

    title = "WGA"
    strength = Strength(("fit.lr",), high=2**10)

    beta: NonNegative = 1.0
    gamma: Positive = 1.0
    alpha: NonNegative = 1.0
    average: Average = "example"
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=5)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it."""
        loss = loss_on("forget", job.task, lambda rows, _: self.gamma * wga_loss(rows, self.beta))
        return with_retain(loss, RetainTerm(self.alpha, self.average), job, self.fit)


def wga_loss(rows: Rows, beta: float) -> Tensor:
    """Computes the forget term, without its weight."""
    log_p = -nll(rows.logits, rows.targets)
    return (log_p.detach().exp() ** beta * log_p).mean()
