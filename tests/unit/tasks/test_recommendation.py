"""What the task of recommendations promises: batches, rows, what is refused, and what methods make of it."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unrecall as ur
from tests.worlds import CPU, World
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods import NPO, SCRUB, SSD, Finetune, NegGradPlus, RandomLabel
from unrecall.methods.base import Method
from unrecall.metrics.ranking import recalls
from unrecall.models.observe import observe
from unrecall.models.recommenders import GRU4Rec, MatrixFactorisation
from unrecall.report import answers
from unrecall.tasks import Ranked, Recommendation
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import own_randomness, seeded

FORGET, RETAIN = [{"user": 0, "item": 1, "history": [2, 3]}], [{"user": 1, "item": 0, "history": []}]


def test_batches_by_hand() -> None:
    """Of a history the last items are read, in their order; the number of items fills the rest, on the right."""
    batch = Recommendation(4).collate([*FORGET, *RETAIN])
    assert {name: value.tolist() for name, value in batch.items()} == {"users": [0, 1], "targets": [1, 0]}
    batch = Recommendation(4, longest=3).collate([*FORGET, *RETAIN])
    assert batch["histories"].tolist() == [[2, 3, 4], [4, 4, 4]]
    assert Recommendation(4, longest=1).collate(FORGET)["histories"].tolist() == [[3]]
    assert Recommendation(4, longest=1).cut_off(FORGET[0]) == 0.5
    assert Recommendation(4).cut_off(FORGET[0]) == 0


def test_the_loss_is_the_cross_entropy_over_the_catalogue() -> None:
    task, model = Recommendation(4), MatrixFactorisation(2, 4, 2)
    batch = task.collate([*FORGET, *RETAIN])
    expected = nn.functional.cross_entropy(model(torch.tensor([0, 1])), torch.tensor([1, 0]), reduction="none")
    torch.testing.assert_close(task.rows(model, batch).losses(), expected)


def test_who_and_what_an_example_is() -> None:
    task = Recommendation(4, longest=2, titles=("Heat", "Alien", "Jaws", "Big"))
    assert isinstance(task, Ranked)
    assert (task.user(FORGET[0]), task.item(FORGET[0]), task.items) == (0, 1, 4)
    assert task.exhibit(FORGET[0], "gone").content == "user 0: Alien after Jaws, Big"
    assert Recommendation(4).exhibit(FORGET[0], "gone").content == "user 0: item 1"
    assert task.raw(FORGET[0]) == b"0 2 3 1"


class Bare(nn.Module):
    """Gives products that no module of its own gives."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(4, 4)

    def forward(self, users: torch.Tensor) -> torch.Tensor:
        return self.vectors(users) @ self.vectors.weight.T


def test_a_model_that_ends_in_no_module_has_no_features() -> None:
    task = Recommendation(4)
    with pytest.raises(NotSupported, match="output of one of its modules, got none"):
        task.view(Bare(), task.collate(FORGET))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"items": 0}, "expected items to be the number of items in the catalogue, 1 or more, got '0'"),
        ({"items": 4, "longest": -1}, "expected longest to be a whole number from 0 on"),
        ({"items": 4, "sensitive": (4,)}, r"expected sensitive items in 0..3, got 4"),
        ({"items": 4, "sensitive": 2}, "expected sensitive to be a tuple of items"),
        ({"items": 4, "titles": (1,)}, "expected titles to be a tuple of names"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=f"Recommendation: {line}"):
        Recommendation(**settings)


@pytest.mark.parametrize(
    ("example", "line"),
    [
        ((0, 1), "expected a mapping with user, item, got tuple"),
        ({"user": 0}, "expected a mapping with user, item, got user"),
        ({"user": -1, "item": 1}, "expected user to be a whole number from 0 on, got -1"),
        ({"user": 0, "item": 4}, r"expected an item in 0..3 \(the catalogue\), got 4"),
        ({"user": 0, "item": 1.5}, "expected an item in 0..3"),
    ],
)
def test_what_is_no_interaction_is_refused(example: Any, line: str) -> None:
    with pytest.raises(BadInput, match=rf"forget\[0\]: {line}"):
        Recommendation(4).check(MatrixFactorisation(2, 4), Request([example], [{"user": 1, "item": 0}]))


def test_histories_are_checked_where_they_are_read() -> None:
    task, model = Recommendation(4, longest=2), GRU4Rec(4, 8)
    with pytest.raises(BadInput, match=r"forget\[0\]: expected a mapping with user, item, history, got user, item"):
        task.check(model, Request([{"user": 0, "item": 1}], RETAIN))
    with pytest.raises(BadInput, match=r"expected an item in 0..3 \(the catalogue\), got 9"):
        task.check(model, Request([{"user": 0, "item": 1, "history": [9]}], RETAIN))
    with pytest.raises(BadInput, match="expected history to be a list of items, got 'no'"):
        task.check(model, Request([{"user": 0, "item": 1, "history": "no"}], RETAIN))
    task.check(model, Request(FORGET, RETAIN))


def test_a_model_of_another_catalogue_is_refused() -> None:
    with pytest.raises(BadInput, match=r"expected logits \(2, 4\), one for each item of the catalogue, got \(2, 5\)"):
        Recommendation(4).check(MatrixFactorisation(2, 5), Request(FORGET, RETAIN))


METHODS: list[Method] = [
    Finetune(fit=Fit(optimizer="adam", lr=0.02, epochs=20, batch_size=8)),
    NegGradPlus(fit=Fit(optimizer="adam", lr=0.01, epochs=5, batch_size=8)),
    NPO(fit=Fit(optimizer="adam", lr=0.02, epochs=10, batch_size=8)),
    RandomLabel(fit=Fit(optimizer="adam", lr=0.02, epochs=5, batch_size=8)),
    SCRUB(fit=Fit(optimizer="adam", lr=0.01, epochs=5, batch_size=8)),
    SSD(alpha=2.0, importance="exact"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_methods_run_unchanged_and_forget(method: Method, tastes_world: World) -> None:
    w = tastes_world
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    before, after = (observe(model, w.task, w.request.forget).loss.mean() for model in (w.original, result))
    assert after > before + 0.1
    retained = [observe(model, w.task, w.request.retain).loss.mean() for model in (w.original, result)]
    assert retained[1] - retained[0] < after - before, "retain suffers less"


def test_methods_start_from_a_graph_without_what_must_go() -> None:
    """Whatever a method does to weights, a forgotten edge would still bring the item near its user."""
    pytest.importorskip("torch_geometric")
    from unrecall.models.recommenders import LightGCN

    with own_randomness(0):
        model = LightGCN(2, 4, torch.tensor([[0, 1], [1, 0]]), 8)
    recipe = Fit(lr=0.0, epochs=1)
    result: Any = Finetune(fit=recipe).unlearn(model, Job(Request(FORGET, RETAIN), Recommendation(4), seeded(0), CPU))
    assert result.edges.tolist() == [[1, -1], [0, -1]]
    assert model.edges.tolist() == [[0, 1], [1, 0]]


def test_a_recommender_is_damaged_where_its_users_recall_falls(tastes_world: World) -> None:
    """Without retrained models: by recall at 10 on test, user by user, for it hardly ever names the one item first."""
    w = tastes_world
    ruined: Any = copy.deepcopy(w.original)
    with torch.no_grad():
        for p in ruined.parameters():
            p.neg_()
    record = ur.audit(original=w.original, unlearned=ruined, request=w.request, task=w.task, attacks="loss")
    assert record.never_trained is not None
    (damage,) = record.never_trained.damage
    after, before = recalls([ruined, w.original], w.task, w.request)
    assert damage.split == "test"
    assert damage.difference.n == 12
    assert damage.difference.value == pytest.approx(float((after - before).mean()))
    assert damage.damaged == (damage.difference.high is not None and damage.difference.high < 0)
    page = answers.answers(record)
    assert "Change of recall at 10 since the original" in str(page)
    by_accuracy = [damage.model_copy(update={"split": split}) for split in ("retain", "test")]  # as it was judged once
    tested = record.never_trained.model_copy(update={"damage": by_accuracy})
    former = answers.answers(record.model_copy(update={"never_trained": tested}))
    assert "Change of accuracy since the original" in str(former)


def test_the_example_of_the_page_runs_as_it_stands(tastes_world: World) -> None:
    page = (Path(__file__).parents[3] / "docs" / "recommenders.md").read_text(encoding="utf-8")
    *_, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    request = tastes_world.request
    names: dict[str, Any] = {"ur": ur, **request.sets, "model": MatrixFactorisation(12, 500)}
    exec(compile(example, "recommenders.md", "exec"), names)
    assert names["record"].measurement("hit_rate_20").unlearned.value is not None
