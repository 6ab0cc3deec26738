"""A frozen model's outputs, computed once over a data set and looked up by index ever after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from unrecall.hooks import mode
from unrecall.observe import batches, device_of
from unrecall.tasks.base import Task
from unrecall.types import Batch, Examples

Teacher: TypeAlias = Callable[[Batch], Tensor]
"""Gives the teacher's logits `[rows, classes]` for a batch drawn from the data set it was asked about."""


@torch.no_grad()
def remembered(model: nn.Module, task: Task, examples: Examples) -> Teacher:
    """`model`'s logits on `examples`, from one pass in eval mode; needs examples that don't change between draws."""
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
