"""Interactions that must go, request after request, and what a recommender is trained on meanwhile."""

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.scenarios.choice import shuffled


class Interaction(NamedTuple):
    """A user took an item; `place` numbers interactions in the order of time."""

    place: int
    user: int
    item: int


@dataclass(frozen=True)
class DeletionRule:
    """Who may ask that interactions of which kind are forgotten.

    `users`: in the order in which they ask. `concerns`: whether an interaction is of the kind. `most`: so many
    interactions are asked for, or a few more; None for all users'. `untested`: users who aren't part of the test set.
    """

    users: Sequence[int]
    concerns: Callable[[Interaction], bool]
    most: float | None = None
    untested: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Parts:
    """Interactions by what becomes of them at one request, in the order of time.

    `before`: all that is trained on before the request, `forget` among them. `earlier`: what was asked for before it.
    """

    before: list[Interaction]
    forget: list[Interaction]
    holdout: list[Interaction]
    validation: list[Interaction]
    test: list[Interaction]
    earlier: list[Interaction]

    @cached_property
    def retain(self) -> list[Interaction]:
        """What stays."""
        forgotten = {*self.forget}
        return [i for i in self.before if i not in forgotten]

    @cached_property
    def emptied(self) -> set[int]:
        """The users of whom nothing stays."""
        return {i.user for i in self.forget} - {i.user for i in self.retain}

    def request(self, longest: int) -> Request:
        """The request; after it histories hold what stays alone, and users of whom nothing stays are not tested."""
        tested = [i for i in self.test if i.user not in self.emptied]
        validation = examples(self.validation, self.before, longest)
        return Request(
            forget=examples(self.forget, self.before, longest),
            retain=examples(self.retain, self.retain, longest),
            holdout=examples(self.holdout, self.before, longest),
            test=examples(tested, self.retain, longest),
            validation=validation if len(validation) >= 4 else None,
            control="random split",
        )


class Draw(NamedTuple):
    """How parts are drawn: the seed, in how many requests users ask, and which of them this is."""

    seed: int
    checkpoints: int = 1
    checkpoint: int = 1


def parts_of(interactions: Sequence[Interaction], rule: DeletionRule, draw: Draw) -> Parts:
    """Draws what must go, what was held back, and the test set, which is each user's last interaction.

    Of what a user asks for, half was trained on and must go. The other half was held back by lot before training: two
    thirds of it are the holdout, one is validation. The last interaction of one who asks is not tested where it is of
    the kind that must go.
    """
    everything = sorted(interactions)
    last = {i.user: i for i in everything if i.user not in rule.untested}
    pools = _pools(everything, rule, {*last.values()})
    if len(pools) < draw.checkpoints:
        raise BadInput(
            f"checkpoints: expected a user for each of {draw.checkpoints} requests, got {len(pools)} users with two "
            "interactions or more of that kind. Lower checkpoints, raise fraction, or ask for another kind."
        )
    out, by_turn = {*last.values()}, defaultdict[int, tuple[list[Interaction], list[Interaction]]](lambda: ([], []))
    for number, (user, pool) in enumerate(pools.items()):
        own, held = by_turn[1 + number * draw.checkpoints // len(pools)]
        drawn = shuffled(pool, draw.seed + 1 + user)
        half = (len(drawn) + 1) // 2
        own += drawn[:half]
        held += drawn[half:]
        out |= {*drawn[half:]}
    forget, held = by_turn[draw.checkpoint]
    earlier = [i for turn in range(1, draw.checkpoint) for i in by_turn[turn][0]]
    lots = shuffled(sorted(held), draw.seed)
    out |= {*earlier}
    return Parts(
        before=[i for i in everything if i not in out],
        forget=sorted(forget),
        holdout=sorted(i for k, i in enumerate(lots) if k % 3 < 2),
        validation=sorted(i for k, i in enumerate(lots) if k % 3 == 2),
        test=sorted(i for i in last.values() if i.user not in pools or not rule.concerns(i)),
        earlier=sorted(earlier),
    )


def _pools(
    everything: Iterable[Interaction], rule: DeletionRule, last: set[Interaction]
) -> dict[int, list[Interaction]]:
    """What each user who asks may ask for, two interactions or more, until `most` are asked for."""
    own: dict[int, list[Interaction]] = defaultdict(list)
    for i in everything:
        if i not in last and rule.concerns(i):
            own[i.user].append(i)
    pools: dict[int, list[Interaction]] = {}
    for user in rule.users:
        if rule.most is not None and sum((len(pool) + 1) // 2 for pool in pools.values()) >= rule.most:
            break
        if len(own[user]) >= 2:
            pools[user] = own[user]
    return pools


def examples(chosen: Iterable[Interaction], context: Sequence[Interaction], longest: int) -> list[dict[str, Any]]:
    """Interactions as the task reads them; `longest` items of `context` that the user took before are the history."""
    if not longest:
        return [{"user": i.user, "item": i.item} for i in chosen]
    by_user: dict[int, list[Interaction]] = defaultdict(list)
    for i in context:
        by_user[i.user].append(i)

    def history(i: Interaction) -> list[int]:
        before = bisect(by_user[i.user], (i.place,))
        return [j.item for j in by_user[i.user][max(0, before - longest) : before]]

    return [{"user": i.user, "history": history(i), "item": i.item} for i in chosen]


def pairs(interactions: Sequence[Interaction]) -> Tensor:
    """Users and items `[2, n]`, as a graph has them."""
    return torch.tensor([(i.user, i.item) for i in interactions], dtype=torch.long).view(-1, 2).T.contiguous()
