"""Perturbed inputs: Gaussian noise, FGSM and PGD in two norms, targeted or not. Inputs stay within the task's bounds.

A *targeted* step goes down the loss towards a wished-for class; an untargeted one goes up the loss of the true class.
All examples of a batch are perturbed at once, so many draws are one large batch (`types.repeat`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.examples import Batch
from unrecall.data.signals import Rows
from unrecall.nn.functional import nll
from unrecall.nn.hooks import frozen
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import perturbable

Norm: TypeAlias = Literal["linf", "l2"]
"""How far an input may move: the largest change of any entry, or the Euclidean length of the change."""


def noise_like(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise shaped like `inputs`, drawn where the generator lives: the same on any device."""
    return torch.randn(inputs.shape, generator=generator, device=generator.device).to(inputs)


def gaussian(task: Task, batch: Batch, std: float, generator: torch.Generator) -> Batch:
    """x' = clamp(x + std * N(0, I)); `std` in input units. The l2 norm of the noise is about std * sqrt(d)."""
    able = perturbable(task)
    inputs = able.inputs(batch)
    return able.with_inputs(batch, (inputs + std * noise_like(inputs, generator)).clamp(*able.bounds))


def other_classes(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A uniformly random class that differs from the target, for each row `[rows]`."""
    shift = torch.randint(1, classes, targets.shape, generator=generator, device=generator.device)
    return (targets + shift.to(targets)) % classes


def strongest_other(rows: Rows) -> Tensor:
    """The class that each row gives the highest logit beside its target `[rows]`."""
    return rows.logits.scatter(1, rows.targets[:, None], float("-inf")).argmax(1)


def pgd(
    model: nn.Module,
    task: Task,
    batch: Batch,
    *,
    radius: float,
    step: float,
    steps: int,
    generator: torch.Generator | None,
    targets: Tensor | None = None,
    away: bool = False,
    norm: Norm = "linf",
    arrived: Callable[[Rows], Tensor] | None = None,
) -> Batch:
    """Projected gradient descent in the ball of `radius`; with `targets` [rows] towards these classes.

        linf:   x <- clamp(project(x + step sign(g)))        l2:   x <- clamp(project(x + step g / ||g||_2))

    g is the gradient of what is climbed. `away` goes up the loss of `targets` in place of down. `arrived(rows)`: which
    examples stay where they are from now on `[examples]`.

    Starts at a random point of the ball if a generator is given (linf: uniform; l2: uniform in direction and length),
    at the input itself otherwise. Uses `model` as it is (train or eval mode is the caller's choice) and leaves its
    gradients alone.

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, 1706.06083.
    """
    able = perturbable(task)
    clean = able.inputs(batch).detach()
    low, high = able.bounds
    moved = clean
    if generator is not None:
        moved = (clean + radius * _start(clean, norm, generator)).clamp(low, high)
    with frozen(model), torch.enable_grad():
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            rows = task.rows(model, able.with_inputs(batch, moved))
            (gradient,) = torch.autograd.grad(_objective(rows, targets, away), moved)
            ahead = gradient.sign() if norm == "linf" else gradient / _length(gradient)
            further = torch.clamp(clean + _within(moved.detach() + step * ahead - clean, radius, norm), low, high)
            if arrived is not None:
                further = torch.where(arrived(rows).view(-1, *[1] * (clean.ndim - 1)), moved, further)
            moved = further
    return able.with_inputs(batch, moved.detach())


def _start(clean: Tensor, norm: Norm, generator: torch.Generator) -> Tensor:
    """A random point of the unit ball for each example."""
    if norm == "linf":
        return 2 * torch.rand(clean.shape, generator=generator, device=generator.device).to(clean) - 1
    direction = noise_like(clean, generator)
    share = torch.rand(len(clean), generator=generator, device=generator.device).to(clean)
    unit: Tensor = direction / _length(direction)
    return unit * share.view(-1, *[1] * (clean.ndim - 1))


def _within(change: Tensor, radius: float, norm: Norm) -> Tensor:
    """The nearest change that is inside the ball."""
    if norm == "linf":
        return change.clamp(-radius, radius)
    return change * (radius / _length(change)).clamp(max=1)


def _length(values: Tensor) -> Tensor:
    """The Euclidean length of each example, shaped to divide by; never 0."""
    length: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).clamp_min(1e-10)
    return length.view(-1, *[1] * (values.ndim - 1))


def _objective(rows: Rows, targets: Tensor | None, away: bool) -> Tensor:
    """What is ascended: the loss of the truth, or minus the loss of the wished-for class. Summed, so rows don't mix."""
    if targets is None:
        return nll(rows.logits, rows.targets).sum()
    return nll(rows.logits, targets).sum() * (1 if away else -1)


def fgsm(model: nn.Module, task: Task, batch: Batch, *, radius: float, targets: Tensor | None = None) -> Batch:
    """One step of the whole radius from the input itself: x' = clamp(x + radius * sign(gradient)).

    Reference: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, arXiv 1412.6572.
    """
    return pgd(model, task, batch, radius=radius, step=radius, steps=1, generator=None, targets=targets)
