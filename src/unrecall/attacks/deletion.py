"""What an attack promises that can do no more than ask: which examples to have deleted, and whom that harms."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import nn

from unrecall.attacks.base import Attack, Kind
from unrecall.data.examples import Examples
from unrecall.tasks.protocols import Classed
from unrecall.training.job import Job


class Candidates(NamedTuple):
    """What an adversary may ask for, and what it knows of its victim.

    `examples`: training examples, none of the victim's class; `classes` `[pool]`: the class of each. `victims`:
    training examples of the victim's class, which it may look at but not ask for.
    """

    examples: Examples
    classes: np.ndarray
    victims: Examples


@dataclass(frozen=True)
class DeletionAttack(Attack):
    """Has examples deleted so that honouring the request, by the defender's own method, harms the class `victim`.

    The harness (harness/deletion.py) has a request of each of `sizes` honoured, and `controls` more that are drawn at
    random; `retrain` models are trained without the one that is picked. `wished`: the class that the victim's examples
    should be answered with, -1 for any wrong one. `own`: the one class whose examples may be asked for, -1 for any but
    the victim's. `pool` and `known`: at most so many examples to choose from, and of the victim's class to look at.
    """

    kind: ClassVar[Kind] = "deletion"
    needs: ClassVar[tuple[type, ...]] = (Classed,)

    victim: int
    wished: int
    own: int
    sizes: tuple[int, ...]
    controls: int
    retrain: int
    pool: int
    known: int

    @abstractmethod
    def rank(self, model: nn.Module, candidates: Candidates, job: Job) -> np.ndarray:
        """How much asking for each example would harm `[pool]`; a request holds the highest. `model` is left alone."""

    @abstractmethod
    def rehearse(self, model: nn.Module, examples: Examples, job: Job) -> nn.Module:
        """What the adversary's surrogate makes of a copy of `model` when it is asked to forget these examples."""

    def harmed(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Which of the victim's examples are newly answered as wished, or newly wrong: 0 or 1 each, `[n]`.

        `before` and `after` `[n]`: the classes that a model answers.
        """
        newly = (before == self.victim) & (after != self.victim)
        if self.wished >= 0:
            newly = (before != self.wished) & (after == self.wished)
        return np.asarray(newly, np.float64)
