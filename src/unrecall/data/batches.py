"""Batches: named tensors that share their first dimension."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = dict[str, Tensor]
"""Named tensors that share their first dimension: one entry an example. Only a task knows the names."""


def batch_size(batch: Batch) -> int:
    """How many examples a batch holds."""
    return len(next(iter(batch.values())))


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def repeat(batch: Batch, times: int) -> Batch:
    """Each example `times` times in a row: [a, b] -> [a, a, b, b]."""
    return {name: value.repeat_interleave(times, 0) for name, value in batch.items()}


def concatenated(batches: Sequence[Batch]) -> Batch:
    """Several batches, one after another, as one, on the device of the last."""
    return {name: torch.cat([batch[name].to(value.device) for batch in batches]) for name, value in batches[-1].items()}


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """The examples of a batch in `count` batches, as equal as can be, in their order."""
    split = {name: torch.tensor_split(value, count) for name, value in batch.items()}
    return [{name: values[i] for name, values in split.items()} for i in range(count)]
