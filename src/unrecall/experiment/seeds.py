"""The seeds of an experiment, one for each thing that chance decides: training, unlearning, evaluation."""

import math
from typing import NamedTuple

from unrecall.errors import BadInput

MOST = 100_000
"""The most runs that one command may ask for."""


class Seeds(NamedTuple):
    """`training`: of the original model. `unlearning`: of the method. `evaluation`: of metrics and attacks.

    Models that were trained alike differ more than models that were unlearned alike: more seeds of a lower level do not
    make up for few of a higher one.
    """

    training: int
    unlearning: int
    evaluation: int

    @classmethod
    def of(cls, seed: "int | Seeds") -> "Seeds":
        """A whole number is the seed of all three."""
        return seed if isinstance(seed, Seeds) else cls(seed, seed, seed)

    @property
    def name(self) -> str:
        """What the folder of such a run is called."""
        return "-".join(map(str, ("seed", *(self if self.differing else self[:1]))))

    @property
    def differing(self) -> dict[str, int]:
        """The seeds of training and unlearning where they aren't the evaluation's, by level."""
        levels = {"training": self.training, "unlearning": self.unlearning}
        return {} if set(levels.values()) == {self.evaluation} else levels


def nested(trainings: int, unlearnings: int = 1, evaluations: int = 1) -> list[Seeds]:
    """So many originals, each unlearned so many times, each of which is evaluated so many times.

    No seed of a lower level comes twice, so that what is measured of one original shares nothing with another's. The
    same counts give the same seeds to each method: methods are compared on the same originals.
    """
    return [
        Seeds(t, t * unlearnings + u, (t * unlearnings + u) * evaluations + e)
        for t in range(trainings)
        for u in range(unlearnings)
        for e in range(evaluations)
    ]


def seeds_of(text: str) -> list[Seeds]:
    """The seeds that `--seeds` names: 3, or 3x2x2 for 3 originals, 2 unlearnings each, and 2 evaluations of each."""
    parts = text.split("x")
    counts = [int(part) if part.isdecimal() and len(part) <= 6 else 0 for part in parts]
    if len(counts) > 3 or min(counts) < 1 or math.prod(counts) > MOST:
        raise BadInput(
            f"--seeds: expected a whole number from 1, or three of them as 3x2x2 (originals, unlearnings of each, "
            f"evaluations of each), {MOST:,} runs at most, got '{text}'."
        )
    return nested(*counts)
