"""CE-U: cross entropy towards what the model itself would say if the true answer did not exist."""

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
from unrecall.nn.functional import masked_softmax, one_hot_mask
from unrecall.spec.parameters import Index, NonNegative


@dataclass(frozen=True)
class CEU(GradientMethod):
    """Moves the target's probability to the other answers, in the proportions that they have at that moment.

        L = mean over rows of CE(t, p)  + retain_weight CE(retain),   t = softmax(z with z_y = -infinity), held constant

    The gradient on a row's logits is p - t: p_y at the target, so it neither vanishes where the model is sure nor
    grows without bound where it is not. The first rows of an answer are left out, for they tell its form more than its
    content. The mean is over all other rows of the batch together, so that long answers weigh more.

    Args:
        skip: rows left out at the start of each example; one with no more rows than that (a classifier's) keeps all.
        retain_weight: weight of the retain loss; the paper: 0, and retain is not read.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
        fit: AdamW, lr 1e-5, batch 32, 10 epochs over forget.

    Expected to fail: nothing holds retain; the first row is still known and a good start for an attack that gives it
    away; no retrained model is so sure that the true answer is wrong, so forget examples stand out; relearning.

    Reference: Yang, "CE-U: Cross Entropy Unlearning", arXiv 2503.01224. Differs from the paper in the fit, which is
    open-unlearning's default; the paper's own was not found. DELETE has the original's answers in place of the
    student's own.
    """

    title = "CE-U"
    strength = Strength(("fit.lr",), high=2**10)

    skip: Index = 1
    retain_weight: NonNegative = 0.0
    average: Average = "example"
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it where it has a weight."""
        loss = loss_on("forget", job.task, lambda rows, _: ce_u_loss(rows, self.skip))
        return with_retain(loss, RetainTerm(self.retain_weight, self.average), job, self.fit)


def ce_u_loss(rows: Rows, skip: int) -> Tensor:
    """Computes the forget term, the cross-entropy to the other answers."""
    later = beyond(rows, skip)
    logits = rows.logits[later]
    target = masked_softmax(logits.detach(), one_hot_mask(rows.targets[later], logits.shape[1]))
    return F.cross_entropy(logits, target)


def beyond(rows: Rows, skip: int) -> Tensor:
    """Marks the rows that come after the first `skip` of their example `[rows]`; all of an example that has no more."""
    return (rows.places() >= skip) | (rows.counts()[rows.example] <= skip)
