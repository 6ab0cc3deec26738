"""Whatever can't be used is one clear line and exit code 2, and leaves the disk as it was."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.end_to_end.test_cli import CASE, FAST, RUN, WHO, call, case, one_line, uninterrupted, with_
from tests.worlds import network
from unrecall.disk import weights
from unrecall.record.schema import load

__all__ = ["case"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"/" for p in folder.rglob("*")}


def spoil(name: str) -> None:
    """Checkpoints that an auditor may be handed."""
    path = Path("bad.safetensors")
    if name == "pickle":
        torch.save(network().state_dict(), path)
    elif name == "truncated":
        weights.save(network(), path)
        path.write_bytes(path.read_bytes()[:-7])
    elif name == "architecture":
        weights.save(nn.Linear(16, 4), path)
    elif name == "nan":
        model = network()
        model[6].bias.data[0] = torch.nan
        weights.save(model, path)
    elif name == "folder":
        path.mkdir()


AUDIT = ["audit", *WHO, "--suite", FAST, "--unlearned", "bad.safetensors", "--out", "out"]
BAD: list[tuple[str, list[str], str]] = [
    ("index out of range", with_(RUN, scenario="case.py:outside"), r"expected indices in 0\.\.79, got 80"),
    ("index out of range in a file", with_(RUN, scenario="digits:forget=far.txt"), r"far\.txt:2: .* got 99999"),
    ("index twice in a file", with_(RUN, scenario="digits:forget=two.txt"), r"two\.txt:3: expected each index once"),
    ("duplicated", with_(RUN, scenario="case.py:twice"), "each forget example once, got example 10 equal to 3"),
    ("in forget and retain", with_(RUN, scenario="case.py:both"), "forget and retain to share nothing, got 10"),
    ("in retain and holdout", with_(RUN, scenario="case.py:leaky"), "retain and holdout to share nothing, got 10"),
    ("empty forget", with_(RUN, scenario="case.py:nothing"), "non-empty forget set"),
    ("forget everything", with_(RUN, scenario="case.py:everything"), "non-empty retain set.*delete the model"),
    ("no holdout", with_(RUN, scenario="case.py:no_holdout"), "non-empty holdout set"),
    ("no test", with_(RUN, scenario="case.py:no_test"), "non-empty test set"),
    ("unknown class", with_(RUN, scenario="digits:forget=class:12"), r"expected a class in 0\.\.9, got '12'"),
    ("class without an output", with_(RUN, scenario="case.py:unknown_class"), r"masked classes in 0\.\.3 .* got 9"),
    ("class request without class", with_(RUN, scenario="case.py:no_class"), "expected masked to name"),
    ("labels outside", with_(RUN, scenario="case.py:label"), r"retain\[70\]: expected a label in 0\.\.3 .*got 7"),
    ("ignored label", with_(RUN, scenario="case.py:ignored"), r"forget\[10\]: expected a label in 0\.\.3 .*got -100"),
    ("NaN in data", with_(RUN, scenario="case.py:nan_data"), r"retain\[70\]: expected finite inputs, got NaN"),
    ("bytes as data", with_(RUN, scenario="case.py:bytes_data"), r"retain\[70\]: expected inputs within \[0, 1\]"),
    ("ragged data", with_(RUN, scenario="case.py:ragged"), r"test\[72\]: expected inputs of shape \(1, 4, 4\)"),
    ("no pairs", with_(RUN, scenario="case.py:pairless"), r"test\[0\]: expected \(input, label\)"),
    ("NaN in weights", with_(RUN, scenario="case.py:nan_weights"), "model: expected finite weights"),
    ("NaN in fresh weights", with_(RUN, scenario="case.py:nan_build"), "model: expected finite weights"),
    ("probabilities", with_(RUN, scenario="case.py:probabilities"), "expected logits, got probabilities"),
    ("own probabilities", with_(RUN, scenario="case.py:own_probabilities"), "expected logits, got probabilities"),
    ("model of another shape", with_(RUN, scenario="case.py:shaped"), r"expected to accept inputs \(8, 1, 4, 4\)"),
    ("no model at all", with_(RUN, scenario="case.py:no_model"), "expected an original model, or build and recipe"),
    ("error in the case", with_(RUN, scenario="case.py:boom"), r"case\.py:\d+: expected code .* got ValueError: boom"),
    ("assertion in it", with_(RUN, scenario="case.py:refused"), r"case\.py:\d+: .* got AssertionError: no"),
    ("no scenario", with_(RUN, scenario="case.py:no_scenario"), "expected a Scenario, got int"),
    ("not a scenario", with_(RUN, scenario="case.py:DATA"), "expected a class made from Builder"),
    ("missing path in the case", with_(RUN, scenario="case.py:absent"), "No such file .* 'no-such-file'"),
    ("missing case", with_(RUN, scenario="cases.py:make"), r"cases\.py: expected a Python file, got none there"),
    ("unknown function", with_(RUN, scenario="case.py:mkae"), "expected it to define 'mkae'.*Did you mean 'make'"),
    ("missing data", with_(RUN, scenario="cifar10:data=nowhere"), "data=nowhere: expected the CIFAR-10 folder"),
    ("missing indices", with_(RUN, scenario="digits:forget=gone.txt"), r"gone\.txt: expected a readable file"),
    ("unknown scenario", with_(RUN, scenario="digit"), "unknown scenario 'digit'. Did you mean 'digits'"),
    ("unknown method", with_(RUN, method="scrubb"), "unknown method 'scrubb'. Did you mean 'scrub'"),
    ("unknown parameter", with_(RUN, method="rurk:lamda_a=1"), "unknown parameter 'lamda_a'. Did you mean 'lambda_a'"),
    ("impossible value", with_(RUN, method="rurk:tau=-1"), "expected tau to be greater than or equal to 0, got '-1'"),
    ("impossible rate", with_(RUN, method="rurk:lr=nan"), "RURK: expected fit.lr to be"),
    ("impossible epochs", with_(RUN, method="rurk:epochs=0"), "expected fit.epochs to be greater than or equal to 1"),
    ("unknown attack", with_(RUN, suite="relern"), "unknown attack 'relern'. Did you mean 'relearn'"),
    ("attack of a suite again", with_(RUN, suite="quick loss"), "expected each attack once, got two called 'loss'"),
    ("suite before a comma", with_(RUN, suite="loss,all"), "--suite: expected names separated by spaces, got 'loss,a"),
    ("suite misspelt", with_(RUN, suite="standart"), "unknown attack 'standart'.*Did you mean 'standard'?"),
    ("suite unknown", with_(RUN, suite="fast"), "unknown attack .fast.. Suites: all, quick, standard."),
    ("attack without parameters", with_(RUN, suite="loss:k=1"), r"unknown parameter 'k'\. It takes no parameters"),
    ("unknown attack parameter", with_(RUN, suite="rmia:gama=1"), "unknown parameter 'gama'. Did you mean 'gamma'"),
    ("nothing to tune", [*with_(RUN, method="retrain"), "--tune"], "expected a method with a strength"),
    ("against no attack of the kind", [*RUN, "--against", "loss"], "--against: expected an attack that brings the for"),
    ("a budget for no attack", [*RUN, "--kl", "0.1"], "--kl: expected it with --against, whose budget it is, got 0.1"),
    ("a measure for no attack", [*RUN, "--measure", "loss"], "--measure: expected it with --against, got 'loss' alone"),
    ("no measure", [*RUN, "--against", "relearn", "--measure", "los"], "--measure: expected shown or loss, got 'los'"),
    ("tuned against and not", [*RUN, "--against", "relearn", "--no-tune"], "expected it without --against, which tune"),
    ("no seeds", [*RUN, "--seeds", "0"], "--seeds"),
    ("seeds in words", [*RUN, "--seeds", "two"], "--seeds"),
    ("unknown device", with_(RUN, device="tpu"), "device: expected cpu or cuda, got 'tpu'"),
    ("unknown option", [*RUN, "--speed"], "No such option: --speed"),
    ("missing option", ["run", "--method", "rurk"], "Missing option '--scenario'"),
    ("no method", ["run", *WHO], r"Missing option '--method'.*\. 'unrecall list methods' names them\."),
    ("unknown command", ["forget"], "No such command 'forget'"),
    ("unknown kind", ["list", "method"], "or the name of one, got 'method'. Did you mean 'methods'"),
    ("unknown name", ["list", "zzz"], "got 'zzz'. Known: methods, attacks, metrics, scenarios."),
    ("missing checkpoint", AUDIT, "expected a checkpoint file, got none there"),
    ("folder for a checkpoint", ["folder", *AUDIT], "expected a checkpoint file, got none there"),
    ("other architecture", ["architecture", *AUDIT], "expected the weights of this architecture"),
    ("truncated checkpoint", ["truncated", *AUDIT], "got a damaged or truncated one"),
    ("pickle", ["pickle", *AUDIT], "expected safetensors, got a pickle, which can run code"),
    ("no checkpoint to audit", ["audit", *WHO, "--suite", FAST, "--out", "out"], "Missing option .--unlearned"),
    ("NaN in a checkpoint", ["nan", *AUDIT], "finite weights in float32, got NaN or infinity in 6.bias"),
    ("missing record", ["check", "nowhere.json"], "expected a record or a folder of records, got nothing there"),
    ("folder for a record", ["check", "."], r"at least one record\.json below it, got none\. Name a record"),
    ("no record", ["check", "case.py"], r"an unrecall record \(JSON\), got .*\. Name a record\.json, or a folder"),
    ("missing records", ["report", "nowhere"], "got nothing there"),
    ("no records", ["report", "."], r"expected at least one record\.json below it"),
    ("folder is a file", with_(RUN, out="case.py"), "expected a folder, got a file"),
    ("folder below a file", with_(RUN, out="case.py/out"), "case.py/out"),
    ("folder of somebody else", with_(RUN, out="."), "got files that are no run's"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_one_line_and_exit_2_and_nothing_is_written(
    arguments: list[str], message: str, case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("far.txt").write_text("3\n99999\n")
    Path("two.txt").write_text("3\n4\n3\n")
    if arguments[0] in ("folder", "architecture", "truncated", "pickle", "nan"):
        spoil(arguments[0])
        arguments = arguments[1:]
    before = tree(case)
    assert call(*arguments) == 2
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert tree(case) == before


def test_a_folder_of_another_run_is_left_alone(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN) == 0
    before = tree(case)
    for other in (
        with_(RUN, method="ssd"),
        with_(RUN, scenario="case.py:five"),
        [*RUN, "--tune"],
    ):
        capsys.readouterr()
        assert call(*other) == 2
        assert re.search(r"expected an empty folder or this same run, got another run \(other \w+", one_line(capsys))
    assert tree(case) == before
    assert call(*RUN) == 0
    assert tree(case) == before, "the same command finds everything done"
    Path("case.py").write_text(CASE + "\n# changed\n")
    assert call(*RUN) == 2
    assert "(other files)" in one_line(capsys)


def test_one_bad_cell_does_not_stop_the_others_nor_take_their_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", "neggrad_plus:lr=1e30 ssd") == 2
    told = capsys.readouterr()
    failed, summary = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert failed.startswith("error: neggrad_plus:lr=1e30, seed 0: ")
    assert summary.startswith("error: 1 of 2 runs failed. ")
    assert re.search(r"^ssd, seed 0: [A-Z]", told.out, re.MULTILINE)
    assert told.out.endswith("grid/report.html\n")
    assert "ssd" in Path("grid/report.html").read_text(encoding="utf-8")


def test_where_every_cell_fails_no_folder_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*with_(RUN, scenario="case.py:boom"), "--seeds", "2") == 2
    *each, summary = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [re.search(r"seed \d: case\.py:\d+: .*ValueError: boom", line) is not None for line in each] == [True] * 2
    assert summary.startswith("error: 2 of 2 runs failed. ")
    assert not Path("out").exists()


def test_more_seeds_extend_a_run() -> None:
    assert call(*RUN, "--seeds", "1") == 0
    first = Path("out/seed-0/record.json").read_bytes()
    assert call(*RUN, "--seeds", "2") == 0
    assert Path("out/seed-0/record.json").read_bytes() == first
    assert load(Path("out/seed-1/record.json")).seed == 1


@pytest.mark.parametrize(("owner", "what"), [(Path, "write_text"), (tempfile, "mkstemp"), (Path, "mkdir")])
def test_a_full_disk(
    owner: Any, what: str, case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before = tree(case)
    with monkeypatch.context() as patch:
        patch.setattr(owner, what, full)
        assert call(*RUN) == 2
    assert re.search("^error: .*No space left on device", one_line(capsys))
    assert tree(case) == before
    assert call(*RUN) == 0


def test_a_disk_that_fills_up_on_the_way_loses_nothing(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.dumps(uninterrupted("whole"), sort_keys=True)
    fails = iter([False, False, False, True])
    real = Path.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNRECALL_CACHE", str(case / "another cache"))

        def full(self: Path, target: Path) -> Path:
            if next(fails, True):
                raise OSError(28, "No space left on device")
            return real(self, target)

        patch.setattr(Path, "replace", full)
        capsys.readouterr()
        assert call(*RUN) == 2
        assert "No space left on device. Nothing was changed." in one_line(capsys)
    assert call(*RUN) == 0
    assert json.dumps(load(Path("out/seed-0/record.json")).comparable(), sort_keys=True) == whole


def test_a_bench_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", *WHO, "--methods", " ", "--out", "grid") == 2
    assert one_line(capsys).startswith("error: --methods: expected names separated by spaces")
    assert not Path("grid").exists()
