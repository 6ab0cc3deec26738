"""Randomness that is passed in: generators with seeds of their own; the global state is left as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from unrecall.nn.seeds import reseed


def seeded(seed: int) -> torch.Generator:
    """A generator of its own; nothing in unrecall touches the global one."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seeds what can't take a generator (dropout, augmentation, layer initialisation); the global state is put back.

    NumPy's and Python's own generators are seeded too, for models and methods of a user may draw from those.
    """
    states = random.getstate(), np.random.get_state()
    cuda = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
            reseed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def draw_seed(generator: torch.Generator) -> int:
    """A fresh seed from a generator."""
    return int(torch.randint(2**31, (1,), generator=generator))
