"""Forward passes without gradients: each model sees each split once, and everything else reads the signals."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.data.examples import Examples
from unrecall.data.loading import BatchIndices, batches_of
from unrecall.data.request import Request, Split
from unrecall.data.signals import Rows, Signals
from unrecall.nn.functional import exact_log_softmax, own_moments
from unrecall.nn.hooks import mode
from unrecall.nn.waiting import ask_for
from unrecall.tasks.base import Task


def batches(
    examples: Examples, task: Task, batch_size: int | None = None, device: torch.device | None = None
) -> Iterator[Batch]:
    """The examples in order, collated, on `device`; as many at once as suit the task where no size is given.

    Where an example's rows depend on its batch, all batches are equally large: the last one is the last `batch_size`
    examples, the first of which came before (`repeated` counts them).
    """
    n, size = len(examples), batch_size or task.at_once
    starts = [max(0, min(i, n - size)) if task.rows_depend_on_batch else i for i in range(0, n, size)]
    groups = [BatchIndices(list(range(i, min(n, i + size)))) for i in starts]
    for batch in batches_of(examples, task.collate, groups, len(groups)):
        yield batch if device is None else move(batch, device)


def in_order(model: nn.Module, task: Task, examples: Examples, batch_size: int | None = None) -> Iterator[Batch]:
    """The same, on the device of `model`."""
    return batches(examples, task, batch_size, device_of(model))


def repeated(batch: Batch, count: int) -> int:
    """Counts the examples at the start of a batch, drawn in order, that are among the `count` before it."""
    return max(0, count - int(batch["index"][0]))


def unseen(request: Request) -> tuple[Split, ...]:
    """Names the splits that no model was trained on and whose labels are true: not a backdoor's holdout."""
    return ("test",) if request.kind == "backdoor" else ("test", "holdout")


def one_size(task: Task, sets: Iterable[Examples]) -> int | None:
    """As many examples at once as suit the task (None), or as the smallest set has where rows depend on their batch.

    For sets that are held against each other: among fewer others an example is easier to tell.
    """
    return min([task.at_once, *filter(None, map(len, sets))]) if task.rows_depend_on_batch else None


def device_of(model: nn.Module) -> torch.device:
    """Gives the device that the model's parameters are on; a model that waited is on the device then."""
    return next(ask_for(model).parameters()).device


@torch.no_grad()
def observe(model: nn.Module, task: Task, examples: Examples, batch_size: int | None = None) -> Signals:
    """Reads all signals of one model on one split, in one pass, in eval mode."""
    parts: dict[str, list[Tensor]] = {name: [] for name in Signals.__dataclass_fields__}
    offset = 0
    with mode(model, training=False):
        for batch in in_order(model, task, examples, batch_size):
            rows, features = task.view(model, batch)
            if before := repeated(batch, offset):
                rows, features = without(rows, before), features[before:]
            log_prob, expected, deviation, prediction, right = _of_rows(rows)
            loss = rows.per_example(-log_prob)
            parts["loss"].append(loss)
            parts["confidence"].append((-loss).exp())
            parts["correct"].append(rows.per_example(right.float()))
            parts["features"].append(features)
            parts["prediction"].append(prediction)
            parts["target"].append(rows.targets)
            parts["example"].append(rows.example + offset)
            parts["log_prob"].append(log_prob)
            parts["expected"].append(expected)
            parts["deviation"].append(deviation)
            offset += rows.examples
    return Signals(**{name: _array(values) for name, values in parts.items()})


def by_example(rows: Rows, values: Tensor) -> tuple[Tensor, ...]:
    """Takes a per-row quantity apart, one tensor an example."""
    return torch.split(values, rows.counts().tolist())


def looked_up(table: Sequence[Tensor], batch: Batch) -> Tensor:
    """Joins what a table has of a batch's examples, in the batch's order."""
    return torch.cat([table[i] for i in batch["index"].tolist()])


def without(rows: Rows, first: int) -> Rows:
    """Gives the rows of all examples but the `first` few."""
    left = rows.example >= first
    return Rows(rows.logits[left], rows.targets[left], rows.example[left] - first, rows.examples - first)


AT_ONCE = 2**25
"""Logits that are held in float64 at once: 256 MB."""
IN_CACHE = 2**17
"""The same on CPUs, which take five times as long where the steps between don't fit their cache."""


def _of_rows(rows: Rows) -> tuple[Tensor, ...]:
    """Log-probability of the target, its own mean and deviation, prediction and its rightness of each row, `[rows]`.

    In float64, and so some logits at a time: with a large vocabulary each step between would take twice the memory that
    all logits do. How many are taken changes no bit.
    """
    parts, at_once = [], IN_CACHE if rows.logits.device.type == "cpu" else AT_ONCE
    count = max(1, at_once // rows.logits.shape[1])
    for logits, targets in zip(torch.split(rows.logits, count), torch.split(rows.targets, count), strict=True):
        log_p, log_prob = exact_log_softmax(logits, targets)
        parts.append((log_prob, *own_moments(log_p), *predicted(logits, targets)))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def predicted(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The class of the largest logit of each row, and whether it is right; what isn't finite is never right."""
    prediction = logits.argmax(1)
    return prediction, prediction.eq(targets) & logits.gather(1, prediction[:, None]).squeeze(1).isfinite()


def _array(values: Sequence[Tensor]) -> np.ndarray:
    together = torch.cat(list(values)).cpu()
    half = together.is_floating_point() and together.element_size() < 4  # norms of 16 bits overflow
    joined = (together.float() if half else together).numpy()
    return joined.astype(np.float64) if joined.ndim == 1 and joined.dtype.kind == "f" else joined


@torch.no_grad()
def accuracy(model: nn.Module, task: Task, examples: Examples, batch_size: int | None = None) -> np.ndarray:
    """Computes the share of rows predicted right, per example `[n]`, in eval mode."""
    parts, count = [], 0
    with mode(model, training=False):
        for batch in in_order(model, task, examples, batch_size):
            rows = task.rows(model, batch)
            _, right = predicted(rows.logits, rows.targets)
            parts.append(rows.per_example(right.float())[repeated(batch, count) :])
            count += len(parts[-1])
    return torch.cat(parts).double().cpu().numpy()


@torch.no_grad()
def mean_loss(model: nn.Module, task: Task, examples: Examples, batch_size: int | None = None) -> float:
    """Computes the mean negative log-likelihood over examples, in nats, in eval mode."""
    total, count = 0.0, 0
    with mode(model, training=False):
        for batch in in_order(model, task, examples, batch_size):
            losses = task.rows(model, batch).exact_losses()[repeated(batch, count) :]
            total, count = total + float(losses.sum()), count + len(losses)
    return total / len(examples)
