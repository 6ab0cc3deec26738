"""DEL, deletion by example localization: fresh starts for the channels that matter most to forget, and retain."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, phase_over
from unrecall.models.chosen_layers import head_weight
from unrecall.models.importance import Weights, mean_gradient, most_salient
from unrecall.nn.hooks import check_no_experts, transposed_weights
from unrecall.spec.parameters import Share
from unrecall.training.fresh import reinitialise
from unrecall.training.loop import StepState, plain_step
from unrecall.training.teacher import frozen_copy
from unrecall.training.terms import check_own_loss

TOP = 0.1
"""Which share of a channel's weights its criticality is the mean over: the largest ones."""


@dataclass(frozen=True)
class ExampleLocalization(GradientMethod):
    """Starts the most critical weights anew, channel by channel, and trains these, with the head, on retain.

        c_j = |theta_j d CE(forget) / d theta_j|
        critical:  the `share` of all weights with the largest C, where C of a channel (a row of a matrix, a filter) is
                   the mean of the largest tenth of its c_j, and C of a bias or gain the largest c_j of its vector
        theta <- theta_fresh where critical,     then  min over critical weights and the head of  CE(retain)

    All other weights stay as they are, to the bit; BatchNorm's statistics are trained on. This is DEL and not
    `delete`, which is DELETE: that one distils from a masked original and sees no retain.

    Args:
        share: how much of the weights is critical, by rank over all of them together, in [0, 1]. 1 is retraining.
        fit: SGD, lr 0.015, momentum 0.9, no weight decay, batch 128, cosine, 30 epochs over retain.

    Expected to fail: where retain is small, fresh weights cost use; where what is known of forget lies in weights that
    matter little one by one.

    Reference: Torkzadehmahani, Nasirigerdeh, Kaissis, Rueckert, Dziugaite, Triantafillou, "Improved Localized Machine
    Unlearning Through the Lens of Memorization", TMLR 2025, arXiv 2412.02432, from the authors' code, at its settings
    for two classes of CIFAR-10 and a ResNet-18. Differs from the code in the largest tenth, which is of a channel's own
    weights (there as many as a tenth of the layer's channels, and all of them in vision transformers); in the cosine,
    which falls by step and to 0 (there by epoch, to a hundredth); and in the mean of a short last batch. Models that
    are no classifiers are ours; a head that shares its weights is trained whole wherever these are used.
    """

    title = "DEL"
    has_null = False
    strength = Strength(("share",))

    share: Share = 0.3
    fit: Fit = Fit(lr=0.015, weight_decay=0.0, epochs=30, schedule="cosine")

    def scaled(self, factor: float) -> Self:
        """Gives the same method with `factor` times the share, which ends at 1."""
        return replace(self, share=min(1.0, self.share * factor))

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, of which all weights but the critical and the head's are put back each step."""
        request, task = job.request, job.task
        check_no_experts(student, "ExampleLocalization", "Choose another method.")
        importance = criticality(student, mean_gradient(student, task, request.forget))
        critical = most_salient(by_channel(importance, transposed_weights(student)), self.share)
        head = of_head(student, job)
        start_anew(student, critical, job.generator)
        frozen_parts = {
            name: (p.detach().clone(), ~critical[name])
            for name, p in student.named_parameters()
            if name in critical and id(p) not in head
        }

        def step(current: StepState) -> Tensor:
            check_own_loss("ExampleLocalization", current, phase)
            loss = plain_step(current)
            with torch.no_grad():
                for name, (before, still) in frozen_parts.items():
                    weight = student.get_parameter(name)
                    weight.copy_(torch.where(still, before, weight))
            return loss

        phase = phase_over("retain", job, self.fit)
        return [replace(phase, step=step)]


def of_head(model: nn.Module, job: Job) -> set[int]:
    """Gives the ids of the head's weights; none where a task knows no head."""
    name = head_weight(model, job.task, job.request.forget).removesuffix("weight").removesuffix(".")
    return {id(p) for p in model.get_submodule(name).parameters()} if name else set()


def criticality(model: nn.Module, gradients: Weights) -> Weights:
    """Computes |theta dL / dtheta| of each weight that has a gradient."""
    return {name: (p.detach() * gradients[name]).abs() for name, p in model.named_parameters() if name in gradients}


def by_channel(criticalities: Weights, transposed: Collection[str] = ()) -> Weights:
    """Gives all weights of a channel the mean of its largest tenth, one at least, and those of a vector its largest.

    `transposed`: the names of weights whose channels are columns.
    """
    shared = {}
    for name, values in criticalities.items():
        if values.ndim < 2:
            shared[name] = values.max().expand_as(values)
            continue
        rows = values.T if name in transposed else values.flatten(1)
        largest = rows.topk(max(1, round(TOP * rows.shape[1])), dim=1).values.mean(1, keepdim=True)
        spread = largest.expand_as(rows)
        shared[name] = spread.T if name in transposed else spread.view_as(values)
    return shared


@torch.no_grad()
def start_anew(model: nn.Module, critical: dict[str, Tensor], generator: torch.Generator) -> None:
    """Draws fresh weights where that is critical, in place; NotSupported where a model's layers know none."""
    fresh = frozen_copy(model)
    reinitialise(fresh, generator)
    drawn = dict(fresh.named_parameters())
    for name, weight in model.named_parameters():
        if name in critical:
            weight.copy_(torch.where(critical[name], drawn[name], weight))
