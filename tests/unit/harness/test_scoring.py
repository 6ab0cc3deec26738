"""The harness around recovery attacks: controls that can fail, the worst over variants, honest caches."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import unrecall as ur
from tests.worlds import CPU, World
from unrecall.attacks import (
    Attacked,
    Loss,
    MembershipAttack,
    Prototypical,
    Recalibration,
    RecoveryAttack,
    Relearn,
    ScoredAttack,
)
from unrecall.attacks.base import Success
from unrecall.data.examples import Examples
from unrecall.data.request import Split
from unrecall.errors import BadInput
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.pool import Pool
from unrecall.evidence.scores import Point, Scores
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import accuracy
from unrecall.record.schema import ThreatModel
from unrecall.record.verdict import judge
from unrecall.scenarios.base import Scenario
from unrecall.tasks import Classification
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.session import Session


@dataclass(frozen=True)
class Idle(RecoveryAttack):
    """Hands the model back."""

    title: ClassVar[str] = "Idle"
    threat: ClassVar[ThreatModel] = ThreatModel(access="none", data="none", budget="none")
    axis: ClassVar[str] = "nothing"

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        yield Attacked(1.0, model, pool.tested)


@dataclass(frozen=True)
class Wilting(Idle):
    """Brings the original, then a model that is right on forget and of no use."""

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        original = setting.models.original
        yield Attacked(1.0, original, pool.tested, "early", useful=False)
        yield Attacked(2.0, model, pool.tested, "late")
        yield Attacked(3.0, original, pool.tested, "late", useful=False)


def setting_of(world: World, unlearned: nn.Module | None = None) -> Setting:
    models = Models(world.original, unlearned or world.original, world.retrained)
    return Setting(models, world.request, world.task, 0, CPU)


def test_an_attack_that_does_nothing_fails_its_positive_control(samples_world: World) -> None:
    w = samples_world
    report = score_finding(Idle(), setting_of(w)).report
    assert report.positive_holds is False
    assert report.negative_holds is True, "it shows what each model shows by itself"


@pytest.mark.parametrize("attack", [Recalibration(counts=(64,)), Relearn(steps=(4, 16), learning_rates=(1e-3, 1e-2))])
def test_real_attacks_pass_their_positive_control(samples_world: World, attack: RecoveryAttack) -> None:
    w = samples_world
    report = score_finding(attack, setting_of(w)).report
    assert report.positive_holds is True, report.positive_control


def test_prototypes_pass_their_positive_control(class_world: World) -> None:
    w = class_world
    report = score_finding(Prototypical(ks=(5,), alpha=1.0), setting_of(w)).report
    assert report.positive_holds is True, report.positive_control


@dataclass(frozen=True)
class Undefined(Idle):
    """Shows no number of the first example."""

    judged: ClassVar[str] = "mean"

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        return Success(np.r_[np.nan, np.ones(len(examples) - 1)])


@dataclass(frozen=True)
class Odds(MembershipAttack):
    """The confidence in each answer, and what is given for the first example."""

    title: ClassVar[str] = "Odds"
    threat: ClassVar[ThreatModel] = Loss.threat
    judged: ClassVar[str] = "auc"
    first: float = 0.5

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        return np.r_[self.first, evidence.signals[split].confidence[1:]]


@pytest.mark.parametrize("attack", [Undefined(), Odds(first=np.nan), Odds(first=np.inf)])
def test_an_attack_without_a_number_for_each_example_is_a_row_with_the_reason(
    samples_world: World, attack: ScoredAttack
) -> None:
    finding = score_finding(attack, setting_of(samples_world))
    (row, *_), verdict = judge(finding.measurements)
    assert (row.unlearned.value, row.verdict, verdict.label) == (None, "not judged", "inconclusive")
    assert f"{type(attack).__name__}: expected a finite score of every example, got none for " in row.note
    assert not finding.report.positive_holds and not finding.report.negative_holds


@dataclass(frozen=True)
class Few(Odds):
    """Gives something else than an array with a number for each example."""

    form: str = "three"

    def score(self, evidence: Evidence, split: Split) -> Any:
        whole = evidence.signals[split].confidence
        forms = {"column": whole[:, None], "none": None, "words": list(map(str, whole)), "ragged": [[1], [1, 2]]}
        forms |= {"list": whole.tolist(), "tensor": torch.tensor(whole, requires_grad=True)}
        return forms.get(self.form, np.ones(3))


@dataclass(frozen=True)
class Spoiling(Idle):
    """Changes the model that it was given, as code for research often does."""

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        for p in model.parameters():
            p.data.mul_(0.5)
        yield Attacked(1.0, model, pool.tested)


def test_an_attack_that_changes_a_model_ends_the_audit(samples_world: World) -> None:
    """All that came after would be measured on another model."""
    w = samples_world
    models = {"original": copy.deepcopy(w.original), "unlearned": copy.deepcopy(w.retrained[0])}
    with pytest.raises(BadInput, match="Spoiling: expected the models to stay as they were, got original changed"):
        ur.audit(**models, request=w.request, task=w.task, attacks=[Spoiling()], session=CPU)


@dataclass(frozen=True)
class Half(Idle):
    """Shows half of the examples."""

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        return Success(np.ones(len(examples) // 2))


@pytest.mark.parametrize(
    ("attack", "got"),
    [
        (Few(), r"shape \(3,\)"),
        (Few(form="column"), r"shape \(\d+, 1\)"),
        (Few(form="none"), "NoneType"),
        (Few(form="words"), "list"),
        (Few(form="ragged"), "list"),
        (Half(), r"shape \(\d+,\)"),
    ],
)
def test_scores_that_are_not_one_for_each_example_are_a_row_with_the_reason(
    samples_world: World, attack: ScoredAttack, got: str
) -> None:
    (row, *_) = score_finding(attack, setting_of(samples_world)).measurements
    n = len(samples_world.request.forget)
    said = (
        rf"{type(attack).__name__}: expected {n} scores, one number for each \w+ example, got {got}\. Return an array"
    )
    assert row.unlearned.value is None
    assert re.search(said, row.note), row.note


def test_a_list_or_a_tensor_of_scores_is_as_good_as_an_array(samples_world: World) -> None:
    setting = setting_of(samples_world)
    areas = [score_finding(Few(form=form), setting).measurements[0].original.value for form in ("list", "tensor")]
    assert areas[0] == areas[1] is not None


@dataclass(frozen=True)
class Short(Idle):
    """Scores one example of each set, whatever there is."""

    def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:  # type: ignore[misc]  # as one may
        return Scores.of([Point(0.0, "", tuple(np.ones(1) for _ in pool.tested), (0.0,) * len(pool.tested))])


def test_points_of_ones_own_have_a_score_for_each_example(samples_world: World) -> None:
    (row, *_) = score_finding(Short(), setting_of(samples_world)).measurements
    assert re.search(r"Short: expected scores of \d+ and \d+ tested examples at each point, got 1 and 1\.", row.note)


def test_a_model_of_no_use_is_not_taken_for_knowledge(class_world: World) -> None:
    w = class_world
    finding = score_finding(Wilting(), setting_of(w, w.retrained[0]))
    lines = {line.role: line.y for line in finding.report.curves[0].series}
    assert lines["original"] == [1, 1, 1, 1]
    assert lines["unlearned"] == [0, 0, 0, 0], "the model as given, then what the same variant had before"


def test_nan_is_no_answer() -> None:
    """The largest of logits that are NaN is said to be the first, and these examples are of the first class."""
    task, model = Classification(), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    sound, broken = (torch.tensor([1.0, 0.0]), 0), (torch.tensor([1.0, float("nan")]), 0)
    assert Idle().success(model, task, [sound, broken]).shown.tolist() == [1, 0]
    assert accuracy(model, task, [sound, broken]).tolist() == [1, 0]
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    success = Idle().success(model, task, [sound, sound])
    assert success.shown.tolist() == [0, 0]
    assert np.isnan(success.loss)


def test_a_disguise_hides_and_leaves_the_original_alone(samples_world: World) -> None:
    w = samples_world
    before = {key: value.clone() for key, value in w.original.state_dict().items()}
    hidden = Recalibration().disguise(w.original, Job(w.request, w.task, session=CPU))
    assert hidden is not None
    assert accuracy(hidden, w.task, w.request.forget).mean() < 0.3
    for key, value in w.original.state_dict().items():
        assert torch.equal(value, before[key])


def test_what_is_asked_is_part_of_the_fingerprint(class_world: World) -> None:
    request = class_world.request
    assert request.fingerprint != replace(request, masked=(0, 1)).fingerprint
    assert request.fingerprint != replace(request, kind="samples", masked=()).fingerprint


def test_a_model_with_other_code_is_trained_anew(
    samples_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path))

    def case(activation: nn.Module) -> Scenario:
        def build(_: int, __: Session) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), activation, nn.Linear(8, 4))

        recipe = Fit(epochs=1, batch_size=32)
        return Scenario("mine", "", samples_world.task, samples_world.request, build=build, recipe=recipe)

    for activation in (nn.ReLU(), nn.Sigmoid(), nn.ReLU()):
        case(activation).train_original(0, CPU)
    assert len(list(tmp_path.glob("mine-original-*.safetensors"))) == 2
