"""By hand, on a graph of six interactions: whose they are, who is near, and what a deletion cuts."""

import pytest

from tests.worlds.interactions import Interaction, Interactions, pairs_of
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.tasks import Classification
from unrecall.tasks.interaction_graph import by_user, items_of, neighbourhood, without
from unrecall.tasks.protocols import Ranked

TASK = Interactions(6)

# User 7 forgets item 0, and has item 1 left; user 8 has 0 and 2; user 9 has 2 and 3; user 5 has item 4 alone.
RETAIN = pairs_of((7, 1), (8, 0), (8, 2), (9, 2), (9, 3), (5, 4))


def request_of(forget: list[Interaction], retain: list[Interaction]) -> Request:
    return Request(forget, retain)


def test_what_is_left_of_the_users_who_forget() -> None:
    cleaned, others = by_user(TASK, request_of(pairs_of((7, 0)), RETAIN))
    assert list(iterate(cleaned)) == pairs_of((7, 1))
    assert list(iterate(others)) == RETAIN[1:]


def test_a_task_without_users_has_retain_as_a_whole() -> None:
    request = request_of(pairs_of((7, 0)), RETAIN)
    cleaned, others = by_user(Classification(), request)
    assert list(iterate(cleaned)) == RETAIN
    assert len(others) == 0


@pytest.mark.parametrize(
    ("hops", "users"), [(0, {7}), (1, {7}), (2, {7, 8}), (3, {7, 8}), (4, {7, 8, 9}), (50, {7, 8, 9})]
)
def test_neighbourhood_by_hand(hops: int, users: set[int]) -> None:
    """Item 0 joins 7 and 8, though 7's use of it is forgotten; item 2 joins 8 and 9; nothing leads to 5."""
    near = neighbourhood(TASK, request_of(pairs_of((7, 0)), RETAIN), hops)
    assert near == [i for i, example in enumerate(RETAIN) if example["user"] in users]


def test_a_history_joins_users_too() -> None:
    retain = [{"user": 8, "history": [3], "item": 2}, {"user": 9, "history": [4], "item": 5}]
    request = request_of([{"user": 7, "history": [3], "item": 1}], retain)
    assert neighbourhood(TASK, request, 2) == [0]
    assert list(items_of(retain[0])) == [3, 2]


def test_a_deletion_cuts_the_histories_of_its_own_user() -> None:
    examples = [
        {"user": 7, "history": [0, 1], "item": 2},
        {"user": 7, "history": [0], "item": 3},
        {"user": 8, "history": [0, 1], "item": 2},
        {"user": 7, "item": 4},
    ]
    left = without(TASK, examples, [{"user": 7, "history": [5], "item": 0}])
    assert left == [{"user": 7, "history": [1], "item": 2}, examples[2], examples[3]]
    assert examples[0]["history"] == [0, 1], "what was given is left alone"


def test_a_task_of_interactions_is_told_from_others() -> None:
    assert isinstance(TASK, Ranked)
    assert not isinstance(Classification(), Ranked)
