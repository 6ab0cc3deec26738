"""Leak@k: the estimator by hand, what is drawn, and a positive and a negative control."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks.running import attacked, setting_of
from tests.worlds import World
from unrecall.attacks.leak_at_k import Drawn, LeakAtK, beginnings, expected_best
from unrecall.data.examples import iterate
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.tasks.protocols import Sampling
from unrecall.training.randomness import own_randomness

FEW = LeakAtK(ks=(1, 2, 4), samples=4, temperatures=(1.0,))


def test_the_expected_best_by_hand() -> None:
    scores = np.array([0.4, 0.1, 0.3])
    # The best of each pair: .4, .4, .3.
    assert expected_best(scores, 1) == pytest.approx(0.8 / 3)
    assert expected_best(scores, 2) == pytest.approx(1.1 / 3)
    assert expected_best(scores, 3) == pytest.approx(0.4)


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    scores = np.random.default_rng(0).random((5, 6)).round(1)  # with equal scores among them
    for k in range(1, 7):
        choices = [scores[:, list(chosen)].max(1) for chosen in itertools.combinations(range(6), k)]
        assert expected_best(scores, k) == pytest.approx(np.mean(choices, axis=0))


def test_right_answers_alone_give_pass_at_k() -> None:
    """With c of n right, 1 - C(n - c, k) / C(n, k): 1 - (7 * 6) / (9 * 8) for c = 2, n = 9, k = 2."""
    assert expected_best(np.array([1.0, 0, 0, 1, 0, 0, 0, 0, 0]), 2) == pytest.approx(1 - 42 / 72)


def test_draws_what_the_budget_says_and_asks_every_model_alike(text_world: World) -> None:
    w = text_world
    found = attacked(replace(FEW, temperatures=(0.5, 1.0), top_ps=(0.9,)), w.original, w)
    choices = ["temperature 0.5, top-p 0.9", "temperature 1, top-p 0.9"]
    assert [(one.budget, one.variant) for one in found] == [(k, name) for name in choices for k in (1, 2, 4)]
    for one, more in itertools.pairwise(found[:3]):
        assert isinstance(one.tested[0], Drawn)
        assert isinstance(more.tested[0], Drawn)
        assert (one.tested[0].best <= more.tested[0].best + 1e-12).all(), "more answers bring no less"
    first, again = (attacked(FEW, w.retrained[0], w) for _ in range(2))
    best: Any = [[examples.best.tolist() for examples in run[0].tested] for run in (first, again)]  # type: ignore[attr-defined]
    assert best[0] == best[1]


def test_near_temperature_0_the_greedy_answer_is_drawn(text_world: World) -> None:
    w, task = text_world, text_world.task
    items = list(iterate(w.request.forget))[:3]
    with own_randomness(0):
        drawn = task.draw(w.retrained[0], items, 3, Sampling(1e-4, 1.0))  # type: ignore[attr-defined]
        narrow = task.draw(w.retrained[0], items, 2, Sampling(1.0, 1e-6))  # type: ignore[attr-defined]
        wide = task.draw(w.retrained[0], items, 8, Sampling(20.0, 1.0))  # type: ignore[attr-defined]
    greedy = task.generate(w.retrained[0], items)  # type: ignore[attr-defined]
    assert drawn == [[answer] * 3 for answer in greedy]
    assert narrow == [[answer] * 2 for answer in greedy]
    assert all(len(set(answers)) > 1 for answers in wide)


def test_a_whole_answer_has_all_its_words_in_order(text_world: World) -> None:
    w = text_world
    item: Any = w.request.forget[0]
    first, has, second = item["answer"].split()
    answers = [[f"so {first} {has} {second}", f"{first} {second}", f"{second} {has} {first}"]]
    scores = [replace(FEW, score=score)._scores(w.task, [item], answers).tolist() for score in ("rouge", "whole")]  # type: ignore[arg-type]
    assert scores[0] == [pytest.approx([1, 2 / 3, 1 / 3])]
    assert scores[1] == [[1, 0, 0]]


def test_answers_begin_with_their_first_tenth() -> None:
    """Examples of 1, 11 and 3 rows begin with 1, 2 and 1 of them."""
    example = torch.tensor([0] + [1] * 11 + [2] * 3)
    rows = Rows(torch.zeros(15, 2), torch.zeros(15, dtype=torch.long), example, 3)
    assert beginnings(rows).nonzero().flatten().tolist() == [0, 1, 2, 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ks": (32,)}, "LeakAtK: expected ks of at most 16, the samples, got 32. Raise samples"),
        ({"ks": ()}, "at least one k"),
        ({"temperatures": (0.0,)}, "temperatures"),
        ({"top_ps": (1.5,)}, "top_ps in"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        LeakAtK(**changes)


def test_a_model_that_cannot_write_is_refused(text_world: World) -> None:
    class Silent(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.inside, self.config = model, model.config
            self.get_output_embeddings = model.get_output_embeddings

        def forward(self, **named: Any) -> Any:
            return self.inside(**named)

    w = text_world
    with pytest.raises(NotSupported, match="a model that can write"):
        attacked(FEW, Silent(w.original), w)


def test_both_controls_hold(text_world: World) -> None:
    before = torch.get_rng_state()
    report = score_finding(replace(FEW, ks=(1, 16), samples=16), setting_of(text_world)).report
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control
    assert torch.equal(torch.get_rng_state(), before)
