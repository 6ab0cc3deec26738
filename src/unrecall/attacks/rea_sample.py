"""Reminiscence attack, sample form: training on retain alone brings back what a model still held of forget."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import nn

from unrecall.attacks.base import ARMS, MembershipAttack, both_arms
from unrecall.attacks.lira import Lira
from unrecall.data.request import SPLITS, Split
from unrecall.errors import BadInput, Diverged, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.models.observe import observe, one_size
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.training.copies import own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit, loss_on


@dataclass(frozen=True)
class ReaSample(MembershipAttack):
    """Fine-tunes a copy on retain, which none of forget is in, and asks that copy for membership.

        theta <- theta - lr * grad CE(retain),    lr_1 for some epochs, then lr_2, ...
        score = LiRA's, offline: (phi - mu_out) / sd_out,    phi = log(p / (1 - p)) of the fine-tuned copy

    Every model is fine-tuned in the same way, on the same batches. The OUT models of LiRA are the retrained ones as
    they are, without fine-tuning: what that changes everywhere alike, it changes for holdout too, against which forget
    is held. Takes six epochs over retain for each model.

    Args:
        learning_rates: one after another, each with an optimiser of its own; the paper's for a ViT are 1e-4 and 5e-5,
            with AdamW, weight decay 1e-4.
        per_example: as LiRA's: with fewer references than this one pooled deviation serves all examples.
        fit: SGD, momentum 0.9, weight decay 5e-4, batch 256, 3 epochs at each rate; lr comes from above.

    Expected to fail: with few references LiRA is weak, and so is this; on models that were destroyed, for which retain
    teaches anew what any model of retain knows. Rates that don't fit a model undo it or leave it as it was.

    Reference: Xiao, Ye, Hu, Zheng, Hu, Liang, Li, Jiao, "Reminiscence Attack on Residuals: Exploiting Approximate
    Machine Unlearning for Privacy", ICCV 2025, arXiv 2507.20573, from its code. Differs from the code in one query an
    example (ten augmented ones there), in as many references as the audit has (eight shadow models there, each trained
    on a random 83 % of all data), and in all of forget and holdout (500 examples each there).
    """

    title: ClassVar[str] = "Reminiscence attack, sample form"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: trains a copy; the copy's probability of the true label",
        data="all retain examples; the examples in question and their labels",
        budget="six epochs over retain, and two or more retrained models",
    )

    learning_rates: tuple[Positive, ...] = (0.01, 0.005)
    per_example: Count = 8
    fit: Fit = Fit(batch_size=256, epochs=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rates:
            raise BadInput("ReaSample: expected at least one learning rate, got none. Name one for each round.")

    def extra_signals(self, model: nn.Module, job: Job) -> Mapping[Split, np.ndarray]:
        """The fine-tuned copy's mean loss on each example, in nats, `[n]`; NotSupported where fine-tuning diverges."""
        request, task, session = job.request, job.task, job.session.quiet()
        arms, student = both_arms(request), own_copy(model)
        try:
            for rate in self.learning_rates:
                phase = Phase(loss_on("retain", task), {"retain": request.retain}, replace(self.fit, lr=rate))
                fit(student, task, phase, job.generator, session.named("rea_sample"))
        except Diverged as error:
            raise NotSupported(f"ReaSample: expected rates at which fine-tuning stays finite, got {error}") from error
        size = one_size(task, (request[split] for split in SPLITS))
        return {split: observe(student, task, examples, size).loss for split, examples in arms.items()}

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """LiRA's score of the fine-tuned copy; MissingReference with fewer than two references."""
        self.extra_of(evidence, split)
        reminded = {arm: replace(evidence.signals[arm], loss=self.extra_of(evidence, arm)) for arm in ARMS}
        return Lira(self.per_example).score(replace(evidence, signals=reminded), split)
