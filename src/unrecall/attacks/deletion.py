"""What an attack promises that can do no more than ask: which examples to have deleted, and whom that harms."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from unrecall.attacks.base import Attack
from unrecall.data.examples import Examples
from unrecall.tasks.base import Task
from unrecall.training.session import Session


class Pool(NamedTuple):
    """What an adversary may ask for, and what it knows of its victim.

    `examples`: training examples, none of the victim's class; `classes` `[pool]`: the class of each. `victims`:
    training examples of the victim's class, which it may look at but not ask for.
    """

    examples: Examples
    classes: np.ndarray
    victims: Examples


@dataclass(frozen=True)
class RequestAttack(Attack):
    """Has examples deleted so that honouring the request, by the defender's own method, harms the class `victim`.

    The harness (besieging.py) has a request of each of `sizes` honoured, and `controls` more that are drawn at random;
    `retrain` models are trained without the one that is picked. `wished`: the class that the victim's examples should
    be answered with, -1 for any wrong one. `own`: the one class whose examples may be asked for, -1 for any but the
    victim's. `pool` and `known`: at most so many examples to choose from, and of the victim's class to look at.
    """

    victim: int
    wished: int
    own: int
    sizes: tuple[int, ...]
    controls: int
    retrain: int
    pool: int
    known: int

    @abstractmethod
    def rank(
        self, model: nn.Module, pool: Pool, task: Task, generator: torch.Generator, session: Session
    ) -> np.ndarray:
        """How much asking for each example would harm `[pool]`; a request holds the highest. `model` is left alone."""

    @abstractmethod
    def rehearse(
        self, model: nn.Module, asked: Examples, task: Task, generator: torch.Generator, session: Session
    ) -> nn.Module:
        """What the adversary's surrogate of the defender's method makes of a copy of `model`."""

    def harmed(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Which of the victim's examples are newly answered as wished, or newly wrong: 0 or 1 each, `[n]`.

        `before` and `after` `[n]`: the classes that a model answers.
        """
        newly = (before == self.victim) & (after != self.victim)
        if self.wished >= 0:
            newly = (before != self.wished) & (after == self.wished)
        return np.asarray(newly, np.float64)
