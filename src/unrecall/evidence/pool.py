"""What an attack is told of the examples in question: which it may be taught with, and which it is scored on.

The examples in question are forget and holdout, the two *arms*. No score may depend on the arm that an example is of;
an attack for which that is not so declares it (`blind`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from unrecall.data.examples import Examples, Joined, Selection, split_off
from unrecall.data.request import Request
from unrecall.errors import MissingReference
from unrecall.training.randomness import seeded

Arm: TypeAlias = Literal["forget", "holdout"]
Dose: TypeAlias = Literal["forget", "both"]
"""From which arm an attack is taught: from forget alone, as in the papers, or from both alike."""


@dataclass(frozen=True)
class Pool:
    """Examples to teach an attack with, and the sets on which it is scored, one after another.

    `state`: of the generator after the draw of this pool, so that each model is attacked with the same randomness.
    """

    taught: Examples
    tested: tuple[Examples, ...]
    state: Tensor

    def generator(self) -> torch.Generator:
        """A generator that goes on from where the draw of this pool ended; the same for every model."""
        return torch.Generator().set_state(self.state)


class ArmIndices(NamedTuple):
    """Where the tested examples of an arm stand in a pool.

    `in_set`: in which of the tested sets; `positions` [n]: where in it; `indices` [n]: which examples of the arm.
    """

    in_set: int
    positions: np.ndarray
    indices: np.ndarray


class Draw(NamedTuple):
    """A pool, and what only the harness knows: where the examples of each arm stand."""

    pool: Pool
    places: Mapping[Arm, ArmIndices]


def draw_pool(
    request: Request,
    seed: int,
    taught: int = 0,
    *,
    dose: Dose = "forget",
    retested: bool = False,
    paired: bool = False,
) -> Draw:
    """Draws a pool in which the attack is taught with `taught` examples.

    With dose "forget" those are of forget, and the rest of forget is tested, then holdout. With dose "both" they are
    drawn from both arms together, in an order that the examples' contents and the seed decide and not the arms; the
    rest is one tested set. `retested`: the attack is scored on the very examples that it was taught with. `paired`: no
    more of holdout is tested than of forget.
    Raises MissingReference for dose "both" without a holdout.
    """
    generator = seeded(seed)
    if dose == "both":
        return _of_both(request, generator, taught, retested)
    forget, n = request.forget, len(request.forget)
    lesson: Examples = ()
    tested: Examples = forget
    indices = np.arange(n)
    if retested and taught == n:
        lesson = forget
    elif taught:
        first, rest = split_off(forget, taught, generator)
        lesson, part = first, first if retested else rest
        tested, indices = part, np.array(part.indices, int)
    places: dict[Arm, ArmIndices] = {"forget": ArmIndices(0, np.arange(len(tested)), indices)}
    sets = [tested]
    if len(request.holdout):
        most = min(len(request.holdout), len(tested)) if retested or paired else len(request.holdout)
        sets.append(Selection(request.holdout, range(most)))
        places["holdout"] = ArmIndices(1, np.arange(most), np.arange(most))
    return Draw(Pool(lesson, tuple(sets), generator.get_state()), places)


def _of_both(request: Request, generator: torch.Generator, taught: int, retested: bool) -> Draw:
    """The draw with dose "both"."""
    if not len(request.holdout):
        raise MissingReference("pool: expected a holdout for dose='both', got none. Name one, or use dose='forget'.")
    whole = Joined((request.forget, request.holdout))
    n = len(request.forget)
    digests = [*request.digests["forget"], *request.digests["holdout"]]
    by_content = sorted(range(len(whole)), key=lambda i: digests[i])
    order = [by_content[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    scored = order[:taught] if retested else order[taught:]
    indices = np.array(scored, int)
    arms: dict[Arm, np.ndarray] = {"forget": indices < n, "holdout": indices >= n}
    first: dict[Arm, int] = {"forget": 0, "holdout": n}
    places = {arm: ArmIndices(0, np.flatnonzero(mask), indices[mask] - first[arm]) for arm, mask in arms.items()}
    pool = Pool(Selection(whole, order[:taught]), (Selection(whole, scored),), generator.get_state())
    return Draw(pool, places)
