"""Recall, NDCG and sensitive shares by hand, in a world of three users and four items."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import Tensor, nn

from tests.worlds import World
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics.ranking import audience, figures, marks, measure, ndcg, recall, recalls, scores
from unrecall.tasks import Recommendation
from unrecall.training.randomness import seeded

SCORES = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 2.0, 3.0]])
REQUEST = Request(
    forget=[{"user": 0, "item": 1}],
    retain=[{"user": 0, "item": 0}, {"user": 1, "item": 0}, {"user": 2, "item": 1}],
    test=[{"user": 0, "item": 3}, {"user": 1, "item": 3}, {"user": 1, "item": 1}, {"user": 2, "item": 0}],
)
"""User 0 keeps 0, wants 1 forgotten and takes 3; user 1 keeps 0 and takes 3 and 1; user 2 keeps 1 and takes 0."""


class Given(nn.Module):
    """Gives each user the logits of a table."""

    def __init__(self, table: Tensor = SCORES) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, users: Tensor) -> Tensor:
        logits: Tensor = self.table(users)
        return logits


def values(task: Recommendation, k: int, request: Request = REQUEST) -> dict[str, float | None]:
    people = audience(task, request)
    found = figures(scores(Given(), task, people.examples), people, k)
    return {key: estimate.value for key, estimate in found.items()}


def test_recall_and_ndcg_by_hand() -> None:
    """Without what they keep, the users are recommended 1 2 3, then 3 2 1, and 3 2 0."""
    found = values(Recommendation(4), 2)
    assert found["recall"] == pytest.approx((0 / 1 + 1 / 2 + 0 / 1) / 3)
    best = 1 + 1 / np.log2(3)
    assert found["ndcg"] == pytest.approx((0 + 1 / best + 0) / 3)
    found = values(Recommendation(4), 3)
    assert found["recall"] == 1
    assert found["ndcg"] == pytest.approx((0.5 + (1 + 0.5) / best + 0.5) / 3)


def test_recall_of_each_user_by_hand() -> None:
    """Of two models, the second of which names what the users keep first; nobody has 5 items to be recommended."""
    models, task = [Given(), Given(-SCORES)], Recommendation(4)
    assert recalls(models, task, REQUEST, 2).tolist() == [[0, 0.5, 0], [1, 0.5, 1]]
    assert recalls(models, task, REQUEST, 5).shape == (2, 0)
    assert recalls(models, task, replace(REQUEST, test=Absent("none")), 2).shape == (2, 0)


def test_sensitive_shares_by_hand() -> None:
    """User 0's own is item 1, and first; where items 1 and 2 are sensitive for all, users 1 and 2 get them as well."""
    own = values(Recommendation(4), 2)
    assert (own["sensitive_users"], own["sensitive_share"]) == (1, 0.5)
    assert (own["sensitive_least"], own["sensitive_most"], own["hit_rate"]) == (0.5, 0.5, None)
    common = values(Recommendation(4, sensitive=(1, 2)), 2)
    assert (common["sensitive_share"], common["hit_rate"]) == (1, 1)
    common = values(Recommendation(4, sensitive=(1,)), 2)
    assert (common["sensitive_share"], common["hit_rate"]) == (0.5, 0), "1 is third for user 1, and user 2 keeps it"


def test_least_and_most_are_over_users_of_forget() -> None:
    request = Request([{"user": 0, "item": 1}, {"user": 2, "item": 0}], REQUEST.retain)
    found = values(Recommendation(4, sensitive=(1, 2)), 2, request)
    assert (found["sensitive_least"], found["sensitive_most"], found["sensitive_share"]) == (0.5, 1, 0.75)
    assert found["sensitive_users"] == 1


def test_without_a_user_of_forget_their_figures_have_a_reason() -> None:
    task = Recommendation(4)
    people = audience(task, REQUEST)
    nobody = replace(people, forgetting=torch.zeros_like(people.forgetting))
    found = figures(scores(Given(), task, people.examples), nobody, 2)
    keys = ("sensitive_users", "sensitive_share", "sensitive_least", "sensitive_most")
    assert {(found[key].value, found[key].note) for key in keys} == {(None, "no user of forget")}


def test_what_a_user_keeps_is_never_recommended_and_fills_no_place() -> None:
    """User 2 keeps three of four items: beyond the one that is left, places stay empty."""
    retained = torch.tensor([[True, True, True, False]])
    hits = marks(SCORES[:1], retained, torch.ones(1, 4, dtype=torch.bool), 3)
    assert hits.tolist() == [[True, False, False]]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_same_as_a_library(k: int) -> None:
    generator = seeded(k)
    table = torch.rand(50, 30, generator=generator, dtype=torch.float64)
    wanted = torch.rand(50, 30, generator=generator) < 0.2
    wanted[:, 0] = True
    hits = marks(table, torch.zeros(50, 30, dtype=torch.bool), wanted, k)
    assert ndcg(hits, wanted.sum(1).numpy()).mean() == pytest.approx(
        ndcg_score(wanted.numpy(), table.numpy(), k=k), abs=1e-9
    )
    first = table.argsort(1, descending=True)[:, :k]
    by_user = [np.isin(np.flatnonzero(wanted[i]), first[i]).mean() for i in range(50)]
    np.testing.assert_allclose(recall(hits, wanted.sum(1).numpy()), by_user, atol=1e-12)


def test_every_model_has_its_own_figures() -> None:
    """Ten items: recommending in reverse order brings the forgotten item 9 from the last place to the first."""
    task, forward = Recommendation(20), torch.arange(20.0).flip(0).repeat(2, 1)
    request = Request([{"user": 0, "item": 19}], [{"user": 1, "item": 3}], test=[{"user": 1, "item": 0}])
    models = Models(Given(forward), Given(-forward), (Given(forward),))
    rows = {row.name: row for row in measure(Setting(models, request, task)).measurements}
    assert (rows["sensitive_share_10"].unlearned.value, rows["sensitive_share_10"].original.value) == (0.1, 0)
    assert (rows["recall_10"].unlearned.value, rows["recall_10"].reference) == (0, 1)
    assert {name for name, row in rows.items() if row.judged} == {"recall_10", "sensitive_share_10"}
    assert rows["sensitive_share_20"].unlearned.value == 0.05


def test_what_can_not_be_said_is_a_row_with_a_reason() -> None:
    small = measure(Setting(Models(Given(), Given()), REQUEST, Recommendation(4))).measurements
    assert all("needs a catalogue of" in row.note and "got 4" in row.note for row in small)
    table, untested = torch.rand(3, 30, generator=seeded(0)), Request(REQUEST.forget, REQUEST.retain, test=Absent("no"))
    rows = measure(Setting(Models(Given(table), Given(table)), untested, Recommendation(30))).measurements
    notes = {row.name: row.note for row in rows}
    assert notes["recall_10"] == notes["ndcg_20"] == "no"
    assert notes["hit_rate_10"] == "each user has sensitive items of their own"
    everyone = Request([{"user": user, "item": 2} for user in range(3)], REQUEST.retain)
    rows = measure(Setting(Models(Given(table), Given(table)), everyone, Recommendation(30, 0, (2,)))).measurements
    assert {row.note for row in rows if row.name.startswith("hit_rate")} == {"all users are in forget"}


def test_a_history_is_what_is_retained() -> None:
    """Asked after items 0 and 2, not after the forgotten 1; a user of whom nothing stays is asked after nothing."""
    request = Request(
        [{"user": 0, "item": 1, "history": [0]}, {"user": 1, "item": 1, "history": []}],
        [{"user": 0, "item": 0, "history": []}, {"user": 0, "item": 2, "history": [0]}],
    )
    people = audience(Recommendation(4, longest=3), request)
    assert [example["history"] for example in people.examples] == [[0, 2], []]  # type: ignore[index]
    assert people.retained.tolist() == [[True, False, True, False], [False] * 4]


def test_other_tasks_are_refused(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="ranking: expected a task of recommendations"):
        measure(Setting(Models(w.original, w.original), w.request, w.task))
