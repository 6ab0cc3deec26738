"""A frozen model's answers, computed once over a data set and looked up by index ever after; how far a student is."""

import copy
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.signals import Average, Rows
from unrecall.models.observe import in_order
from unrecall.nn.functional import kl, nll, one_hot_mask
from unrecall.nn.hooks import mode
from unrecall.tasks.base import Task

Teacher: TypeAlias = Callable[[Batch], Tensor]
"""Gives the teacher's answer for a batch drawn from the data set it was asked about."""


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy that shares no parameter with `model`, in eval mode, without gradients: a teacher."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def frozen_beside(model: nn.Module, student: nn.Module) -> nn.Module:
    """`model` in eval mode, without gradients, as a teacher of `student`, which was copied from it and will be trained.

    It shares the weights of `model`, and takes no memory, where the student has them in the same place and precision;
    otherwise it is a copy of the student. Whoever changes its weights changes the model's.
    """
    pairs = zip(model.parameters(), student.parameters(), strict=True)
    if any(p.dtype != q.dtype or p.device != q.device for p, q in pairs):
        return frozen_copy(student)
    shared: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, shared).eval().requires_grad_(False)


BYTES = 2**30
"""The largest table of answers that is kept; above, the frozen model answers each batch anew."""


@torch.no_grad()
def remembered(
    model: nn.Module, task: Task, examples: Examples, of: Callable[[Rows], Tensor] = attrgetter("logits")
) -> Teacher:
    """`model`'s logits `[rows, classes]` on `examples`, in eval mode; needs examples that don't change between draws.

    They come from one pass and a table, unless it would take more than `BYTES` (a language model's vocabulary on many
    tokens), or an example's logits depend on its batch: then from the model itself, batch by batch. `of` makes
    something else of a pass, with one entry a row or one an example.
    """

    @torch.no_grad()
    def answer(batch: Batch) -> Tensor:
        with mode(model, training=False):
            return of(task.rows(model, batch))

    if task.rows_depend_on_batch:
        return answer
    answers: list[Tensor] = []
    counts: list[Tensor] = []
    size = 0.0
    with mode(model, training=False):
        for batch in in_order(model, task, examples):
            rows = task.rows(model, batch)
            answers.append(of(rows))
            counts.append(rows.counts())
            size += answers[-1].numel() * answers[-1].element_size()
            if size / sum(map(len, counts)) * len(examples) > BYTES:  # about what the table would take
                return answer
    table, starts = torch.cat(answers), torch.cat(counts).cumsum(0)
    begins = starts - torch.cat(counts)

    def look_up(batch: Batch) -> Tensor:
        index = batch["index"]
        if len(table) == len(starts):
            return table[index]
        return torch.cat([table[begins[i] : starts[i]] for i in index])

    return look_up


def summed_losses(rows: Rows) -> Tensor:
    """Sums the negative log-likelihoods of each example's rows, `[examples]`, in nats."""
    return rows.summed(nll(rows.logits, rows.targets))


def distance(rows: Rows, logits: Tensor, temperature: float = 1.0, average: Average = "example") -> Tensor:
    """Computes KL(teacher || student) at a temperature: the mean over an example's rows, then over examples.

    `rows` are the student's, `logits` `[rows, classes]` the teacher's. `average` "row": the mean over all rows alike.
    """
    log_p, log_q = (F.log_softmax(unscaled / temperature, 1) for unscaled in (logits, rows.logits))
    return rows.mean(kl(log_p, log_q), average)


def masked_distance(rows: Rows, logits: Tensor, masked: Sequence[int]) -> Tensor:
    """Computes `distance` to a teacher that can't answer `masked`, or each row's own target where that is empty."""
    hidden = one_hot_mask(rows.targets, rows.logits.shape[1])
    if masked:
        hidden = torch.zeros_like(hidden)
        hidden[:, list(masked)] = True
    return distance(rows, logits.masked_fill(hidden, float("-inf")))
