"""Weights as one flat vector, and back; a step along one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    """Joins tensors, in their order, to one vector `[d]`."""
    return torch.cat([weight.flatten() for weight in weights.values()])


def shaped(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes a vector `[d]` apart into tensors of the shapes of `like`."""
    parts = torch.split(vector, [weight.numel() for weight in like.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(like.items(), parts, strict=True)}


@torch.no_grad()
def move(model: nn.Module, weights: Mapping[str, Tensor], change: Tensor) -> None:
    """Adds a flat change to those weights of a model that `weights` names, in place."""
    own = dict(model.named_parameters())
    for name, part in shaped(change, weights).items():
        own[name].add_(part.to(own[name]))
