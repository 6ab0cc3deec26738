"""One run from scenario to record, stopped anywhere and taken up again, ends with the same record."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unrecall.attacks import CKA, RMIA, SVC, Recalibration, Relearn
from unrecall.attacks.base import MembershipAttack, RecoveryAttack
from unrecall.disk import cache
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, Diverged, MissingReference
from unrecall.evidence import model_keys, setting
from unrecall.experiment import run, starting_point
from unrecall.experiment.cell import scenario_of
from unrecall.experiment.run import experiment
from unrecall.harness import audit as auditing
from unrecall.harness.suites import suite
from unrecall.methods.base import Method
from unrecall.methods.finetune import Finetune
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.retrain import Retrain
from unrecall.methods.roka import ROKA
from unrecall.methods.ssd import SSD
from unrecall.record.schema import Record
from unrecall.report.page import page
from unrecall.training import loop
from unrecall.training.session import Session

CASE = """
from tests.worlds import blobs, network
from unrecall import Fit, Request, Scenario
from unrecall.tasks import Classification

def build(seed, session):
    return network(seed=seed)

def make(**changed):
    data, unseen = blobs(80, 4, 1), blobs(96, 4, 2)
    request = Request(data[:10], data[10:], unseen[:24], unseen[32:], validation=unseen[24:32])
    whole = {"name": "tiny", "summary": "blobs", "task": Classification(), "request": request, "build": build,
             "recipe": Fit(lr=0.05, epochs=4, batch_size=16), "references": 2}
    return Scenario(**(whole | changed))
"""
ATTACKS = suite(Recalibration(counts=(16,)), Relearn(steps=(1, 2), learning_rates=(1e-2,)), SVC(), RMIA())
METHOD = NegGradPlus(fit=loop.Fit(lr=0.01, epochs=3, batch_size=16))


@pytest.fixture(autouse=True)
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("case.py").write_text(CASE)
    return tmp_path


def perform(folder: Path | None, method: Method = METHOD, *, tuned: bool = False, seed: int = 0) -> Record:
    session = Session(folder=folder, device="cpu", every=0)
    return experiment(scenario_of("case.py:make"), method, ATTACKS, seed, session, tuned=tuned).record


def test_the_whole_line(case: Path) -> None:
    record = perform(case / "parts")
    assert (record.scenario, record.kind, record.seed) == ("tiny", "samples", 0)
    assert record.method.startswith("neggrad_plus:")
    assert set(record.costs) == {"original", "unlearned", "retrained"}
    assert record.costs["original"].steps == 4 * 5
    assert record.costs["unlearned"].passes > 0
    assert set(record.provenance.weights) == {"original", "unlearned", "null", "retrained 0", "retrained 1"}
    assert [attack.name for attack in record.attacks] == ["recalibration", "relearn", "svc", "rmia"]
    assert all(m.unlearned.value is not None or m.unlearned.note for m in record.measurements), "nothing vanishes"
    assert record.parameters["fit"]["epochs"] == 3


def test_same_seed_same_record_and_another_seed_another(case: Path) -> None:
    first = perform(case / "a")
    assert perform(case / "again").comparable() == first.comparable()
    assert first.scores, "hashed, because they stand in a folder"
    assert perform(None).comparable() == first.model_copy(update={"scores": {}}).comparable()
    assert perform(case / "b", seed=1).comparable() != first.comparable()


def test_times_are_of_one_run_or_absent(case: Path) -> None:
    """Retrained models that an earlier run left in the cache were timed by another clock; so was a kept model."""
    first, second, again = perform(case / "a"), perform(case / "b"), perform(case / "a")
    shares = [record.measurement("cost_time") for record in (first, second, again)]
    passed = [record.measurement("cost_passes") for record in (first, second, again)]
    assert [row and row.unlearned.value is not None for row in shares] == [True, False, False]
    assert all(row and "not both timed in this run" in row.unlearned.note for row in shares[1:])
    assert len({row.unlearned.value for row in passed if row}) == 1, "what is counted is the same whenever it was"
    assert second.costs["retrained"].seconds is None
    assert second.costs["unlearned"].seconds is not None
    assert again.costs["unlearned"].seconds is None
    assert "not timed in this run" in page([second])


def test_one_retrained_model_made_now_is_enough_for_times(case: Path) -> None:
    perform(case / "a")
    kept = sorted((case / "cache").glob("tiny-retrained-*"))
    kept[0].unlink()
    share = perform(case / "b").measurement("cost_time")
    assert share is not None
    assert share.unlearned.value is not None


def test_the_global_seed_and_the_cache_decide_nothing(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = perform(None)
    monkeypatch.setenv("UNRECALL_CACHE", str(case / "another cache"))
    torch.manual_seed(77)
    again = perform(None)
    assert again.comparable() == first.comparable()


def stopping(function: Callable[..., Any], after: int) -> Callable[..., Any]:
    """Lets a function through `after` times, then interrupts as Ctrl-C does."""
    left = after

    def stop(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return function(*arguments, **named)

    return stop


PLACES = [
    (loop, "batch_size", range(0, 130, 26)),  # in the loop: of the original, the references, the method, the null
    (cache, "content_key", (0, 4)),
    (auditing, "content_key", (1, 3)),
    (starting_point.StartingPoint, "unlearned", (0, 1)),
    (model_keys, "observe", (0,)),
    (setting, "observe", (0, 5)),
    (auditing, "finding_of", (0, 2)),
    (auditing, "judge_all", (0,)),
    (Path, "replace", (0, 1, 3, 8, 16)),  # between a file that is written and its name
]


def places() -> Iterator[Any]:
    for owner, name, counts in PLACES:
        for after in counts:
            yield pytest.param(owner, name, after, id=f"{getattr(owner, '__name__', owner)}.{name}-{after}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole")
        patch.setenv("UNRECALL_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        Path("case.py").write_text(CASE)
        return perform(folder / "parts").comparable()


@pytest.mark.parametrize(("owner", "name", "after"), list(places()))
def test_interrupted_anywhere_and_taken_up_again(
    owner: Any, name: str, after: int, case: Path, whole: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stopping(getattr(owner, name), after))
        with pytest.raises(KeyboardInterrupt):
            perform(case / "parts")
    assert not list(case.rglob("*.part"))
    assert perform(case / "parts").comparable() == whole


STEPS = 100
"""More than the longest piece of work that is done at once takes: the disguise that relearning must undo."""


def test_interrupted_again_and_again(case: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real, rounds = loop.batch_size, 0
    while True:
        monkeypatch.setattr(loop, "batch_size", stopping(real, STEPS))
        try:
            record = perform(case / "parts")
            break
        except KeyboardInterrupt:
            rounds += 1
            assert rounds < 60, "every round must get further"
    assert rounds >= 1
    assert record.comparable() == whole


def test_a_finished_part_is_not_done_again(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = perform(case / "parts")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(loop, "batch_size", never)
    for attack in (RecoveryAttack, MembershipAttack):
        monkeypatch.setattr(attack, "scores", never)
    assert perform(case / "parts").comparable() == first.comparable()


def test_tuning_is_recorded_and_resumes(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = perform(case / "parts", tuned=True)
    assert first.tuning is not None
    assert first.tuning.parameter
    assert len(first.tuning.trials) == 1, "the original shows no gap, so that one harmless strength is all"
    monkeypatch.setattr(starting_point, "tune", None)
    assert perform(case / "parts", tuned=True).comparable() == first.comparable()
    assert perform(case / "elsewhere", tuned=True).comparable() == first.comparable(), "kept for all runs of the same"


def test_methods_without_a_loop_or_without_a_null_say_so(case: Path) -> None:
    for method in (SSD(), Retrain(fit=loop.Fit(lr=0.05, epochs=2, batch_size=16))):
        record = perform(None, method)
        assert "null" not in record.provenance.weights
        assert all(m.null.note.startswith("no null") or m.null.value is None for m in record.measurements)


def test_layers_that_are_not_there_are_said_before_references_are_trained(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "retrained_models", lambda *_: pytest.fail("trained first"))
    made, session = scenario_of("case.py:make"), Session(device="cpu", every=0)
    with pytest.raises(BadInput, match="got 'foo'"):
        experiment(made, ROKA(layers=("foo",)), ATTACKS, 0, session)
    with pytest.raises(BadInput, match="got 'foo'"):
        experiment(made, METHOD, suite(CKA(layers=("foo",))), 0, session)


def test_own_models_are_used_as_they_are(case: Path) -> None:
    make = scenario_of("case.py:make")
    session = Session(device="cpu")
    original = make.train_original(0, session).model
    again = make.train_retrained(0, session).model
    given = {"original": original, "retrained": (again,)}
    scenario = replace(make, **given, build=None, recipe=None)
    record = experiment(scenario, Finetune(), suite(RMIA()), 0, session).record
    assert record.provenance.weights["original"] == digest_of(original)
    assert record.provenance.weights["retrained 0"] == digest_of(again)
    assert "original" not in record.costs
    with pytest.raises(MissingReference, match="expected build and recipe to retrain"):
        scenario.train_retrained(1, session)
    with pytest.raises(BadInput, match="expected an original model, or build and recipe"):
        replace(scenario, original=None).train_original(0, session)
    more = replace(make, **given, references=3)
    assert len(run.retrained_models(more, session)) == 3, "the user's own, and as many more as are wanted"


def test_divergence_leaves_what_was_finished(case: Path) -> None:
    wild = NegGradPlus(fit=loop.Fit(lr=1e30, epochs=3, batch_size=16))
    with pytest.raises(Diverged, match=r"negg.*expected finite losses and weights, got NaN or infinity at step"):
        perform(case / "parts", wild)
    assert list((case / "cache").glob("tiny-original-*.safetensors"))
    assert not list((case / "parts").glob("unlearned-*"))
