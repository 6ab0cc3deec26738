"""DPO with refusals: "I don't know" is the answer that is wanted, the true one is not."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from unrecall.methods.base import (
    Average,
    Fit,
    GradientMethod,
    Job,
    Phase,
    RetainTerm,
    Strength,
    with_retain,
)
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.tasks.protocols import textual
from unrecall.training.preferences import preferring
from unrecall.training.refusals import REFUSALS, Refusal, refused


@dataclass(frozen=True)
class DPO(GradientMethod):
    """Makes a refusal more likely and the true answer less, both measured against the original, and holds retain.

        L = -(2 / beta) mean log sigmoid(beta (log(p(r|x) / p_0(r|x)) - log(p(y|x) / p_0(y|x))))
            + retain_weight CE(retain)

    r is a refusal, drawn once for each example; p(.|x) is the product over an answer's rows (a sum of
    log-probabilities, not a mean), p_0 the original's, which is read once from a pass over each. Needs a task with
    prompts and answers.

    Args:
        beta: how soon the push fades.
        retain_weight: weight of the retain loss; at 0 retain is not read.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
        refusals: the answers that r is drawn from, without commas and plus signs (a + separates them in a line).
        fit: AdamW, lr 1e-5, batch 32, 10 epochs over forget.

    Expected to fail: the answer is covered more than it is gone. It comes back where the refusal's first words are
    ruled out, as by giving the first words of the answer; refusals spread to questions that should be answered; and
    "I don't know" is itself a sign of what was forgotten.

    Reference: the baseline "IdkDPO" of Zhang, Lin, Bai, Mei, "Negative Preference Optimization: From Catastrophic
    Collapse to Effective Unlearning", COLM 2024, arXiv 2404.05868, after Rafailov et al., "Direct Preference
    Optimization", NeurIPS 2023, arXiv 2305.18290, with the refusals of Maini et al., "TOFU", COLM 2024, arXiv
    2401.06121. Differs from the papers in the wording of the refusals (TOFU has 100 of its own), in drawing one for
    each example once and not at every epoch, and in the factor 2 / beta, which is open-unlearning's: it gives the
    forget term the size that NPO's has, and matters only beside retain.
    """

    title = "DPO"
    strength = Strength(("fit.lr",), high=2**10)

    beta: Positive = 0.1
    retain_weight: NonNegative = 1.0
    average: Average = "example"
    refusals: Annotated[tuple[Refusal, ...], Field(min_length=1)] = REFUSALS
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it."""
        forget, task = job.request.forget, job.task
        text = textual(self, task, "Take NPO, which wants no other answer.")
        refusing = refused(text, forget, self.refusals, job.generator)
        loss = preferring(refusing, forget, original, task, self.beta)
        return with_retain(loss, RetainTerm(self.retain_weight, self.average), job, self.fit)
