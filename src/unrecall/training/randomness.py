"""Randomness that is passed in: generators with seeds of their own; the global state is left as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seeded(seed: int) -> torch.Generator:
    """A generator of its own; nothing in unrecall touches the global one."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seeds what can't take a generator (dropout, augmentation, layer initialisation); the global state is put back.

    NumPy's and Python's own generators are seeded too, for models and methods of a user may draw from those.
    """
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with _torch_randomness(seed):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _torch_randomness(seed: int) -> Iterator[None]:
    # torch.manual_seed would also queue a seed, with a formatted stack trace, for every accelerator not yet in use.
    cuda = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield


def draw_seed(generator: torch.Generator) -> int:
    """A fresh seed from a generator."""
    return int(torch.randint(2**31, (1,), generator=generator))
