"""Rounding a matrix to few levels: to the nearest of even ones, of normal floats, or so that outputs change least."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.models.observe import in_order
from unrecall.nn.hooks import capture, is_plain_convolution, mode
from unrecall.tasks.base import Task

NORMAL_FLOATS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 levels of NF4: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA", arXiv 2305.14314, appendix E."""


class Rounded(NamedTuple):
    """Weights `[out, in, ...]` after rounding, the step at each, and the largest magnitude, which sets it."""

    weight: Tensor
    step: Tensor
    top: Tensor


def to_even_levels(weight: Tensor, bits: int, group: int) -> Rounded:
    """Rounds each weight to the nearest of 2^bits - 1 even levels up to its group's largest magnitude.

    A group is `group` inputs of one output, the last of a row perhaps fewer; at 8 bits a whole row.
    """
    grouped, top = _grouped(weight, weight[0].numel() if bits == 8 else group)
    step = top / (2 ** (bits - 1) - 1)
    level = (grouped / step.clamp_min(torch.finfo(step.dtype).tiny)).round() * step
    return _rounded(weight, level, step, top)


def to_normal_floats(weight: Tensor, group: int) -> Rounded:
    """Rounds each weight to the nearest of 16 levels as dense as a normal density; groups as above.

    Its step is the distance from its level to the nearest other one.
    """
    grouped, top = _grouped(weight, group)
    levels = torch.tensor(NORMAL_FLOATS, dtype=grouped.dtype, device=grouped.device)
    gaps = levels.diff()
    nearest = torch.bucketize(grouped / top.clamp_min(torch.finfo(top.dtype).tiny), (levels[1:] + levels[:-1]) / 2)
    ends = torch.cat([gaps[:1], gaps, gaps[-1:]])
    step = torch.minimum(ends[:-1], ends[1:])[nearest] * top
    return _rounded(weight, levels[nearest] * top, step, top)


def to_compensated_levels(weight: Tensor, bits: int, group: int, moments: Tensor) -> Tensor:
    """Rounds one input after another to even levels, and lets the inputs that follow make up for the error.

    `moments` [inputs, inputs]: the second moments X'X of what enters the layer. With H = X'X + 0.01 mean(diag) I and
    the upper Cholesky factor U of H^-1, the error e of input i moves input j > i by -e U_ij / U_ii: that keeps
    |X W' - X W_rounded'|^2 least. A group's step is set when its first input is rounded.
    """
    rows = weight.double().flatten(1).clone()
    h = moments.to(rows)
    diagonal = h.diagonal().clone()
    damping = 0.01 * diagonal.mean() + torch.finfo(h.dtype).tiny
    h = h + torch.diag(damping + diagonal.eq(0) * (diagonal.mean() + 1))  # an input that is never there has no error
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    width = rows.shape[1]
    size, most = width if bits == 8 else min(group, width), 2 ** (bits - 1) - 1
    step = rows[:, 0]
    for i in range(width):
        if i % size == 0:
            step = (rows[:, i : i + size].abs().amax(1) / most).clamp_min(torch.finfo(rows.dtype).tiny)
        level = (rows[:, i] / step).round().clamp(-most, most) * step
        error = (rows[:, i] - level) / upper[i, i]
        rows[:, i] = level
        rows[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
    return rows.view(weight.shape).to(weight.dtype)


@torch.no_grad()
def input_moments(
    model: nn.Module, task: Task, examples: Examples, layers: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """X'X `[inputs, inputs]` of what enters each layer, by name, over all positions that hold input, in eval mode.

    Left out: convolutions but plain ones of pictures, in groups or padded by a rule, and layers that took no part.
    """
    moments: dict[str, Tensor] = {}
    with mode(model, training=False):
        for batch in in_order(model, task, examples):
            positions = task.positions(batch)

            def look(name: str, entering: Tensor) -> None:
                inputs = _inputs(layers[name], entering, positions)  # noqa: B023
                if inputs is not None:
                    moments[name] = moments.get(name, 0) + inputs.T @ inputs

            with capture(layers, look, inputs=True):
                task.rows(model, batch)
    return moments


def _inputs(layer: Any, entering: Tensor, positions: Tensor | None) -> Tensor | None:
    """What meets a layer's weight, one row a position `[rows, inputs]`, in float64."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if positions is not None and positions.shape == entering.shape[:-1]:
            entering = entering[positions]
        return entering.flatten(0, -2).double()
    if not isinstance(layer, nn.Conv2d) or not is_plain_convolution(layer):
        return None
    padding = cast(tuple[int, int], layer.padding)
    patches = F.unfold(entering, layer.kernel_size, layer.dilation, padding, layer.stride)
    return patches.transpose(1, 2).flatten(0, 1).double()


def _grouped(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """A weight in groups `[out, groups, size]`, padded with 0, and the largest magnitude of each `[out, groups, 1]`."""
    rows = weight.float().flatten(1)
    size = min(group, rows.shape[1])
    grouped = F.pad(rows, (0, -rows.shape[1] % size)).view(len(rows), -1, size)
    return grouped, grouped.abs().amax(2, keepdim=True)


def _rounded(weight: Tensor, level: Tensor, step: Tensor, top: Tensor) -> Rounded:
    """The same of groups, in the form of the weight."""
    width = weight[0].numel()
    parts = (part.expand_as(level).flatten(1)[:, :width] for part in (level, step, top))
    return Rounded(*(part.reshape(weight.shape).to(weight.dtype) for part in parts))
