"""UNDIAL: distillation from the original with each target's logit lowered."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Rows, Strength, beside_retain, loss_on
from unrecall.nn.functional import one_hot_mask
from unrecall.spec.parameters import NonNegative
from unrecall.training.teacher import remembered


@dataclass(frozen=True)
class UNDIAL(GradientMethod):
    """On forget, answers as the original would if it had thought less of the true answer; asks nothing of retain.

        L = mean over rows of CE(softmax(z_0 - beta onehot(y)), p)  + retain_weight CE(retain)

    z_0 are the original's logits. The target is fixed and the loss has a minimum, so training converges where ascent
    runs away. The mean is over all rows of the batch together, so that long answers weigh more.

    Args:
        beta: how far the true logit is lowered (also tried by its authors: 3 and 30); at 0 it is distillation.
        retain_weight: weight of the retain loss; the paper: 0, and retain is not read.
        fit: AdamW, lr 1e-4, batch 16, 10 epochs over forget.

    Expected to fail: what the original preferred by more than beta is still its first answer. Other wordings of the
    question were not distilled and may find the answer; so does relearning, within a few steps.

    Reference: Dong, Lin, Belkin, Huerta, Vulic, "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning
    in Large Language Models", NAACL 2025, arXiv 2402.10052. Differs from the paper in training every weight; the paper
    trains LoRA of rank 8 (alpha 16), which is `lora(undial):r=8` here, and the learning rate is meant for that.
    """

    title = "UNDIAL"
    strength = Strength(("fit.lr",), high=2**10)

    beta: NonNegative = 10.0
    retain_weight: NonNegative = 0.0
    fit: Fit = Fit(optimizer="adamw", lr=1e-4, weight_decay=0.0, batch_size=16, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it where it has a weight."""
        before = remembered(original, job.task, job.request.forget)
        loss = loss_on("forget", job.task, lambda rows, batch: undial_loss(rows, before(batch), self.beta))
        return beside_retain(loss, self.retain_weight, job, self.fit)


def undial_loss(rows: Rows, before: Tensor, beta: float) -> Tensor:
    """Computes the forget term, given the original's logits `before` `[rows, classes]`."""
    lowered = before - beta * one_hot_mask(rows.targets, before.shape[1])
    return F.cross_entropy(rows.logits, lowered.softmax(1))
