"""By hand: how probes are bred, what counts as a hole, and what is like what was asked before."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unrecall.models.knowledge_holes.search import Answers, Earlier, Holes, Probes, Round, Search, holes
from unrecall.models.knowledge_holes.self_bleu import stretches
from unrecall.tasks import Classification
from unrecall.training.randomness import seeded

MODEL = nn.Linear(1, 1)


class Numbers(Probes):
    """Probes are numbers; children are 1, 2 and 3 more than their parents. Multiples of 4 are unsound. A model is wrong
    from 10 on, and gives an answer the probability 1 - x / 20."""

    def at_home(self, examples: Sequence[Any]) -> list[Any]:
        return list(examples)

    def varied(
        self, parents: list[Any], homes: list[Any], generator: torch.Generator, model: nn.Module | None = None
    ) -> list[Any]:
        return [parent + 1 + i % 3 for i, parent in enumerate(parents)]

    def allowed(self, items: list[Any]) -> np.ndarray:
        return np.array(items) % 4 != 0

    def answers(self, model: nn.Module, items: list[Any]) -> Answers:
        return Answers(np.array(items) < 10, 1 - np.array(items) / 20)

    def looked_at(self, items: list[Any]) -> Round:
        return Round(items, self.allowed(items), np.array([[1.0, item] for item in items]))


def search(homes: list[int], rounds: int = 3, novelty: float = 0.0) -> Search:
    probes = Numbers(Classification(), MODEL, np.zeros(2), 0.5)
    return Search(probes, probes.looked_at(homes), rounds, 3, novelty)


def test_the_worst_answered_sound_child_is_followed() -> None:
    """From 1: of 2, 3, 4 the largest sound one is 3; of 4, 5, 6 it is 6; of 7, 8, 9 it is 9."""
    rounds = search([1]).against(MODEL, seeded(0))
    assert [part.items for part in rounds] == [[1], [2, 3, 4], [4, 5, 6], [7, 8, 9]]


def test_at_random_the_first_sound_child_is_followed() -> None:
    """From 1: 2; then 3 of 3, 4, 5; then 5, for 4 is unsound."""
    rounds = search([1], rounds=4).at_random(seeded(0))
    assert [part.items for part in rounds] == [[1], [2, 3, 4], [3, 4, 5], [4, 5, 6], [6, 7, 8]]


def test_children_stay_with_their_home() -> None:
    rounds = search([1, 5]).against(MODEL, seeded(0))
    assert rounds[1].items == [2, 3, 4, 6, 7, 8]
    assert rounds[2].items == [4, 5, 6, 8, 9, 10]
    assert rounds[3].items == [7, 8, 9, 11, 12, 13]


def test_holes_are_sound_probes_that_are_answered_wrong() -> None:
    """Near 1 none is met in three rounds; near 5 the second round meets 10, the third 11 and 13 (12 is unsound)."""
    tried = search([1, 5])
    result = holes(MODEL, tried.probes, tried.against(MODEL, seeded(0)))
    assert result.items == [10, 11, 13]
    assert result.met.tolist() == [[False, False], [False, False], [False, True], [False, True]]
    assert result.weakest == pytest.approx([0.5, 0.45, 0.35])
    assert result.sound == 2 + 4 + 4 + 4


def test_what_is_left_of_holes_by_hand() -> None:
    """The second is the first again; of the two that are left one is answered with less than a tenth."""
    vectors = np.array([[1.0, 0], [2, 0], [0, 1]])
    result = Holes(np.ones((1, 3), bool), [0, 1, 2], vectors, np.array([0.4, 0.01, 0.05]), 3)
    assert result.distinct == [0, 2]
    assert result.diversity == pytest.approx(2)
    assert result.worst == 0.5
    none = Holes(np.zeros((1, 3), bool), [], vectors[:0], np.empty(0), 3)
    assert (none.distinct, none.diversity, none.worst) == ([], 0, 0)


def test_likeness_by_hand() -> None:
    """Two earlier vectors at a right angle: one at 45 degrees has a mean cosine of 0.71 with them."""
    earlier = Earlier()
    assert earlier.likeness(np.ones((2, 2)), []).tolist() == [0, 0]
    earlier.add(np.array([[1.0, 0], [0, 5]]), ["a b c"])
    assert earlier.likeness(np.array([[1.0, 1], [2, 0]]), []) == pytest.approx([np.sqrt(0.5), 0.5])
    assert stretches("a b c") == [("a", "b", "c")]
    assert earlier.likeness(np.array([[2.0, 0]]), ["a b c"]) == pytest.approx([0.5 + 1 / 3])


def test_likeness_costs_merit() -> None:
    """Vectors (1, x) point up as x grows; a child like those before it is passed over where novelty weighs much."""
    plain, novel = (search([1], 2, novelty).against(MODEL, seeded(0))[2].items for novelty in (0.0, 50.0))
    assert plain == novel == [4, 5, 6], "nothing was asked before the first round"
    followed = [search([1], 3, novelty).against(MODEL, seeded(0))[3].items for novelty in (0.0, 50.0)]
    assert followed == [[7, 8, 9], [4, 5, 6]], "all are too like those before: the parent stays"
