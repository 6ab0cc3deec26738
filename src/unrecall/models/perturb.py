"""Perturbed inputs: Gaussian noise, FGSM and PGD in two norms, targeted or not. Inputs stay within the task's bounds.

Deviations, radii and steps are shares of the width of those bounds: 8/255 is the same of pixels in [0, 1] and [0, 255].

A *targeted* step goes down the loss towards a wished-for class; an untargeted one goes up the loss of the true class.
All examples of a batch are perturbed at once, so many draws are one large batch (`examples.repeat`).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.signals import Rows
from unrecall.models.observe import by_example, in_order
from unrecall.nn.functional import nll
from unrecall.nn.hooks import frozen
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Perturbable, perturbable

Norm: TypeAlias = Literal["linf", "l2"]
"""How far an input may move: the largest change of any entry, or the Euclidean length of the change."""


DEVIATION = 0.25
"""The deviation of inputs, as a share of the width of their bounds, where nobody measured it: about CIFAR-10's."""


def width(able: Perturbable) -> float:
    """How far the task's bounds lie apart, in input units."""
    low, high = able.bounds
    return high - low


def unit(able: Perturbable) -> float:
    """What 1 is of inputs that are normalised, as those of many papers are, in input units."""
    return DEVIATION * width(able)


def noise_like(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard normal noise shaped like `inputs`, where the generator lives: the same on any device."""
    return torch.randn(inputs.shape, generator=generator, device=generator.device).to(inputs)


def gaussian(task: Task, batch: Batch, std: float, generator: torch.Generator) -> Batch:
    """x' = clamp(x + std * width * N(0, I)). The l2 norm of the noise is about std * width * sqrt(d)."""
    able = perturbable(task)
    inputs = able.inputs(batch)
    return able.with_inputs(batch, (inputs + std * width(able) * noise_like(inputs, generator)).clamp(*able.bounds))


def other_classes(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Draws a class that is not the target for each row `[rows]`, all others equally likely."""
    shift = torch.randint(1, classes, targets.shape, generator=generator, device=generator.device)
    return (targets + shift.to(targets)) % classes


def any_classes(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Draws a class for each row `[rows]`, all equally likely, the target's own among them."""
    return torch.randint(classes, targets.shape, generator=generator, device=generator.device).to(targets)


def other_answers(model: nn.Module, task: Task, examples: Examples, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draws, for each row of each example, a class other than its own; `[rows]` for each example."""
    drawn = (draw_others(model, task, batch, generator) for batch in in_order(model, task, examples))
    return tuple(labels for batch in drawn for labels in batch)


@torch.no_grad()
def draw_others(model: nn.Module, task: Task, batch: Batch, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draws another class for each row of each example of a batch."""
    rows = task.rows(model, batch)
    return by_example(rows, other_classes(rows.targets, rows.logits.shape[1], generator))


def strongest_other(rows: Rows) -> Tensor:
    """Finds the class that each row gives the highest logit beside its target `[rows]`."""
    return rows.logits.scatter(1, rows.targets[:, None], float("-inf")).argmax(1)


class Walk(NamedTuple):
    """How an input is moved: how far at most, in which steps, and where to.

    `radius`, `step`, `norm`: the ball that it stays in, and the length of each of `steps` steps, as shares of the width
    of the bounds. `targets` [rows]: the
    classes that it is moved towards, or, with `away`, from; None: away from its own. `arrived(rows)`: which examples
    stay where they are from now on `[examples]`.
    """

    radius: float
    step: float
    steps: int
    norm: Norm = "linf"
    targets: Tensor | None = None
    away: bool = False
    arrived: Callable[[Rows], Tensor] | None = None


def pgd(model: nn.Module, task: Task, batch: Batch, walk: Walk, generator: torch.Generator | None = None) -> Batch:
    """Projected gradient descent: `walk`, step by step.

        linf:   x <- clamp(project(x + step sign(g)))        l2:   x <- clamp(project(x + step g / ||g||_2))

    g is the gradient of what is climbed: the loss of the true class, or minus that of `walk.targets`.

    Starts at a random point of the ball if a generator is given (linf: uniform; l2: uniform in direction and length),
    at the input itself otherwise. Uses `model` as it is (train or eval mode is the caller's choice) and leaves its
    gradients alone.

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, 1706.06083.
    """
    able = perturbable(task)
    clean = able.inputs(batch).detach()
    low, high = able.bounds
    radius, step = (share * width(able) for share in (walk.radius, walk.step))
    perturbed = clean
    if generator is not None:
        perturbed = (clean + radius * _start(clean, walk.norm, generator)).clamp(low, high)
    with frozen(model), torch.enable_grad():
        for _ in range(walk.steps):
            perturbed = perturbed.detach().requires_grad_(True)
            rows = task.rows(model, able.with_inputs(batch, perturbed))
            (gradient,) = torch.autograd.grad(_objective(rows, walk.targets, walk.away), perturbed)
            ahead = gradient.sign() if walk.norm == "linf" else gradient / _length(gradient)
            change = _within(perturbed.detach() + step * ahead - clean, radius, walk.norm)
            further = torch.clamp(clean + change, low, high)
            if walk.arrived is not None:
                further = torch.where(walk.arrived(rows).view(-1, *[1] * (clean.ndim - 1)), perturbed, further)
            perturbed = further
    return able.with_inputs(batch, perturbed.detach())


def _start(clean: Tensor, norm: Norm, generator: torch.Generator) -> Tensor:
    """Draws a random point of the unit ball for each example."""
    if norm == "linf":
        return 2 * torch.rand(clean.shape, generator=generator, device=generator.device).to(clean) - 1
    direction = noise_like(clean, generator)
    share = torch.rand(len(clean), generator=generator, device=generator.device).to(clean)
    unit: Tensor = direction / _length(direction)
    return unit * share.view(-1, *[1] * (clean.ndim - 1))


def _within(change: Tensor, radius: float, norm: Norm) -> Tensor:
    """Finds the nearest change that is inside the ball."""
    if norm == "linf":
        return change.clamp(-radius, radius)
    return change * (radius / _length(change)).clamp(max=1)


def _length(values: Tensor) -> Tensor:
    """Computes the Euclidean length of each example, shaped to divide by; never 0."""
    length: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).clamp_min(1e-10)
    return length.view(-1, *[1] * (values.ndim - 1))


def _objective(rows: Rows, targets: Tensor | None, away: bool) -> Tensor:
    """Sums what is climbed over rows: the loss of the truth, or that of `targets`, negative unless `away`."""
    if targets is None:
        return nll(rows.logits, rows.targets).sum()
    return nll(rows.logits, targets).sum() * (1 if away else -1)


def fgsm(model: nn.Module, task: Task, batch: Batch, *, radius: float, targets: Tensor | None = None) -> Batch:
    """One step of the whole radius from the input itself: x' = clamp(x + radius * sign(gradient)).

    Reference: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, arXiv 1412.6572.
    """
    return pgd(model, task, batch, Walk(radius=radius, step=radius, steps=1, targets=targets))
