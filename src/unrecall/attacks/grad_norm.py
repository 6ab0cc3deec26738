"""The gradient-norm attack: examples on which training would change little were probably trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unrecall.attacks.base import MembershipAttack, both_arms
from unrecall.data.request import Split
from unrecall.errors import NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.models.gradient_norms import gradient_norms
from unrecall.record.schema import ThreatModel
from unrecall.training.job import Job


@dataclass(frozen=True)
class GradNorm(MembershipAttack):
    """Scores an example by minus the norm of its loss's gradient in all weights, the model in eval mode.

        score(x) = - || d loss(x) / d theta ||_2

    Norms of many examples are taken at once, without their gradients. Weights that are frozen count too, so that models
    are alike whatever a method froze.

    Expected to fail: where the loss attack fails, whose order it mostly keeps. Where the loss was raised on purpose it
    may still tell: a model that was pushed away from an example lies on a slope.

    Reference: Rezaei, Liu, "On the Difficulty of Membership Inference Attacks", CVPR 2021, arXiv 2005.13702, for
    classifiers; Wang, Wang, Li, Neel, "Pandora's White-Box", 2024, arXiv 2402.17012, for language models (its authors
    withdrew version 4 over a bug in their experiments). Differs from both in using the 2-norm over all weights alone
    (they also try others, and gradients in the inputs).
    """

    title: ClassVar[str] = "Gradient norm"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's weights",
        data="the examples in question and their labels",
        budget="one gradient an example",
    )

    def extra_signals(self, model: nn.Module, job: Job) -> Mapping[Split, np.ndarray]:
        """The norm of each example's gradient `[n]`; MissingReference without a holdout."""
        arms, task = both_arms(job.request), job.task
        if task.rows_depend_on_batch:
            raise NotSupported(
                f"GradNorm: expected examples that have a loss of their own, got {type(task).__name__}. Leave it out."
            )
        return {split: gradient_norms(model, task, examples) for split, examples in arms.items()}

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """Minus the norm; NotSupported for a split that was not looked at."""
        return -self.extra_of(evidence, split)
