"""FLAT: from the true answer towards a refusal, by a divergence between the two; nothing but forget is read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unrecall.data.batches import move
from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Rows, Strength
from unrecall.tasks.protocols import textual
from unrecall.training.refusals import REFUSALS, Refusal, refused


class Divergence(NamedTuple):
    """The two functions of a divergence's variational form: `rises` is maximised, `falls` minimised."""

    rises: Callable[[Tensor], Tensor]
    falls: Callable[[Tensor], Tensor]


DIVERGENCES: Mapping[str, Divergence] = {
    "tv": Divergence(lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2),
    "kl": Divergence(lambda v: v, lambda v: torch.exp(v - 1)),
    "js": Divergence(lambda v: math.log(2) - F.softplus(-v), lambda v: v + F.softplus(-v) - math.log(2)),
    "pearson": Divergence(lambda v: v, lambda v: v**2 / 4 + v),
}
"""g* and f*(g*) of total variation, Kullback-Leibler, Jensen-Shannon and Pearson."""


@dataclass(frozen=True)
class FLAT(GradientMethod):
    """Makes the words of a refusal likely and those of the true answer not, as far as a divergence weighs each.

        L = f*(g*(P(y|x))) - g*(P(r|x)),    P the mean over a batch of the mean probability of an answer's tokens
        tv:       g*(v) = tanh(v) / 2,              f*(g*(v)) = tanh(v) / 2
        kl:       g*(v) = v,                        f*(g*(v)) = exp(v - 1)
        js:       g*(v) = log 2 - log(1 + e^-v),    f*(g*(v)) = v + log(1 + e^-v) - log 2
        pearson:  g*(v) = v,                        f*(g*(v)) = v^2 / 4 + v

    r is a refusal, drawn once for each example. No retain data, no reference model. Needs prompts and answers.

    Args:
        divergence: "tv", "kl", "js" or "pearson".
        refusals: the answers that r is drawn from, without commas and plus signs (a + separates them in a line).
        fit: AdamW, lr 1e-5, batch 64, 5 epochs over forget.

    Expected to fail: as refusals do: they spread to questions that should be answered, for no retain data hold them
    back, and "I don't know" is itself a sign of what was forgotten. Probabilities near 0 or 1 have hardly a gradient,
    so that an answer known by heart takes long to begin to fall.

    Reference: Wang, Wei, Liu, Pang, Liu, Shah, Bao, Liu, Wei, "LLM Unlearning via Loss Adjustment with Only Forget
    Data", ICLR 2025, arXiv 2410.11143, from the authors' code, which has more divergences. Differs from it in the mean
    over an answer's own tokens (there over all places, those of the prompt as zeros), in leaving out warm-up, and in
    the wording of the refusals.
    """

    title = "FLAT"
    strength = Strength(("fit.lr",), high=2**10)

    divergence: Literal["tv", "kl", "js", "pearson"] = "tv"
    refusals: Annotated[tuple[Refusal, ...], Field(min_length=1)] = REFUSALS
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=64, epochs=5)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget."""
        forget, task, of = job.request.forget, job.task, DIVERGENCES[self.divergence]
        text = textual(self, task, "Take GradAscent, which wants no other answer.")
        refusing = refused(text, forget, self.refusals, job.generator)

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            batch = batches["forget"]
            wanted = move(task.collate([refusing[i] for i in batch["index"].tolist()]), batch["index"].device)
            return of.falls(probability(task.rows(model, batch))) - of.rises(probability(task.rows(model, wanted)))

        return [Phase(loss, {"forget": forget}, self.fit)]


def probability(rows: Rows) -> Tensor:
    """Computes P: the mean over examples of the mean probability of an example's targets, in [0, 1]."""
    targets = rows.logits.softmax(1).gather(1, rows.targets[:, None]).squeeze(1)
    return rows.per_example(targets).mean()
