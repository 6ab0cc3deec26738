"""The scores beside a record: what stands in the files, and that they are the same however the run went."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.worlds import CPU, World
from unrecall.attacks import Loss, Relearn
from unrecall.evidence.setting import Models, Setting
from unrecall.harness import audit as auditing
from unrecall.harness.audit import audit
from unrecall.harness.evaluation import evaluate
from unrecall.harness.finding import Finding, report_of
from unrecall.harness.score_files import SCORES, write_scores
from unrecall.harness.suites import suite
from unrecall.models.observe import observe
from unrecall.record.schema import Record
from unrecall.training.session import Session

ATTACKS = (Relearn(steps=(1, 2), learning_rates=(1e-2,)), Relearn(data="benign", steps=(1,)), Loss())


def recorded(world: World, folder: Path | None) -> Record:
    return audit(
        original=world.original,
        unlearned=world.retrained[0],
        retrained=world.retrained[1:],
        request=world.request,
        task=world.task,
        attacks=suite(*ATTACKS),
        session=Session(folder=folder, device="cpu"),
    )


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / SCORES).iterdir())}


def test_the_record_holds_the_hash_of_each_file(samples_world: World, tmp_path: Path) -> None:
    """A file for each attack that a verdict rests on; the variant of relearning isn't one."""
    record = recorded(samples_world, tmp_path / "run")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files(tmp_path / "run").items()}
    assert digests == {f"{name}.safetensors": digest for name, digest in record.scores.items()}
    assert record.scores.keys() == {"relearn", "loss"}
    judged = {row.name.rsplit("_", 1)[0] for row in record.measurements if row.judged}
    assert judged >= record.scores.keys()


def test_a_file_holds_every_model_s_scores_of_both_arms(samples_world: World, tmp_path: Path) -> None:
    w = samples_world
    recorded(w, tmp_path / "run")
    roles = ("original", "unlearned", "retrained 0", "retrained 1")
    arrays = load_file(tmp_path / "run" / SCORES / "loss.safetensors")
    names = {f"{role}/{part}" for role in roles for part in ("forget", "holdout", "budgets")}
    assert arrays.keys() == names | {"forget/examples", "holdout/examples"}
    for role, model in zip(roles, (w.original, *w.retrained), strict=True):
        for arm in ("forget", "holdout"):
            expected = -observe(model, w.task, w.request[arm]).loss  # type: ignore[index]
            assert arrays[f"{role}/{arm}"].dtype == np.float32
            np.testing.assert_allclose(arrays[f"{role}/{arm}"], expected[None], rtol=1e-6)
            assert arrays[f"{arm}/examples"].tolist() == list(range(len(expected)))


def test_scores_say_which_examples_and_budgets_they_are_of(samples_world: World, tmp_path: Path) -> None:
    w = samples_world
    recorded(w, tmp_path / "run")
    arrays = load_file(tmp_path / "run" / SCORES / "relearn.safetensors")
    assert arrays["unlearned/budgets"].tolist() == [0, 1, 2]
    examples = arrays["forget/examples"]
    assert len(examples) == len(set(examples.tolist())) < len(w.request.forget)
    before = observe(w.retrained[0], w.task, [w.request.forget[int(i)] for i in examples]).correct
    assert arrays["unlearned/forget"].shape == (3, len(examples))
    assert arrays["unlearned/forget"][0].tolist() == before.tolist()


def test_without_a_folder_nothing_is_kept(samples_world: World) -> None:
    assert recorded(samples_world, None).scores == {}


def test_what_is_not_judged_is_not_kept(tmp_path: Path) -> None:
    frame = report_of(Loss())
    assert write_scores([Finding(report=frame, measurements=[])], tmp_path) == {}
    assert not (tmp_path / SCORES).exists()
    assert write_scores(
        [Finding(report=frame, measurements=[], scores={"a": np.zeros(2, np.float32)})], tmp_path
    ).keys() == {"loss"}


def test_that_another_audit_s_scores_are_replaced_is_said(tmp_path: Path) -> None:
    """The same ones again are not others."""

    def write(value: float) -> None:
        write_scores([Finding(report=report_of(Loss()), measurements=[], scores={"a": np.full(2, value)})], tmp_path)

    write(1.0)
    write(1.0)
    with pytest.warns(UserWarning, match=r"scores: replaced the scores of another audit \(loss\), whose record no"):
        write(2.0)


def test_arrays_are_written_as_they_read_whatever_their_strides(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    views = {"rows": array, "columns": array[:, [2, 0]], "transposed": array.T}
    write_scores([Finding(report=report_of(Loss()), measurements=[], scores=views)], tmp_path)
    back = load_file(tmp_path / SCORES / "loss.safetensors")
    assert all(back[name].tolist() == view.tolist() for name, view in views.items())


def test_a_run_that_was_interrupted_ends_in_the_same_files(
    samples_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recorded(samples_world, tmp_path / "whole")
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "another cache"))
    done: list[str] = []
    finding_of: Any = auditing.finding_of

    def interrupted(attack: Any, setting: Setting) -> Finding:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(report_of(attack).name)
        return finding_of(attack, setting)  # type: ignore[no-any-return]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(auditing, "finding_of", interrupted)
        recorded(samples_world, tmp_path / "broken off")
    assert done == ["relearn", "relearn_benign"]
    again = recorded(samples_world, tmp_path / "broken off")
    assert files(tmp_path / "broken off") == files(tmp_path / "whole")
    assert again.scores == whole.scores
    assert again.comparable() == whole.comparable()
    assert recorded(samples_world, tmp_path / "broken off").scores == whole.scores


def test_scores_read_from_the_cache_are_those_that_were_computed(samples_world: World, tmp_path: Path) -> None:
    w = samples_world
    models = Models(w.original, w.retrained[0], w.retrained[1:])
    session = Session(folder=tmp_path, device="cpu")
    first, second, third = (
        evaluate(ATTACKS[0], Setting(models, w.request, w.task, 0, session)).score_arrays()
        for session in (session, session, CPU)
    )
    assert first.keys() == second.keys() == third.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
        np.testing.assert_array_equal(array, third[name])
