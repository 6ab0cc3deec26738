"""What a deletion attack promises: it says which examples to have deleted, so that honouring that harms somebody."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import nn

from unrecall.attacks.base import Attack, AttackKind
from unrecall.data.examples import Examples
from unrecall.tasks.protocols import Classed
from unrecall.training.job import Job


class Candidates(NamedTuple):
    """What an adversary may ask for, and what it knows of its victim.

    `examples`: training examples, none of the victim's class; `classes` `[n]`: the class of each. `victims`: training
    examples of the victim's class, which the adversary may look at but not ask for.
    """

    examples: Examples
    classes: np.ndarray
    victims: Examples


@dataclass(frozen=True)
class DeletionAttack(Attack):
    """Asks for deletions that harm the class `victim` once the defender's own method has honoured them.

    The harness makes a request of each of `sizes` (harness/adversary.py) and has it honoured (harness/deletion.py), and
    beside it `controls` random requests of that size; `retrain` models are trained without the request that the
    adversary picks. `answered_as`: the class that the victim's examples should be answered with, -1 for any wrong one.
    `asks_for`: the only class whose examples may be asked for, -1 for any but the victim's. `pool`: how many candidates
    there are, at most. `victims`: how many of the victim's examples the adversary looks at, at most.
    """

    kind: ClassVar[AttackKind] = "deletion"
    needs: ClassVar[tuple[type, ...]] = (Classed,)

    victim: int
    answered_as: int
    asks_for: int
    sizes: tuple[int, ...]
    controls: int
    retrain: int
    pool: int
    victims: int

    @abstractmethod
    def rank(self, model: nn.Module, candidates: Candidates, job: Job) -> np.ndarray:
        """How much asking for each candidate would harm the victim `[n]`; a request holds the highest.

        `model`: the original, which stays as it is.
        """

    @abstractmethod
    def rehearse(self, model: nn.Module, examples: Examples, job: Job) -> nn.Module:
        """The adversary's surrogate for the defender's method: a copy of `model` that has forgotten these examples."""

    def harmed(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Which of the victim's examples are newly answered as wished, or newly wrong: 0 or 1 each, `[n]`.

        `before` and `after` `[n]`: the classes that a model answers.
        """
        newly = (before == self.victim) & (after != self.victim)
        if self.answered_as >= 0:
            newly = (before != self.answered_as) & (after == self.answered_as)
        return np.asarray(newly, np.float64)
