"""Gradient difference: up the loss of forget, down that of retain."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from unrecall.methods.base import Average, Fit, GradientMethod, Job, Phase, Strength, loss_on
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.tasks.protocols import Prompted
from unrecall.training.loop import averaged
from unrecall.training.teacher import distance, remembered
from unrecall.training.terms import Terms, weighted


@dataclass(frozen=True)
class GradDiff(GradientMethod):
    """Gradient ascent on forget, held by retain's labels or by what the original said about retain.

        nll:  L = -gamma CE(forget) + alpha CE(retain)
        kl:   L = -gamma CE(forget) + alpha KL(p_0 || p) on retain

    CE is the mean over an example's rows, then over examples, unless `average` says else. Unlike NegGrad+ an epoch is a
    pass over forget.

    Args:
        gamma: weight of the forget term.
        alpha: weight of the retain term.
        hold: "nll" by default.
        positions: of "kl": over "all" tokens of a text, as in TOFU's code, or those of its "answer".
        average: what CE and KL are the mean over: "example", or "row" (token), as in TOFU's code and others.
        fit: AdamW, lr 1e-5, batch 32, 10 epochs over forget.

    Expected to fail: relearning; the loss of forget has no upper bound, and once it is large its gradient drowns
    retain's.

    Reference: Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", COLM 2024, arXiv 2401.06121, after Liu,
    Liu, Stone, "Continual Learning and Private Unlearning", CoLLAs 2022, arXiv 2203.12817. Differs from the paper in
    the defaults, which are those of later comparisons (TOFU itself: lr 1e-5, 5 epochs).
    """

    title = "GradDiff"
    strength = Strength(("fit.lr",), high=2**10)

    gamma: Positive = 1.0
    alpha: NonNegative = 1.0
    hold: Literal["nll", "kl"] = "nll"
    positions: Literal["all", "answer"] = "all"
    average: Average = "example"
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it."""
        request, task = job.request, job.task
        forget, retain = (loss_on(split, task, averaged(self.average)) for split in ("forget", "retain"))
        if self.hold == "kl":
            wide = task.with_prompts() if self.positions == "all" and isinstance(task, Prompted) else task
            before = remembered(original, wide, request.retain)
            retain = loss_on("retain", wide, lambda rows, batch: distance(rows, before(batch), average=self.average))
        loss = Terms({"forget": weighted(-self.gamma, forget), "retain": weighted(self.alpha, retain)})
        return [Phase(loss, {"forget": request.forget, "retain": request.retain}, self.fit)]
