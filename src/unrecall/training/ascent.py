"""Gradient ascent on forget by a few weights: how copies of the original come to hide what they still know."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.batches import move
from unrecall.data.examples import Examples
from unrecall.errors import Diverged
from unrecall.models.layers import weight_of
from unrecall.models.observe import accuracy, device_of, in_order
from unrecall.nn.hooks import frozen, mode, unfrozen
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Loss, Phase, Step, StepState, fit, plain_step

Cell: TypeAlias = tuple[Tensor, Tensor]
"""How low and how high each weight may go."""


def head_of(model: nn.Module, job: Job) -> nn.Linear:
    """The linear layer that turns features into logits; NotSupported where there is none."""
    some = job.request.retain or job.request.forget  # any example passes through it
    return job.task.head(model, move(job.task.collate([some[0]]), device_of(model)))


def last_used(model: nn.Module, job: Job) -> list[nn.Parameter]:
    """The weights of the last block that decide what the model answers; a head that isn't asked has none."""
    batch = next(in_order(model, job.task, job.request.forget))
    no_cudnn = torch.backends.cudnn.flags(enabled=False)  # in eval mode its recurrent layers have no backward pass
    with mode(model, training=False), unfrozen(model), torch.enable_grad(), no_cudnn:
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = job.task.rows(model, batch).losses().mean()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True) if loss.requires_grad else ()
    used = {p for p, gradient in zip(weights, gradients, strict=False) if gradient is not None}
    blocks = reversed(job.task.blocks(model))
    of_blocks = ([p for part in modules for p in part.parameters() if p in used] for _, modules in blocks)
    return next(filter(None, of_blocks), [])


def ascend_within(model: nn.Module, layers: Sequence[Any], bounds: Callable[[Tensor], Cell], job: Job) -> None:
    """Gradient ascent on forget, in place, by the weights of these layers, none of which leaves its bounds.

    `bounds`: how low and how high each weight `[out, in, ...]` of a layer may go.
    """
    cells = [(weight, *bounds(weight)) for weight in map(weight_of, layers)]

    def step(current: StepState) -> Tensor:
        loss = plain_step(current)
        for weight, low, high in cells:
            weight.clamp_(low, high)
        return loss

    ascend(model, [layer.weight for layer in layers], job, step)


def ascend(
    model: nn.Module,
    moved: Sequence[nn.Parameter],
    job: Job,
    step: Step = plain_step,
    streams: Mapping[str, Examples] | None = None,
    loss: Loss | None = None,
) -> None:
    """Gradient ascent on forget, in place, by these weights alone, until half of what was predicted right is wrong.

    AdamW at 1 % of the weights' root mean square, at most 200 steps of 32 examples; looks every 5 of them.
    `streams`: what to ascend on in place of forget ("forget"), and what to descend on meanwhile ("kept"), if anything.
    `loss`: what to descend on in place of both.
    """
    task, streams = job.task, streams or {"forget": job.request.forget}
    squares = sum(float(p.detach().float().square().sum()) for p in moved)
    recipe = Fit(
        optimizer="adamw",
        lr=0.01 * (squares / sum(p.numel() for p in moved)) ** 0.5,
        weight_decay=0.0,
        batch_size=32,
        epochs=200,
        steps=200,
        until=0.5 * float(accuracy(model, task, streams["forget"]).mean()),
        check_every=5,
    )

    def climb(moving: nn.Module, drawn: Batches) -> Tensor:
        climbed = -task.rows(moving, drawn["forget"]).losses().mean()
        return climbed + task.rows(moving, drawn["kept"]).losses().mean() if "kept" in drawn else climbed

    with frozen(model), suppress(Diverged):
        for p in moved:
            p.requires_grad_(True)
        fit(
            model,
            task,
            Phase(loss or climb, streams, recipe, step),
            job.generator,
            job.session.quiet().named("disguise"),
        )
