"""One model and no retrained one, from the command line: run, check, page, exit codes, and what is tampered with."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.end_to_end.fuzz import called, standing
from tests.end_to_end.test_cli import CASE, METHOD, WHO
from unrecall.disk.files import file_key
from unrecall.errors import BadInput
from unrecall.harness.checking import check
from unrecall.record.doubts import Facts, doubts
from unrecall.record.never_trained import as_verdict
from unrecall.record.pool_scores import Stated
from unrecall.record.schema import NEVER_TRAINED, Doubt, Record, load

FIGURES = ("leak", "strange", "original", "blind", "placebo", "seed", "forget", "holdout", "epsilon", "level")
PER_ATTACK = ("z", "z_original", "p", "auc", "auc_original", "rho")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without retrained models."""
    folder = tmp_path_factory.mktemp("alone") / "work"
    folder.mkdir()
    (folder / "case.py").write_text(CASE)
    with standing(folder):
        outcome = called(["run", *WHO, "--method", METHOD, "--suite", "loss", "--alone", "--out", "out"])
    assert outcome.code == 0, outcome
    return folder / "out" / "seed-0"


def test_it_is_judged_beside_records_that_were_never_trained_on(alone: Path) -> None:
    record = load(alone / "record.json")
    assert record.verdict.basis == "never trained"
    assert record.verdict.rule == "exchange-4"
    assert record.never_trained is not None
    assert record.never_trained.line == record.verdict.line
    assert not [role for role in record.provenance.weights if role.startswith("retrained")]
    assert "few-references" not in [doubt.id for doubt in record.doubts]
    assert check(alone / "record.json").problems == []


@pytest.mark.parametrize(("id_", "accepted"), [("negative-control", True), ("unlike-holdout", False)])
def test_an_older_record_may_doubt_controls_on_which_no_verdict_rests(
    alone: Path, tmp_path: Path, id_: str, accepted: bool
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(alone, folder)
    record = load(folder / "record.json")
    doubt = Doubt(id=id_, severity="warning", message="The negative control failed, so success means nothing: Loss.")
    record.model_copy(update={"doubts": [*record.doubts, doubt]}).save(folder / "record.json")
    assert (check(folder / "record.json").problems == []) == accepted


def test_the_page_says_what_it_was_held_against(alone: Path) -> None:
    page = (alone.parent / "report.html").read_text()
    assert "Beside records that were never trained on" in page
    assert "Can they be obtained by queries?" in page


def test_the_same_command_reads_its_record_and_another_rate_is_another_run(alone: Path) -> None:
    with standing(alone.parent.parent):
        same = ["run", *WHO, "--method", METHOD, "--suite", "loss", "--alone", "--out", "out"]
        before = (alone / "record.json").read_bytes()
        assert called(same).code == 0
        assert (alone / "record.json").read_bytes() == before
        assert called([*same, "--rate", "0.1"]).code == 2


def test_alone_and_retrained_together_are_refused(alone: Path) -> None:
    with standing(alone.parent.parent):
        model = str(alone / "unlearned.safetensors")
        outcome = called(["audit", *WHO, "--unlearned", model, "--retrained", model, "--alone", "--out", "other"])
    assert outcome.code == 2


def test_fail_on_takes_the_new_labels(alone: Path) -> None:
    label = load(alone / "record.json").verdict.label
    with standing(alone.parent.parent):
        same = ["run", *WHO, "--method", METHOD, "--suite", "loss", "--alone", "--out", "out"]
        assert called([*same, "--fail-on", label]).code == 1


def test_a_holdout_that_tuning_has_seen_is_left_out(alone: Path) -> None:
    with standing(alone.parent.parent):
        assert called(["unlearn", *WHO, "--method", METHOD, "--tune", "--out", "tuned"]).code == 0
        given = ["--unlearned", "tuned/unlearned.safetensors", "--alone", "--suite", "loss", "--out", "audited"]
        assert called(["audit", *WHO, *given]).code == 0
        assert load(Path("audited/record.json")).sizes["holdout"] == 12  # of 24, half were tuned on


def _figure(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    name = rng.choice([name for name in FIGURES if data["never_trained"][name] is not None])
    data["never_trained"][name] = data["never_trained"][name] * 2 + 1


def _of_attack(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    test = rng.choice(data["never_trained"]["attacks"])
    name = rng.choice([name for name in PER_ATTACK if test[name] is not None])
    test[name] = test[name] / 2 + 0.01


def _label(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    data["never_trained"]["label"] = rng.choice(["no more than 25 %", "no more than 50 %", "leaks"])
    data["never_trained"]["line"] = "No more than 25 % was found."
    _as_it_says(data)


def _as_it_says(data: dict[str, Any]) -> None:
    """The verdict and the doubts that the label and the line have that stand in the record."""
    record = Record.model_validate(data)
    assert record.never_trained is not None
    record = record.model_copy(update={"verdict": as_verdict(record.never_trained)})
    data |= record.model_copy(update={"doubts": doubts(Facts.of(record))}).model_dump(mode="json")


def _scores(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    """The scores of one attack, shifted, with the right digest."""
    path = next(folder.glob(f"**/{NEVER_TRAINED}.safetensors"))
    arrays = load_file(path)
    row = rng.randrange(len(arrays["unlearned"]))
    arrays["unlearned"][row] += 3 * arrays["forget"]
    save_file(arrays, path)
    data["scores"][NEVER_TRAINED] = file_key(path)


def _byte(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    path = next(folder.glob(f"**/{NEVER_TRAINED}.safetensors"))
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def _no_scores(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    del data["scores"][NEVER_TRAINED]


def _no_attack(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    del data["never_trained"]["attacks"][rng.randrange(len(data["never_trained"]["attacks"]))]


def _arms(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    """Two examples of forget and holdout have changed places."""
    path = next(folder.glob(f"**/{NEVER_TRAINED}.safetensors"))
    arrays = load_file(path)
    arms = [np.flatnonzero(arrays["forget"] == arm) for arm in (0, 1)]
    for arm in arms:
        place = rng.choice(arm.tolist())
        arrays["forget"][place] = 1 - arrays["forget"][place]
    save_file(arrays, path)
    data["scores"][NEVER_TRAINED] = file_key(path)


def _forged(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    """A verdict that rests on nothing, judged again."""
    data["never_trained"] |= {"attacks": [], "label": "no more than 25 %", "grade": "A", "line": "No more than 25 %."}
    _as_it_says(data)


def _control(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    data["never_trained"]["control"] = "planted"
    data["never_trained"]["grade"] = "A"


def _steps(data: dict[str, Any], rng: random.Random, folder: Path) -> None:
    """Steps that fine-tuning doesn't take, in the record and in its scores, with the right digest."""
    path = next(folder.glob(f"**/{NEVER_TRAINED}.safetensors"))
    arrays = load_file(path)
    stated = Stated.from_array(arrays["stated"], unchanged=False)
    name, steps = rng.choice(["symmetric", "benign_20"]), [rng.choice([4, 6, 999])]
    arrays["stated"] = replace(stated, steps={name: steps}).array()
    save_file(arrays, path)
    data["scores"][NEVER_TRAINED] = file_key(path)
    for attack in data["never_trained"]["attacks"]:
        attack["steps"] = steps if attack["name"] == name else []


WAYS = (_steps, _forged, _control, _figure, _of_attack, _label, _scores, _byte, _no_scores, _no_attack, _arms)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_tampered_with_is_refused(alone: Path, tmp_path: Path, way: Any, seed: int) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(alone, folder)
    data = json.loads((folder / "record.json").read_text())
    way(data, random.Random(seed), folder)
    (folder / "record.json").write_text(json.dumps(data))
    try:
        problems = check(folder / "record.json").problems
    except BadInput as error:
        problems = [str(error)]
    assert problems
