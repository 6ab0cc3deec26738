"""Requests one after another: each starts from the model before, and a kill in between changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.scenarios.test_movielens import folder
from unrecall.data.examples import Selection, iterate
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput
from unrecall.experiment.sequence import sequence
from unrecall.harness.suites import suite
from unrecall.methods.base import Fit, GradientMethod, Job, Phase, phase_over
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.movielens import MovieLens
from unrecall.training.loop import StepState, plain_step
from unrecall.training.session import Session

STEPS: list[int] = []
"""At which steps from now on a process is killed."""


def step(current: StepState) -> Tensor:
    """A step that a kill may come before."""
    if STEPS:
        STEPS[0] -= 1
        if STEPS[0] < 0:
            STEPS.clear()
            raise KeyboardInterrupt
    return plain_step(current)


@dataclass(frozen=True)
class Plain(GradientMethod):
    """Fine-tunes on retain."""

    title = "Plain"

    fit: Fit = Fit(optimizer="adam", lr=0.01, epochs=3, batch_size=32)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        return [replace(phase_over("retain", job, self.fit), step=step)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))


def scenarios(path: Path, model: str = "mf") -> list[Scenario]:
    path.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"core": 2, "fraction": 0.1, "width": 8, "epochs": 2, "references": 1, "checkpoints": 3}
    data = str(folder(path))
    return [MovieLens(data, model=model, **settings, checkpoint=i).make() for i in (1, 2, 3)]  # type: ignore[arg-type]


def models(path: Path, session: Session, model: str = "mf") -> list[str]:
    outcomes = sequence(scenarios(path / "data", model), Plain(), suite("loss"), session=session)
    return [digest_of(outcome.model) for outcome in outcomes]


@pytest.mark.parametrize("model", ["mf", "gru"])
def test_each_request_starts_from_the_model_before(tmp_path: Path, model: str) -> None:
    session = Session(device="cpu")
    steps = scenarios(tmp_path / "data", model)
    outcomes = list(sequence(steps, Plain(), suite("loss"), session=session))
    for before, after in pairwise(outcomes):
        weights = [outcome.record.provenance.weights for outcome in (before, after)]
        assert weights[1]["original"] == weights[0]["unlearned"]
    assert outcomes[0].record.provenance.weights["original"] == digest_of(steps[0].train_original(0, session).model)
    references = {outcome.record.provenance.weights["retrained 0"] for outcome in outcomes}
    assert len(references) == 3, "each step has a reference of its own"


def test_no_reference_saw_what_was_asked_up_to_then(tmp_path: Path) -> None:
    steps = scenarios(tmp_path / "data")
    asked: set[tuple[int, int]] = set()
    for scenario in steps:
        asked |= {(e["user"], e["item"]) for e in iterate(scenario.request.forget)}
        assert not asked & {(e["user"], e["item"]) for e in iterate(scenario.request.retain)}
    assert len(asked) == sum(len(scenario.request.forget) for scenario in steps)


@pytest.mark.parametrize("steps", [0, 7, 16])
def test_a_killed_sequence_goes_on_to_the_same_models(tmp_path: Path, steps: int) -> None:
    """Killed before the first request's first step, in its second epoch, or in the second request."""
    expected = models(tmp_path, Session(tmp_path / "whole", "cpu", every=0.0))
    STEPS[:] = [steps]
    with pytest.raises(KeyboardInterrupt):
        models(tmp_path, Session(tmp_path / "killed", "cpu", every=0.0))
    assert models(tmp_path, Session(tmp_path / "killed", "cpu", every=0.0)) == expected


@pytest.mark.parametrize("model", ["mf", "gru"])
def test_requests_out_of_order_would_teach_what_was_forgotten(tmp_path: Path, model: str) -> None:
    first, second, _ = scenarios(tmp_path / "data", model)
    with pytest.raises(BadInput, match="expected retain of request 2 to hold nothing that was forgotten before, got"):
        list(sequence([second, first], Plain(), suite("loss"), session=Session(device="cpu")))


def test_what_earlier_requests_held_is_new_to_no_later_one(tmp_path: Path) -> None:
    """The holdout or the test set of the second is the forget of the first, or of its retain; or it asks again."""
    first, second, _ = scenarios(tmp_path / "data")
    asked, stays = first.request.forget, second.request.retain
    few = {"retain": Selection(stays, range(5, len(stays))), "holdout": Selection(stays, range(5))}
    wrong: list[dict[str, Any]] = [{"holdout": asked}, {"test": asked}, {"forget": asked}, few]
    for changes in wrong:
        own = replace(second, request=replace(second.request, **changes))
        with pytest.raises(BadInput, match=f"expected {[*changes][-1]} of request 2 to hold nothing that was"):
            list(sequence([first, own], Plain(), suite("loss"), session=Session(device="cpu")))


def test_global_randomness_changes_nothing(tmp_path: Path) -> None:
    first = models(tmp_path, Session(device="cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert models(tmp_path, Session(device="cpu")) == first
