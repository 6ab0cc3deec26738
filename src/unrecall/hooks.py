"""Looking into a model and changing what flows through it, undone on leaving the `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[nn.Module]:
    """Puts `model` into train or eval mode, and each of its modules back as it was."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield model
    finally:
        for module, was in before.items():
            module.training = was


@contextmanager
def channels_last(model: nn.Module) -> Iterator[nn.Module]:
    """Lays 4-D weights out channels last, in which convolutions run faster, and back; values don't change.

    What was laid out in another way before comes back contiguous.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield model
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Switches off the gradients of all parameters, so that only inputs are differentiated."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield model
    finally:
        for p in wanted:
            p.requires_grad_(True)


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """All BatchNorm modules that keep running statistics, in registration order."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in norms if m.track_running_stats and isinstance(m.running_mean, torch.Tensor)]
