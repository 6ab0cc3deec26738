"""Layers of a model by name or number, and what leaves one of them: what methods that change few of them ask for."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.errors import BadInput, NotSupported, nearest
from unrecall.models.observe import in_order
from unrecall.nn.hooks import check_no_experts, is_linear, until
from unrecall.tasks.base import Task

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
"""The layers of a Transformer's feed-forward parts, as Llama names them."""
KINDS = "linear layers or 2-D convolutions"
"""What a layer with a matrix is, in words."""


def layers(task: Task, model: nn.Module) -> list[list[nn.Module]]:
    """Gives the numbered blocks of a model, in order; all blocks where fewer than two are numbered."""
    blocks = task.blocks(model)
    numbered = [modules for name, modules in blocks if name.rsplit(".", 1)[-1].isdecimal()]
    return numbered if len(numbered) > 1 else [modules for _, modules in blocks]


def with_matrices(model: nn.Module) -> dict[str, nn.Module]:
    """Finds linear layers and 2-D convolutions, by their weight's name, that may be trained and share it with none."""
    owners: dict[int, int] = {}
    for _, weight in model.named_parameters(remove_duplicate=False):
        owners[id(weight)] = owners.get(id(weight), 0) + 1
    kinds = {name: m for name, m in model.named_modules() if is_linear(m) or isinstance(m, nn.Conv2d)}
    own = {name: m for name, m in kinds.items() if m._parameters.get("weight") is not None}  # not computed from others
    free = {name: m for name, m in own.items() if m.weight.requires_grad and owners[id(m.weight)] == 1}
    return {f"{name}.weight".lstrip("."): m for name, m in free.items()}


def head_weight(model: nn.Module, task: Task, examples: Examples) -> str:
    """Names the weight of the head; empty where a task knows none."""
    try:
        head = task.head(model, next(in_order(model, task, examples, 1)))
    except NotSupported:
        return ""
    return next((f"{name}.weight".lstrip(".") for name, module in model.named_modules() if module is head), "")


class Wanted(NamedTuple):
    """Which layers' weights a method changes: those that `target` names, or else those whose names end so.

    `owner`: the method, which says what is wrong.
    """

    target: Sequence[str]
    endings: Sequence[str]
    owner: str


def chosen(model: nn.Module, task: Task, examples: Examples, wanted: Wanted) -> list[str]:
    """Names the weights that are changed; BadInput where a target names no layer, NotSupported without layers.

    `examples`: of which one shows which layer is the head.
    """
    names = list(with_matrices(model))
    if wanted.target:
        return called(names, wanted.target, wanted.owner)
    head = head_weight(model, task, examples)
    return usual(model, [name for name in names if name != head], wanted.endings, wanted.owner)


def usual(model: nn.Module, names: Sequence[str], endings: Sequence[str], owner: str) -> list[str]:
    """Gives the weights of layers that are called so, or all of them where none is; NotSupported where there are none.

    `names`: of weights, without the head's. `owner`: who says that there are none. NotSupported for a mixture of
    experts too, of which the usual choice would leave most.
    """
    check_no_experts(model, owner, "Name layers in target, as q_proj, or choose another method.")
    if not names:
        raise NotSupported(
            f"{owner}: expected {KINDS} before the head that may be trained and share no weights, got none. Choose "
            "another method."
        )
    return [name for name in names if name.removesuffix(".weight").endswith(tuple(endings))] or list(names)


def called(names: Sequence[str], target: Sequence[str], owner: str) -> list[str]:
    """Gives the weights of the layers that `target` names, or their names' ends; BadInput for one that there isn't."""
    chosen: list[str] = []
    for ending in target:
        named = [name for name in names if f".{name}".endswith(f".{ending}.weight")]
        if not named:
            endings = {name.split(".")[-2] for name in names if "." in name}
            raise BadInput(
                f"{owner}: expected target to be {KINDS} that may be trained and share no weights, got '{ending}'. "
                f"{nearest(ending, endings)}"
            )
        chosen += [name for name in named if name not in chosen]
    return chosen


def activations(model: nn.Module, module: nn.Module, task: Task, batch: Batch, owner: str) -> Tensor:
    """Gives what leaves `module` at every position that is not padding, `[positions, d]`; the pass ends there."""
    output = until(module, lambda: task.rows(model, batch))
    if output is None or (torch.is_grad_enabled() and not output.requires_grad):
        raise NotSupported(
            f"{owner}: expected {type(module).__name__} to take part in a pass that records gradients, got one where "
            "it does not. Set layer to another, or, for gradient checkpointing, use_reentrant=False."
        )
    return by_position(output, task.positions(batch)).float()


def by_position(output: Tensor, positions: Tensor | None) -> Tensor:
    """Makes `[positions, d]` of an activation: of one `[examples, positions, d]` those that `positions` marks.

    All positions where it has another shape; of `[examples, channels, height, width]` each place, with d channels.
    """
    output = output.movedim(1, -1) if output.ndim == 4 else output
    whole = positions is None or positions.shape != output.shape[:-1]
    return output.flatten(0, -2) if whole else output[positions]
