"""A frozen model's outputs, computed once over a data set and looked up by index ever after."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.examples import Batch, Examples, Part
from unrecall.models.observe import batches, device_of
from unrecall.nn.functional import nll
from unrecall.nn.hooks import mode
from unrecall.tasks.base import Task

Teacher: TypeAlias = Callable[[Batch], Tensor]
"""Gives the teacher's answer for a batch drawn from the data set it was asked about."""


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy that shares no parameter with `model`, in eval mode, without gradients: a teacher."""
    return copy.deepcopy(model).eval().requires_grad_(False)


BYTES = 2**30
"""The largest table of logits that is kept; above, the frozen model answers each batch anew."""


@torch.no_grad()
def remembered(model: nn.Module, task: Task, examples: Examples, most: int = BYTES) -> Teacher:
    """`model`'s logits `[rows, classes]` on `examples`, in eval mode; needs examples that don't change between draws.

    They come from one pass and a table, unless it would take more than `most` bytes (a language model's vocabulary on
    many tokens), or an example's logits depend on its batch: then from the model itself, batch by batch.
    """
    if task.rows_depend_on_batch or _size(model, task, examples) > most:
        return _asked(model, task)
    logits: list[Tensor] = []
    counts: list[Tensor] = []
    with mode(model, training=False):
        for batch in batches(examples, task, device=device_of(model)):
            rows = task.rows(model, batch)
            logits.append(rows.logits)
            counts.append(torch.bincount(rows.example, minlength=rows.examples))
    table, starts = torch.cat(logits), torch.cat(counts).cumsum(0)
    begins = starts - torch.cat(counts)

    def look_up(batch: Batch) -> Tensor:
        index = batch["index"]
        if len(table) == len(starts):
            return table[index]
        return torch.cat([table[begins[i] : starts[i]] for i in index])

    return look_up


@torch.no_grad()
def remembered_losses(model: nn.Module, task: Task, examples: Examples) -> Teacher:
    """`model`'s *summed* negative log-likelihood of each example `[examples]`, in eval mode.

    From one pass; batch by batch where an example's loss depends on its batch.
    """
    if task.rows_depend_on_batch:
        return _asked_losses(model, task)
    parts = []
    with mode(model, training=False):
        for batch in batches(examples, task, device=device_of(model)):
            rows = task.rows(model, batch)
            parts.append(rows.summed(nll(rows.logits, rows.targets)))
    table = torch.cat(parts)
    return lambda batch: table[batch["index"]]


def _size(model: nn.Module, task: Task, examples: Examples) -> float:
    """About how many bytes all logits take, from those of a few examples."""
    few = Part(examples, range(0, len(examples), max(1, len(examples) // 8)))
    with mode(model, training=False):
        tables = [task.rows(model, batch).logits for batch in batches(few, task, 8, device_of(model))]
    return sum(table.numel() * table.element_size() for table in tables) / len(few) * len(examples)


def _asked(model: nn.Module, task: Task) -> Teacher:
    @torch.no_grad()
    def answer(batch: Batch) -> Tensor:
        with mode(model, training=False):
            return task.rows(model, batch).logits

    return answer


def _asked_losses(model: nn.Module, task: Task) -> Teacher:
    @torch.no_grad()
    def answer(batch: Batch) -> Tensor:
        with mode(model, training=False):
            rows = task.rows(model, batch)
            return rows.summed(nll(rows.logits, rows.targets))

    return answer
