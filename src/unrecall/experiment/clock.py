"""Work that is timed, and ended when its time is over."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

T = TypeVar("T")


class Spent(NamedTuple):
    """What work took: seconds, and how many numbers went into layers of models meanwhile.

    Seconds depend on what else the machine does; numbers don't, and grow with the examples as the seconds must.
    """

    seconds: float
    numbers: int


def clock(work: Callable[[], T]) -> tuple[Spent, T]:
    """What some work takes, and what it gives."""
    numbers = 0

    def count(layer: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal numbers
        if next(layer.children(), None) is None:  # what holds layers passes the same on to them
            tensors = (value for value in inputs if isinstance(value, Tensor))
            numbers += sum(torch.func.debug_unwrap(tensor, recurse=True).numel() for tensor in tensors)

    counting, started = register_module_forward_pre_hook(count), time.perf_counter()
    try:
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return Spent(time.perf_counter() - started, numbers), result
    finally:
        counting.remove()


class OutOfTime(BaseException):
    """Work was stopped because its time was over."""


def can_stop() -> bool:
    """Whether `at_most` can end work: in a program's first thread, on Unix."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends the work within after so many seconds, where it can be stopped."""
    if not can_stop():
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except OutOfTime:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def within(seconds: float, work: Callable[[], T], otherwise: T) -> T:
    """What some work gives if it ends within so many seconds, or can't be stopped; else `otherwise`."""
    with at_most(seconds):
        return work()
    return otherwise
