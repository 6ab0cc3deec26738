"""Weights as one flat vector, and back; a step along one; the weights of two models side by side."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unrecall.errors import NotSupported
from unrecall.nn.waiting import ask_for


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


def side_by_side(model: nn.Module, other: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The floating-point tensors of both models' states, by name; NotSupported where names or shapes differ."""
    own, theirs = ask_for(model).state_dict(), ask_for(other).state_dict()
    for name in [*own, *theirs]:
        shapes = [tuple(state[name].shape) if name in state else "none" for state in (own, theirs)]
        if shapes[0] != shapes[1]:
            raise NotSupported(
                f"weights: expected the same names and shapes as the other model's, got {shapes[0]} for {name}, there "
                f"{shapes[1]}. Compare models of one form."
            )
    return {
        name: (tensor, theirs[name].to(tensor.device)) for name, tensor in own.items() if tensor.is_floating_point()
    }
