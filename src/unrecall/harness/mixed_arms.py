"""Forget and holdout in one order and in halves, neither of which tells the two arms apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unrecall.data.examples import Joined, Selection
from unrecall.data.request import Request
from unrecall.disk.files import content_key

FEWEST_TO_HALVE = 40
"""From this many groups (or planted pairs) of forget on the pool is halved: one half is taught, the other tested.

Then the reverse.
"""


@dataclass(frozen=True)
class MixedArms:
    """The examples of forget and holdout in one order, which doesn't depend on the arms.

    `examples`: the pool. `forget` [n]: which of them are forget. `group` [n]: the number of each one's person; its own
    where there are no persons. `half` [n]: 0 or 1, the same for all of a person's; all 0 where the pool isn't halved.
    `stratum` [n]: the group within which labels are dealt out anew: a half, or a planted record's two wordings.
    """

    examples: Selection
    forget: np.ndarray
    group: np.ndarray
    half: np.ndarray
    stratum: np.ndarray

    @cached_property
    def crossed(self) -> bool:
        """Whether one half is taught and the other tested."""
        return bool(self.half.any())

    def of_half(self, half: int) -> Selection:
        """The examples of one half."""
        return Selection(self.examples, np.flatnonzero(self.half == half).tolist())


def mix_arms(request: Request, seed: int) -> MixedArms:
    """The pool in the order of its contents' digests, salted with the seed; halves of each arm are drawn apart from it.

    So neither order nor halves tell which labelling is the true one.
    """
    n, digests = len(request.forget), [*request.digests["forget"], *request.digests["holdout"]]
    order = np.argsort(np.array([content_key(str(seed), digest) for digest in digests]), kind="stable")
    if request.groups is None and request.pairs is None:  # an example that holdout has twice is one
        once = {digests[i]: i for i in reversed(range(len(digests)))}
        order = order[[once[digests[i]] == i for i in order]]
    forget, rng = order < n, np.random.default_rng(seed)
    examples = Selection(Joined((request.forget, request.holdout)), order.tolist())
    if request.pairs is not None:
        stratum = _pairs(order, request.pairs)
        half = rng.permutation(np.arange(n) % 2)[stratum] if n >= FEWEST_TO_HALVE else np.zeros(2 * n, int)
        return MixedArms(examples, forget, np.arange(2 * n), half, stratum)
    named = np.array(request.group_names or [str(i) for i in range(len(digests))], str)[order]
    _, first, place = np.unique(named, return_index=True, return_inverse=True)
    group, arm_of = np.argsort(np.argsort(first))[place], forget[np.sort(first)]
    half_of_group = np.zeros(len(arm_of), int)
    if min(arm_of.sum(), (~arm_of).sum()) >= FEWEST_TO_HALVE:
        for arm in (arm_of, ~arm_of):
            half_of_group[arm] = rng.permutation(np.arange(arm.sum()) % 2)
    return MixedArms(examples, forget, group, half_of_group[group], half_of_group[group])


def _pairs(order: np.ndarray, pairs: Sequence[int]) -> np.ndarray:
    """For each example of the pool the number of its pair; pairs are numbered as their first examples stand."""
    n, position = len(pairs), np.argsort(order)
    first = np.minimum(position[:n], position[n + np.array(pairs, int)])
    number, of_example = np.argsort(np.argsort(first)), np.empty(2 * n, int)
    of_example[np.arange(n)] = of_example[n + np.array(pairs, int)] = number
    return np.asarray(of_example[order])
