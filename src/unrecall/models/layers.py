"""Layers by name, where the last representation begins, and one vector an example of what leaves a layer."""

from collections.abc import Sequence

from torch import Tensor, nn

from unrecall.data.examples import Batch
from unrecall.errors import BadInput
from unrecall.tasks.base import Task


def named(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Finds modules of the model by dotted names; BadInput, with the names that there are, for one that it lacks."""
    modules = {name: module for name, module in model.named_modules() if name}
    for name in layers:
        if name not in modules:
            raise BadInput(f"layers: expected names of the model's modules, got '{name}'. Known: {', '.join(modules)}.")
    return {name: modules[name] for name in layers}


def before_head(model: nn.Module, task: Task, batch: Batch) -> dict[str, nn.Module]:
    """Finds the last module of each block before the head, by dotted name, from input to output."""
    endings = {id(module) for module in task.endings(model, batch)}
    names = {id(module): name for name, module in model.named_modules()}
    return {
        names[id(group[-1])]: group[-1]
        for _, group in task.blocks(model)
        if endings.isdisjoint(id(module) for part in group for module in part.modules())
    }


def pooled(h: Tensor, positions: Tensor | None = None) -> Tensor:
    """Takes the mean over a sequence's positions, or over a map's places: `[n, d]` in float32.

    `positions` `[n, positions]`: which of them count; all do where it is None or of another shape than the sequence's.
    """
    h = h.float()
    if h.ndim == 3 and positions is not None and positions.shape == h.shape[:2]:
        return (h * positions[:, :, None]).sum(1) / positions.sum(1, keepdim=True).clamp_min(1)
    return h.mean(1) if h.ndim == 3 else h.flatten(2).mean(2) if h.ndim > 3 else h
