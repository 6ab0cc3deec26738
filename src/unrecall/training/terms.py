"""Losses that are sums of named terms, so that a step may differentiate one term alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.errors import NotSupported
from unrecall.training.loop import Batches, Loss, Phase, StepState, clip_gradients

Gradients: TypeAlias = dict[nn.Parameter, Tensor]
"""The gradient of each weight that has one."""


@dataclass(frozen=True)
class Terms:
    """The sum of several losses, computed in their order; `terms` names each after the split that it is of."""

    terms: Mapping[str, Loss]

    def __call__(self, model: nn.Module, batches: Batches) -> Tensor:
        """Computes the sum."""
        first, *others = [term(model, batches) for term in self.terms.values()]
        return sum(others, start=first)


def terms_of(phase: Phase) -> Terms:
    """Gives a phase's losses by split; a single one is `forget` if only forget is read, else `both`."""
    if isinstance(phase.loss, Terms):
        return phase.loss
    return Terms({"forget" if {*phase.streams} == {"forget"} else "both": phase.loss})


def weighted(weight: float, loss: Loss) -> Loss:
    """Makes the loss `weight` times as large."""
    return lambda model, batches: weight * loss(model, batches)


class Slope(NamedTuple):
    """A loss, detached, and its gradients."""

    value: Tensor
    gradients: Gradients


def slope(current: StepState, loss: Loss, stream: str = "") -> Slope:
    """Differentiates another loss in place of the step's own, without clipping; the weights' `.grad` holds it after.

    `stream`: the one whose batch it reads; all of them where no stream is called so.
    """
    batches = {stream: current.batches[stream]} if stream in current.batches else current.batches
    value = replace(current, loss=loss, batches=batches, clip=None).differentiate()
    return Slope(value, {p: p.grad for p in current.model.parameters() if p.grad is not None})


def move_along(current: StepState, gradients: Gradients) -> None:
    """Lets the optimiser take one step along these gradients, clipped as the recipe says."""
    for parameter in current.model.parameters():
        parameter.grad = gradients.get(parameter)
    if current.clip is not None:
        clip_gradients(current.model, current.clip)
    current.optimizer.step()


def added(first: Gradients, second: Gradients) -> Gradients:
    """Adds two sets of gradients; a weight that is in one alone has that one's."""
    return {p: first[p] + second[p] if p in first and p in second else g for p, g in {**first, **second}.items()}


def product(first: Gradients, second: Gradients) -> Tensor:
    """Computes the inner product of two sets of gradients over all weights that are in both."""
    parts = [(first[p].float() * second[p].float()).sum() for p in first if p in second]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def check_own_loss(owner: str, current: StepState, phase: Phase) -> None:
    """NotSupported, said by `owner`, where a step isn't asked for its phase's own loss: a wrapper put another there."""
    if current.loss is not phase.loss or current.on_gradients is not None:
        raise NotSupported(
            f"{owner}: expected to be asked for the base's own loss, got another plug-in's around it. Leave out one of "
            "the two."
        )
