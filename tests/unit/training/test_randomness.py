"""Randomness of one's own: seeded for a while, and the global generators as they were."""

import random

import numpy as np
import torch

from unrecall.training.randomness import own_randomness


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_whatever_draws_inside_draws_the_same_and_leaves_nothing() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = drawn()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    inside = []
    for _ in range(2):
        with own_randomness(2**40 + 7):
            inside.append(drawn())
    assert inside[0] == inside[1]
    assert drawn() == before
