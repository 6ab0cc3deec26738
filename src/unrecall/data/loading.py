"""How examples become batches: in this process, or in others beside it, with the same result."""

import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples, several
from unrecall.errors import BadInput
from unrecall.nn.seeds import reseed

_workers: ContextVar[int | None] = ContextVar("workers", default=None)
VARIABLE = "UNRECALL_WORKERS"
"""The variable of the environment that says how many workers there are where nobody else does."""
FEWEST = 4
"""Batches for each process below which starting it takes longer than it saves."""


@contextmanager
def workers(count: int) -> Iterator[None]:
    """Within it, examples are read and collated by so many processes beside this one; the numbers are the same.

    For data that take long to make, as pictures do that must be decoded. 0: here. $UNRECALL_WORKERS says it for all of
    a process, and for those that it starts. BadInput for other than 0 or more.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise BadInput(f"workers: expected a number of processes from 0 on, got {count!r}. Give 0 to read here.")
    before = _workers.set(count)
    try:
        yield
    finally:
        _workers.reset(before)


def _worker_count() -> int:
    """How many processes read: as `workers` says, or else the environment."""
    number = _workers.get()
    if number is not None:
        return number
    text = os.environ.get(VARIABLE, "0").strip()
    if not text.isdecimal():
        raise BadInput(f"{VARIABLE}: expected a number of processes from 0 on, got '{text}'. Give 0 to read here.")
    return int(text)


class BatchIndices(NamedTuple):
    """The examples of a batch, by index. `seed`: of whatever is drawn as they are made; None where nothing is."""

    indices: list[int]
    seed: int | None = None


class _Failed(NamedTuple):
    """What was raised where a batch was made; it travels as it is."""

    error: Exception


class _Reader(Dataset[Any]):
    """Makes batches in another process."""

    def __init__(self, examples: Examples, collate: Callable[[Sequence[Any]], Batch]) -> None:
        self.examples, self.collate = examples, collate

    def __getitem__(self, group: BatchIndices) -> Batch | _Failed:
        try:
            return _batch(self.examples, self.collate, group)
        except Exception as error:  # whatever reading raises is raised again where the batch was asked for
            return _Failed(_sent(error))


def _sent(error: Exception) -> Exception:
    """An error as another process can be given it: itself, or its name and words where it holds what can't be sent."""
    try:
        copied = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its parts raise
        copied = None
    return error if str(copied) == str(error) else RuntimeError(f"{type(error).__name__}: {error}")


DEAD = "one that ended before its time, as for want of memory"


def batches_of(
    examples: Examples, collate: Callable[[Sequence[Any]], Batch], groups: Iterable[BatchIndices], count: int
) -> Iterator[Batch]:
    """The batches of groups of examples, each with its `index` [examples]; `count`: how many there will be.

    Where a group has a seed, the global generators start from it, and are left as reading leaves them; with workers
    they are as they were. BadInput where a worker dies, or can't be given the examples.
    """
    number = _worker_count()
    if count < FEWEST * number or number == 0:
        yield from (_batch(examples, collate, group) for group in groups)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores: whoever asks for them knows
        loader = DataLoader(
            _Reader(examples, collate),
            batch_size=None,
            sampler=groups,
            num_workers=number,
            pin_memory=torch.cuda.is_available(),
        )
    try:
        batches = iter(loader)
    except Exception as error:  # whatever the examples raise that can't be sent to another process
        raise _no_workers(number, (str(error).splitlines() or [type(error).__name__])[0]) from error
    try:
        yield from _received(batches, number)
    except RuntimeError as error:  # PyTorch's handler of a signal, which may raise while the death is being told
        if "DataLoader worker" not in str(error):
            raise
        raise _no_workers(number, DEAD) from error
    finally:  # else PyTorch, told of the end of any other process, would name a dead worker wherever it then is
        with suppress(RuntimeError):  # which names it once more, and is raised in the midst of this
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _received(batches: Iterator[Batch | _Failed], number: int) -> Iterator[Batch]:
    """What so many workers made."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # as PyTorch says it, or as the broken connection does
            raise _no_workers(number, DEAD) from error
        if isinstance(batch, _Failed):
            raise batch.error
        yield batch


def _no_workers(number: int, reason: str) -> BadInput:
    return BadInput(
        f"workers: expected {number} processes that read data, got {reason}. Use fewer, or none, where memory is short "
        "or the data set can't be sent to a process."
    )


def _batch(examples: Examples, collate: Callable[[Sequence[Any]], Batch], group: BatchIndices) -> Batch:
    if group.seed is not None:
        reseed(group.seed)
    batch = collate(several(examples, group.indices))
    return {**{name: value.detach() for name, value in batch.items()}, "index": torch.tensor(group.indices)}
