"""Layers by name, those that hold a matrix, those of one kind, where the last representation begins, and one vector an
example of what leaves a layer."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.data.examples import Examples
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, NotSupported
from unrecall.models.observe import device_of
from unrecall.nn.hooks import check_no_experts, differentiable, is_linear, is_transposed, mode, until
from unrecall.tasks.base import Task


def named(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Finds modules of the model by dotted names; BadInput, with the names that there are, for one that it lacks."""
    modules = {name: module for name, module in model.named_modules() if name}
    for name in layers:
        if name not in modules:
            raise BadInput(f"layers: expected names of the model's modules, got '{name}'. Known: {', '.join(modules)}.")
    return {name: modules[name] for name in layers}


def block_weights(model: nn.Module, task: Task) -> list[list[str]]:
    """Names the weights of each block that has any, from input to output; a shared one once a block."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    blocks = (dict.fromkeys(names[id(p)] for m in group for p in m.parameters()) for _, group in task.blocks(model))
    return [list(block) for block in blocks if block]


def before_head(model: nn.Module, task: Task, batch: Batch) -> dict[str, nn.Module]:
    """Finds the last module of each block before the head, by dotted name, from input to output."""
    endings = {id(module) for module in task.endings(model, batch)}
    names = {id(module): name for name, module in model.named_modules()}
    return {
        names[id(group[-1])]: group[-1]
        for _, group in task.blocks(model)
        if endings.isdisjoint(id(module) for part in group for module in part.modules())
    }


def matrices(model: nn.Module, task: Task, examples: Examples) -> list[Any]:
    """Lists the linear and convolution layers but the last of all, or of each tower; one of those that share a weight.

    `examples`: of which one shows where the model ends. NotSupported where there are none, for a mixture of experts, or
    where a weight is computed from others, as weight_norm's is: what is written into it would be lost.
    """
    check_no_experts(model, "layers", "Leave it out.")
    ends = {id(end) for end in task.endings(model, move(task.collate([examples[0]]), device_of(model)))}
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [m for m in model.modules() if id(m) not in ends and (isinstance(m, kinds) or is_linear(m))]
    if not layers:
        raise NotSupported("layers: expected linear layers or convolutions besides the head, got none. Leave it out.")
    if any("weight" not in layer._parameters for layer in layers):
        raise NotSupported(
            "layers: expected weights that can be written, got one that is computed from others. Use "
            "torch.nn.utils.parametrize.remove_parametrizations first."
        )
    return list({id(layer.weight): layer for layer in reversed(layers)}.values())[::-1]


def of_one_kind(owner: object, model: nn.Module, task: Task, examples: Examples) -> list[nn.Module]:
    """Lists the last module of each block of the longest run of blocks of one kind, the head's block left out.

    `examples`: of which the first shows where the model ends. NotSupported, said by `owner`, for fewer than two, or
    where they give out different shapes.
    """
    batch, name = move(task.collate([examples[0]]), device_of(model)), type(owner).__name__
    head = task.head(model, batch)
    groups = [group for _, group in task.blocks(model) if not any(head is m for part in group for m in part.modules())]
    runs = [list(run) for _, run in itertools.groupby(groups, lambda group: [*map(type, group)])]
    layers = [group[-1] for group in max(runs, key=len, default=[])]
    if len(layers) < 2:
        raise NotSupported(f"{name}: expected two layers of one kind or more, got {len(layers)}.")
    with mode(model, training=False), torch.no_grad():
        outputs = [until(layer, lambda: task.rows(model, batch)) for layer in layers]
    shapes = {None if output is None else tuple(output.shape) for output in outputs}
    if len(shapes) > 1 or None in shapes:
        raise NotSupported(f"{name}: expected layers that give out one shape, got {len(shapes)} different ones.")
    return layers


def weight_of(layer: Any) -> Tensor:
    """Gives a layer's weight `[out, in, ...]`, without gradients; it shares the layer's memory."""
    weight: Tensor = layer.weight.detach()
    return weight.T if is_transposed(layer) else weight


class LayerOutputs(NamedTuple):
    """Rows of a batch, and what each layer gave out in the same pass, by name; no layer that took no part in it.

    `positions` `[n, positions]`: which positions of a sequence hold input; None where all do.
    """

    rows: Rows
    outputs: Mapping[str, Tensor]
    positions: Tensor | None


def layer_outputs(model: nn.Module, layers: Mapping[str, nn.Module], task: Task, batch: Batch) -> LayerOutputs:
    """Sends a batch through the model once; a layer that is used several times is read at its first use."""
    with differentiable(layers) as activations:
        rows = task.rows(model, batch)
    outputs = {name: uses[0] for name, uses in activations.items() if uses}
    return LayerOutputs(rows, outputs, task.positions(batch))


def pooled(h: Tensor, positions: Tensor | None = None) -> Tensor:
    """Takes the mean over a sequence's positions, or over a map's places: `[n, d]` in float32.

    `positions` `[n, positions]`: which of them count; all do where it is None or of another shape than the sequence's.
    """
    h = h.float()
    if h.ndim == 3 and positions is not None and positions.shape == h.shape[:2]:
        return (h * positions[:, :, None]).sum(1) / positions.sum(1, keepdim=True).clamp_min(1)
    return h.mean(1) if h.ndim == 3 else h.flatten(2).mean(2) if h.ndim > 3 else h
