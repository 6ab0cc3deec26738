"""A model with a known hole is found out, the original has none, and what can't be searched is said."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn

from tests.worlds import CPU, World
from unrecall.attacks.knowledge_holes import KnowledgeHoles
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.neighbours import Neighbours
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.inspection import inspection_finding
from unrecall.record.schema import Exhibit
from unrecall.tasks import Classification
from unrecall.tasks.base import Parts, Task

SMALL = KnowledgeHoles(homes=40, rounds=2, children=2, steps=2, draws=2)


def elsewhere(world: World) -> Setting:
    """Others must go than those that the retrained model, called unlearned here, has never met: these stay and are its
    known hole."""
    request = world.request
    forget, retain = list(request.forget), list(request.retain)  # type: ignore[call-overload]
    asked = Request(retain[-6:], forget + retain[:-6], request.holdout, request.test)
    return Setting(Models(world.original, world.retrained[0]), asked, world.task, 0, CPU)


def test_the_original_has_no_holes(samples_world: World, text_world: World) -> None:
    for world in (samples_world, text_world):
        setting = elsewhere(world)
        inspection = SMALL.inspect(world.original, setting)
        assert inspection.value.value == 0
        assert {value for line in inspection.lines.values() for value in line} == {0}


def test_a_class_that_a_model_never_met_is_a_hole(class_world: World) -> None:
    setting = elsewhere(class_world)
    attack = replace(SMALL, homes=160)
    arm_search = attack.searches(setting)["forget"]
    result = attack.holes_of(setting.models.unlearned, arm_search, setting).searched
    homes = [item[1] for item in arm_search.search.homes.items]
    assert {0, 1} <= {*homes}
    assert all(result.met[0][i] for i, label in enumerate(homes) if label == 0), "wrong as they are"
    others = [bool(result.met[0][i]) for i, label in enumerate(homes) if label != 0]
    assert sum(others) < len(others) / 4


def test_persons_whom_a_model_never_met_are_holes(text_world: World) -> None:
    setting = elsewhere(text_world)
    arm_search = SMALL.searches(setting)["forget"]
    both = SMALL.holes_of(setting.models.unlearned, arm_search, setting)
    never = {item["prompt"].split()[-1] for item in text_world.request.forget}  # type: ignore[attr-defined]
    homes = [item["prompt"].split()[-1] in never for item in arm_search.search.homes.items]
    assert any(homes)
    assert not all(homes)
    assert all(both.searched.met[0][homes])
    assert both.searched.met[0].sum() <= sum(homes) + 1
    assert both.searched.met[-1].sum() >= both.searched.met[0].sum()


def test_homes_are_the_nearest_that_stay(class_world: World) -> None:
    """Nearest in the angle of the original's centred features; none is of a class that is forgotten whole."""
    setting = Setting(Models(class_world.original, class_world.original), class_world.request, class_world.task, 0, CPU)
    near = Neighbours(setting)
    order = near.nearest("forget")
    labels = [near.examples[i][1] for i in order]  # type: ignore[index]
    count = sum(item[1] != 0 for item in [*class_world.request.retain, *class_world.request.test])  # type: ignore[misc]
    assert 0 not in labels
    assert len(order) == len({*order}) == count
    seen = setting.evidence["original"].signals
    centre = near.centre

    def cosine(i: int) -> float:
        rest = len(class_world.request.retain)
        part, place = ("retain", i) if i < rest else ("test", i - rest)
        vector = seen[part].features[place] - centre  # type: ignore[index]
        others = seen["forget"].features - centre
        return float(max((others @ vector) / ((others**2).sum(1) ** 0.5 * (vector**2).sum() ** 0.5)))

    cosines = [cosine(i) for i in order]
    assert cosines == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)


def test_lines_and_note(samples_world: World) -> None:
    setting = elsewhere(samples_world)
    inspection = SMALL.inspect(setting.models.unlearned, setting)
    assert inspection.x == (0, 2, 4)
    assert set(inspection.lines) == {
        f"{how} near {arm}" for how in ("search", "random") for arm in ("forget", "holdout")
    }
    assert all(list(line) == sorted(line) for line in inspection.lines.values()), "holes add up"
    assert inspection.value.value == inspection.lines["search near forget"][-1]
    assert inspection.value.low is not None and inspection.value.n == 40
    assert "Vendi score" in inspection.value.note


def test_without_a_holdout_its_lines_are_left_out(samples_world: World) -> None:
    setting = elsewhere(samples_world)
    setting = replace(setting, request=replace(setting.request, holdout=Absent("none")))
    assert set(SMALL.inspect(setting.models.unlearned, setting).lines) == {"search near forget", "random near forget"}


def test_the_conclusion_says_what_it_is_beside(samples_world: World) -> None:
    finding = inspection_finding(SMALL, elsewhere(samples_world))
    assert finding.report.note.startswith("Near ")
    assert "no retrained model tells how much would be usual" in finding.report.note
    assert "in retrained models 0.25." in SMALL.conclusion(finding.measurements[0].unlearned, 0.25)


# What is refused.


@pytest.mark.parametrize("change", [{"rounds": 0}, {"children": 0}, {"homes": 0}, {"sure": 1.5}, {"radius": 0.0}])
def test_a_budget_of_nothing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"KnowledgeHoles: expected {next(iter(change))} to be"):
        KnowledgeHoles(**change)


@pytest.mark.parametrize("world", ["samples_world", "text_world"])
def test_without_anything_that_the_original_answers_there_is_nothing_to_lose(
    world: str, request: pytest.FixtureRequest
) -> None:
    setting = elsewhere(request.getfixturevalue(world))
    with pytest.raises(NotSupported, match=r"^KnowledgeHoles: expected retain or test .* got none of .* Lower sure"):
        replace(SMALL, sure=1.0).inspect(setting.models.unlearned, setting)


class Bare(Task):
    """A classification that offers nothing beyond the least."""

    inner = Classification()

    def collate(self, items: Sequence[Any]) -> dict[str, Tensor]:
        return self.inner.collate(items)

    def rows(self, model: nn.Module, batch: dict[str, Tensor]) -> Rows:
        return self.inner.rows(model, batch)

    def view(self, model: nn.Module, batch: dict[str, Tensor]) -> View:
        return self.inner.view(model, batch)

    def head(self, model: nn.Module, batch: dict[str, Tensor]) -> nn.Linear:
        return self.inner.head(model, batch)

    def blocks(self, model: nn.Module) -> Parts:  # type: ignore[override]
        return self.inner.blocks(model)  # type: ignore[return-value]

    def check(self, model: nn.Module, request: Request) -> None:
        self.inner.check(model, request)

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        return self.inner.exhibit(item, caption)

    def raw(self, item: Any) -> bytes:
        return self.inner.raw(item)


def test_a_task_without_texts_or_continuous_inputs_is_refused(samples_world: World) -> None:
    setting = replace(elsewhere(samples_world), task=Bare())
    finding = inspection_finding(SMALL, setting)
    assert finding.report.note == ("KnowledgeHoles: expected a task with continuous inputs, got Bare. Leave it out.")
    assert finding.measurements[0].unlearned.value is None
