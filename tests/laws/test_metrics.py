"""What every metric must do, and the law of the judged: a verdict rests on what is declared, and on nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from tests.worlds import CPU, World
from unrecall.attacks import UMA, ReaClass, Relearn
from unrecall.attacks.base import Attack
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import finding_of
from unrecall.harness.finding import report_of
from unrecall.harness.suites import judged_names, suite
from unrecall.metrics import METRICS, Measured, Metric
from unrecall.record.schema import Measurement, Side
from unrecall.tasks.protocols import Paired, Recommending, Textual, offers

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)

# A part of the budget, for speed: the names of the measurements stay those of the standard suite.
REDUCED: Mapping[type[Attack], dict[str, Any]] = {
    Relearn: {"steps": (1,)},
    ReaClass: {"steps": 2},
    UMA: {"steps": 2},
}


@dataclass(frozen=True, repr=False)
class Case:
    """A world and its name; `backdoor` is that of pairs, whose forget set carries a trigger."""

    name: str
    world: World

    def __repr__(self) -> str:
        return f"Case({self.name})"

    def setting(self) -> Setting:
        w = self.world
        kind: Any = "backdoor" if self.name == "backdoor" else w.request.kind
        models = Models(w.original, w.retrained[0], w.retrained[1:], w.original)
        return Setting(models, replace(w.request, kind=kind), w.task, 0, CPU)


@pytest.fixture(params=["samples", "class", "text", "pairs", "backdoor", "tastes"])
def case(request: pytest.FixtureRequest) -> Case:
    world = "pairs" if request.param == "backdoor" else request.param
    return Case(request.param, request.getfixturevalue(f"{world}_world"))


def test_no_two_measurements_share_a_name_or_a_title() -> None:
    rows = [row for metric in METRICS for row in metric.rows]
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len({row.name for row in rows}) == len({row.title for row in rows}) == len(rows)


@each_metric
def test_a_metric_declares_what_it_measures(metric: Metric) -> None:
    assert metric.rows
    for row in metric.rows:
        assert (
            row.name.isidentifier()
            and row.title.strip()
            and row.group in ("forgetting", "utility", "privacy", "inside", "cost")
        )
        assert row.leak in ("above", "below", None)
        assert row.margin > 0


@each_metric
def test_a_metric_gives_the_rows_that_it_declares(metric: Metric, case: Case) -> None:
    setting = case.setting()
    if not metric.suits(setting):
        assert not offers(setting.task, *metric.needs)
        return
    measured = metric.measure(setting)
    rows = {row.name: row for row in measured.measurements}
    assert len(rows) == len(measured.measurements)
    missing = {row.name for row in metric.rows} - rows.keys()
    elsewhere = {"holdout_zero_shot"} if case.name == "backdoor" else {"attack_success"}
    assert missing == (elsewhere if metric.name == "retrieval" else set())
    for row in metric.rows:
        if row.name not in missing:
            assert_declared(rows[row.name], row.leak, row.judged)
            assert (rows[row.name].group, rows[row.name].margin) == (row.group, row.margin)
            assert (rows[row.name].unit, rows[row.name].ideal) == (row.unit, row.ideal)
    for row in rows.values():
        for estimate in (row.unlearned, row.original, row.null, *row.references):
            assert estimate.value is not None or estimate.note, f"{row.name}: nothing vanishes without a reason"


def assert_declared(row: Measurement, leak: Side | None, judged: bool) -> None:
    assert (row.name, row.leak, row.judged) == (row.name, leak, judged)


def test_metrics_of_a_modality_are_left_out_elsewhere(case: Case) -> None:
    names = {metric.name for metric in METRICS if metric.suits(case.setting())}
    texts = {metric.name for metric in METRICS if Textual in metric.needs}
    pairs = {metric.name for metric in METRICS if Paired in metric.needs}
    rankings = {metric.name for metric in METRICS if Recommending in metric.needs}
    assert texts and pairs and rankings
    assert texts <= names if case.name == "text" else not texts & names
    assert pairs <= names if case.name in ("pairs", "backdoor") else not pairs & names
    assert rankings <= names if case.name == "tastes" else not rankings & names
    assert {metric.name for metric in METRICS if not metric.needs} <= names


@each_metric
def test_a_metric_leaves_everything_alone_and_says_the_same_again(metric: Metric, case: Case) -> None:
    setting = case.setting()
    if not metric.suits(setting):
        return
    models = (case.world.original, *case.world.retrained)
    for model in models:
        model.train()
    parameters = [p for model in models for p in model.parameters()]
    before = dict(setting.digests), [p.requires_grad for p in parameters], [p.grad for p in parameters]
    state = torch.get_rng_state()
    first = metric.measure(setting)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for model in models for module in model.modules())
    again = case.setting()
    assert before[:2] == (again.digests, [p.requires_grad for p in parameters])
    assert all(p.grad is grad for p, grad in zip(parameters, before[2], strict=True))
    assert plain(metric.measure(again)) == plain(first)
    for model in models:
        model.eval()


def plain(measured: Measured) -> list[list[str]]:
    """Every digit, with what is NaN equal to itself."""
    return [[part.model_dump_json() for part in parts] for parts in measured]


# The law of the judged.


def judged_at(case: Case) -> dict[str, Side | None]:
    """What is judged by the standard suite and the metrics, by name, with the side on which it leaks."""
    setting = case.setting()
    rows = [row for metric in METRICS if metric.suits(setting) for row in metric.measure(setting).measurements]
    for attack in suite("standard").suiting(setting.task):
        reduced = replace(attack, **REDUCED.get(type(attack), {}))
        assert report_of(reduced).name == report_of(attack).name
        rows += finding_of(reduced, setting).measurements
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    return {row.name: row.leak for row in rows if row.judged}


def test_what_is_judged_is_what_is_declared(
    samples_world: World, class_world: World, text_world: World, pairs_world: World, tastes_world: World
) -> None:
    worlds = {"samples": samples_world, "class": class_world, "text": text_world}
    worlds |= {"pairs": pairs_world, "backdoor": pairs_world, "tastes": tastes_world}
    judged: dict[str, Side | None] = {}
    for name, world in worlds.items():
        here = judged_at(Case(name, world))
        assert len(here) > 4, "a verdict rests on several measurements in every modality"
        assert all(judged.get(key, side) == side for key, side in here.items())
        judged |= here
    assert judged == judged_names()
