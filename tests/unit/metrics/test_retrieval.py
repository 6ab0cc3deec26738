"""Ranks, ties, zero-shot answers and neighbours by hand, on pairs whose vectors are given."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import World
from unrecall.data.examples import Absent
from unrecall.data.request import SPLITS, Request
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics.retrieval import measure, neighbours
from unrecall.record.schema import Measurement
from unrecall.tasks.protocols import Embedded, Paired


def at(degrees: float) -> Tensor:
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


class Turned(nn.Module):
    """Sees first sides turned by an angle; with `collapsed`, sees everything alike."""

    def __init__(self, by: float = 0.0, collapsed: bool = False) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))
        self.collapsed = collapsed


class Given:
    """Examples are the angles of both sides, and a class; the prompts stand at 0 and 90 degrees."""

    named = True

    def embedded(self, model: Any, examples: Any) -> Embedded:
        sides = [examples[i][:2] for i in range(len(examples))]
        if model.collapsed:
            return Embedded(*[at(45).repeat(len(sides), 1)] * 2)
        by = float(model.by.detach())
        return Embedded(torch.stack([at(a + by) for a, _ in sides]), torch.stack([at(b) for _, b in sides]))

    def sides(self, features: Tensor) -> Embedded:
        return Embedded(*features.chunk(2, 1))

    def prompts(self, model: Any) -> Tensor | None:
        together = at(45).repeat(2, 1)
        return None if not self.named else together if model.collapsed else torch.stack((at(0), at(90)))

    def labels(self, examples: Any) -> Tensor:
        return torch.tensor([examples[i][2] for i in range(len(examples))])

    def __repr__(self) -> str:
        return f"Given({self.named})"


Pair = tuple[float, float, int]
FORGET: list[Pair] = [(0, 4, 0), (10, 16, 0)]
RETAIN: list[Pair] = [(20, 20, 0), (30, 31, 0), (60, 60, 1), (90, 90, 1), (120, 121, -1)]
TEST: list[Pair] = [(150, 150, 1), (170, 171, 1)]
REQUEST = Request(FORGET, RETAIN, Absent("none was kept"), TEST)


def looks(model: nn.Module, request: Request = REQUEST) -> Any:
    """What the one pass over each split leaves of a model, as far as pairs are concerned."""
    there = [split for split in SPLITS if len(request[split])]
    return {s: SimpleNamespace(features=torch.cat(Given().embedded(model, request[s]), 1).numpy()) for s in there}


def rows(models: Models, request: Request = REQUEST, task: Any = None) -> dict[str, Measurement]:
    setting = Setting(models, request, task or Given())
    evidence = {role: SimpleNamespace(signals=looks(model, request)) for role, model in models.by_role().items()}
    vars(setting)["evidence"] = evidence
    return {m.name: m for m in measure(setting).measurements}


def values(found: Sequence[float | None] | Measurement) -> list[float | None]:
    assert isinstance(found, Measurement)
    return [found.original.value, found.unlearned.value, *(one.value for one in found.references)]


def test_ranks_by_hand() -> None:
    """All nine pairs are the gallery, for both sides.

    The first side at 0 is nearest to the second at 4, its own; that at 10 is as near to 4 as to 16, and its own comes
    first in every second order. The second side at 4 finds 0, its own; that at 16 is nearer to 20 than to 10.
    """
    found = rows(Models(Turned(), Turned()))
    assert found["forget_retrieval_first"].unlearned.value == pytest.approx(((1 + 1) / 2 + (0.5 + 0) / 2) / 2)
    assert found["forget_retrieval_top"].unlearned.value == 1
    assert found["forget_retrieval_first"].title == "Retrieval among 9, first, forget"
    assert found["test_retrieval_first"].unlearned.value == 1


def test_every_model_has_its_own_figures_and_neighbours_are_the_originals() -> None:
    """Turned by 20, forget's first sides stand at 20 and 30 and find 20 and 31; of the second ones 4 finds its own."""
    models = Models(Turned(), Turned(20.0), (Turned(), Turned(90.0)))
    found = rows(models)
    assert values(found["forget_retrieval_first"]) == [0.625, 0.25, 0.625, 0.25]
    assert values(found["test_retrieval_first"])[2] == 1
    assert found["forget_retrieval_first"].reference == pytest.approx(0.4375)


def test_neighbours_are_the_fifth_of_retain_that_is_nearest_to_forget() -> None:
    """The pair at 20, of five; where the test set is to be forgotten, that at 120."""
    for request, nearest in ((REQUEST, [0]), (Request(TEST, RETAIN, FORGET, Absent("none")), [4])):
        signals = looks(Turned(), request)
        assert neighbours(signals["forget"].features, signals["retain"].features).tolist() == nearest
    found = rows(Models(Turned(), Turned()))
    assert found["neighbours_retrieval_first"].unlearned.n == 1
    assert found["rest_retrieval_first"].unlearned.n == 4
    assert found["neighbours_retrieval_first"].unlearned.value == 1
    assert found["rest_retrieval_first"].unlearned.value == 1


def test_zero_shot_by_hand() -> None:
    """Prompts at 0 and 90: turned by 40, the side at 10 is called 1; what has no class is left out."""
    found = rows(Models(Turned(), Turned(40.0)))
    assert values(found["forget_zero_shot"]) == [1, 0.5]
    assert values(found["rest_zero_shot"])[0] == 1
    assert found["rest_zero_shot"].unlearned.n == 3, "one of four has no class"
    assert found["forget_zero_shot"].leak == "above"
    assert found["test_zero_shot"].leak is None


def test_where_all_is_alike_a_hit_is_a_matter_of_chance() -> None:
    """A model that has collapsed finds nothing: one of nine, five of nine, one of two classes."""
    found = rows(Models(Turned(), Turned(collapsed=True)))
    assert found["forget_retrieval_first"].unlearned.value == pytest.approx(1 / 9)
    assert found["forget_retrieval_top"].unlearned.value == pytest.approx(5 / 9)
    assert found["forget_zero_shot"].unlearned.value == pytest.approx(1 / 2)


def test_what_is_absent_is_a_row_with_a_reason() -> None:
    found = rows(Models(Turned(), Turned()))
    assert found["holdout_zero_shot"].unlearned.value is None
    assert found["holdout_zero_shot"].note == "none was kept"
    two = Request(FORGET, RETAIN[:1], TEST, Absent("nothing to test"))
    found = rows(Models(Turned(), Turned()), two)
    assert found["rest_retrieval_first"].note == "no examples"
    assert found["test_retrieval_first"].note == "nothing to test"
    nameless = Given()
    nameless.named = False
    found = rows(Models(Turned(), Turned()), task=nameless)
    assert found["forget_zero_shot"].note == "no example has a class with a prompt"
    assert found["forget_retrieval_first"].unlearned.value == 0.625


def test_other_tasks_are_refused(samples_world: World) -> None:
    w = samples_world
    assert not isinstance(w.task, Paired)
    with pytest.raises(NotSupported, match="examples are pairs, got Classification"):
        measure(Setting(Models(w.original, w.original), w.request, w.task))


def test_four_figures_are_judged() -> None:
    first = rows(Models(Turned(), Turned(20.0)))
    assert {name for name, m in first.items() if m.judged} == {
        "forget_zero_shot",
        "forget_retrieval_first",
        "neighbours_retrieval_first",
        "test_zero_shot",
    }
    assert {m.group for name, m in first.items() if name.startswith(("forget", "holdout"))} == {"forgetting"}
    assert {m.group for name, m in first.items() if not name.startswith(("forget", "holdout"))} == {"utility"}
