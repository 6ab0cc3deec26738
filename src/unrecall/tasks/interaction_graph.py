"""The graph of users' interactions with items: which that stay are of users who forget some, or near these in it.

An example is `{"user": int, "item": int}`, or has a `history` of items beside, which the item follows.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from unrecall.data.examples import Examples, Joined, Selection, iterate, split_off
from unrecall.data.request import Request
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Ranked


class ByUser(NamedTuple):
    """Retain in two parts: what is left of the forgetting users' interactions, and those of all others."""

    cleaned: Examples
    others: Examples


def by_user(task: Task, request: Request) -> ByUser:
    """Splits retain by user; where the task has no users, all of retain is `cleaned` and no one else is there."""
    if not isinstance(task, Ranked):
        return ByUser(request.retain, Selection(request.retain, []))
    users = {task.user(example) for example in iterate(request.forget)}
    own = [task.user(example) in users for example in iterate(request.retain)]
    parts = ([i for i, is_own in enumerate(own) if is_own is wanted] for wanted in (True, False))
    return ByUser(*(Selection(request.retain, part) for part in parts))


def retained(task: Task, request: Request, count: int, generator: torch.Generator) -> Joined:
    """All of `cleaned`, and of the others as many, drawn at random, as make it up to `count`."""
    cleaned, others = by_user(task, request)
    more, _ = split_off(others, max(0, count - len(cleaned)), generator)
    return Joined([cleaned, more])


def neighbourhood(task: Ranked, request: Request, hops: int) -> list[int]:
    """Gives the places in retain of the interactions of users within `hops` of a user who forgets; those at 0 hops too.

    A hop leads from a user to an item of theirs, of any example of forget or retain, or back: two users of one item are
    two hops apart.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    examples = [*iterate(request.forget), *iterate(request.retain)]
    edges = [(task.user(example), item) for example in examples for item in items_of(example)]
    users, items = zip(*edges, strict=True)
    names, of_edges = np.unique(users, return_inverse=True)
    size = len(names) + task.items
    graph = coo_array((np.ones(len(edges)), (of_edges, len(names) + np.asarray(items))), shape=(size, size)).tocsr()
    starts = np.unique([int(np.searchsorted(names, task.user(example))) for example in iterate(request.forget)])
    distances = dijkstra(graph, directed=False, indices=starts, unweighted=True, limit=hops, min_only=True)
    near = {int(name) for name, distance in zip(names, distances, strict=False) if np.isfinite(distance)}
    return [i for i, example in enumerate(iterate(request.retain)) if task.user(example) in near]


def items_of(example: Mapping[str, Any]) -> Iterator[int]:
    """Gives the items of an example, those of its history among them."""
    yield from (int(item) for item in example.get("history", ()))
    yield int(example["item"])


def without(task: Ranked, examples: Examples, forget: Examples) -> list[Any]:
    """Gives the examples as they are once no history holds what its user forgets.

    One whose history is empty then is left out, for nothing leads to its item any more.
    """
    forgotten = {(task.user(example), int(example["item"])) for example in iterate(forget)}
    left = []
    for example in iterate(examples):
        if "history" in example:
            history = [item for item in example["history"] if (task.user(example), int(item)) not in forgotten]
            if history:
                left.append({**example, "history": type(example["history"])(history)})
        else:
            left.append(example)
    return left
