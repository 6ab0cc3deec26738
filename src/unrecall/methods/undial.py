"""UNDIAL: distillation from the original with each target's logit lowered."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.methods.base import (
    Average,
    Batch,
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
from unrecall.nn.functional import one_hot_mask
from unrecall.spec.parameters import NonNegative
from unrecall.tasks.protocols import Prompted
from unrecall.training.teacher import remembered


@dataclass(frozen=True)
class UNDIAL(GradientMethod):
    """On forget, answers as the original would if it had thought less of the true answer; asks nothing of retain.

        L = mean over rows of CE(softmax(z_0 - beta onehot(y)), p)  + retain_weight CE(retain)

    z_0 are the original's logits. Rows are all tokens; of a prompt's own tokens none is lowered. The target is fixed
    and the loss has a minimum, so training converges where ascent runs away. The mean is over all rows of a batch
    together, so that long answers weigh more.

    Args:
        beta: how far the true logit is lowered (also tried by its authors: 3 and 30); at 0 it is distillation.
        positions: "all" tokens of a text, as in the authors' code, or those of its "answer". Padding never counts (in
            their code it does). Examples without prompts are the same in both.
        retain_weight: weight of the retain loss; the paper: 0, and retain is not read.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
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
    positions: Literal["all", "answer"] = "all"
    retain_weight: NonNegative = 0.0
    average: Average = "example"
    fit: Fit = Fit(optimizer="adamw", lr=1e-4, weight_decay=0.0, batch_size=16, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it where it has a weight."""
        task = job.task.with_prompts() if self.positions == "all" and isinstance(job.task, Prompted) else job.task
        before = remembered(original, task, job.request.forget)

        def forget(rows: Rows, batch: Batch) -> Tensor:
            in_answer = task.in_answer(batch)[:, None] if task is not job.task and isinstance(task, Prompted) else 1.0
            return undial_loss(rows, before(batch), self.beta * in_answer)

        loss = loss_on("forget", task, forget)
        return with_retain(loss, RetainTerm(self.retain_weight, self.average), job, self.fit)


def undial_loss(rows: Rows, before: Tensor, beta: float | Tensor) -> Tensor:
    """Computes the forget term, given the original's logits `before` `[rows, classes]`; beta of all rows or each."""
    lowered = before - beta * one_hot_mask(rows.targets, before.shape[1])
    return F.cross_entropy(rows.logits, lowered.softmax(1))
