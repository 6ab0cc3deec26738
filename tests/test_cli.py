"""The command line: verdict, page and exit code; one clear line for whatever can't be used, with nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import network
from unrecall import cli, weights
from unrecall.records import load
from unrecall.scenarios.base import cache_folder

CASE = """
import os
import torch
from torch import nn
from tests.conftest import blobs, network
from unrecall import Fit, Request, Scenario
from unrecall.tasks import Classification
from unrecall.types import Part

DATA, UNSEEN = blobs(80, 4, 1), blobs(96, 4, 2)
RECIPE = Fit(lr=0.05, epochs=4, batch_size=16)

def build(seed, session):
    return network(seed=seed)

def case(forget=DATA[:10], retain=DATA[10:], holdout=UNSEEN[:24], test=UNSEEN[24:], build=build, **changed):
    kind = {k: changed.pop(k) for k in ("kind", "masked") if k in changed}
    request = Request(forget, retain, holdout, test, **kind)
    given = {"build": build, "recipe": RECIPE, "references": 2} | changed
    return Scenario(name="tiny", summary="blobs", task=Classification(), request=request, **given)

def make(): return case()
def five(): return case(references=5)
def outside(): return case(forget=Part(DATA, [0, 80]))
def twice(): return case(forget=[*DATA[:10], DATA[3]])
def both(): return case(retain=DATA)
def leaky(): return case(holdout=DATA[20:30])
def nothing(): return case(forget=[])
def everything(): return case(forget=DATA, retain=[])
def no_holdout(): return case(holdout=[])
def no_test(): return case(test=[])
def unknown_class(): return case(kind="class", masked=(9,))
def no_class(): return case(kind="class")
def label(): return case(retain=[*DATA[10:], (torch.zeros(1, 4, 4), 7)])
def ignored(): return case(forget=[*DATA[:10], (torch.zeros(1, 4, 4), -100)])
def nan_data(): return case(retain=[*DATA[10:], (torch.full((1, 4, 4), torch.nan), 0)])
def bytes_data(): return case(retain=[*DATA[10:], (torch.full((1, 4, 4), 255.0), 0)])
def ragged(): return case(test=[*UNSEEN[24:], (torch.zeros(1, 5, 5), 0)])
def pairless(): return case(test=[torch.zeros(1, 4, 4)])
def probabilities(): return case(build=lambda s, _: nn.Sequential(*network(seed=s), nn.Softmax(1)))
def own_probabilities(): return case(original=nn.Sequential(network(), nn.Softmax(1)))
def shaped(): return case(build=lambda s, _: nn.Linear(3, 4))
def nan_weights():
    model = network()
    model[6].weight.data[0, 0] = torch.nan
    return case(original=model)
def no_model(): return case(build=None)
def nan_build(): return case(build=lambda s, _: nan_weights().original)
def absent(): return case(forget=[int(l) for l in open("no-such-file")])
def no_scenario(): return 3
"""
FAST = "recalibration:counts=16 rmia svc"
METHOD = "neggrad_plus:epochs=3,batch_size=16"
WHO = ["--scenario", "case.py:make", "--device", "cpu"]
RUN = ["run", *WHO, "--method", METHOD, "--audit", FAST, "--out", "out"]


@pytest.fixture(autouse=True)
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a case of one's own in it, and a cache beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    Path("case.py").write_text(CASE)
    return folder


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    return int(done.value.code or 0)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"/" for p in folder.rglob("*")}


def with_(arguments: list[str], **changed: str) -> list[str]:
    """The command with the values of some options changed."""
    words = list(arguments)
    for option, value in changed.items():
        words[words.index(f"--{option}") + 1] = value
    return words


def test_run_from_case_to_verdict_page_and_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN, "--seeds", "2") == 0
    out = capsys.readouterr().out
    assert re.search(r"^neggrad_plus:.*, seed 0: [A-Z]", out, re.MULTILINE)
    assert "seed 1: " in out
    assert out.endswith("out/report.html\n")
    records = [load(Path(f"out/seed-{seed}/record.json")) for seed in (0, 1)]
    assert [record.seed for record in records] == [0, 1]
    assert "tiny" in Path("out/report.html").read_text(encoding="utf-8")
    assert call("check", "out/seed-0/record.json") == 0
    assert call("report", "out", "-o", "pages/both.html") == 0
    assert Path("pages/both.html").exists()


def test_fail_on_decides_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN) == 0
    label = load(Path("out/seed-0/record.json")).verdict.label
    others = {"leaks", "over-forgets", "inconclusive", "like retrained"} - {label}
    assert call(*RUN, "--fail-on", label) == 1
    assert call(*RUN, "--fail-on", ",".join(sorted(others))) == 0
    assert call(*RUN, "--fail-on", "leak") == 2
    assert "unknown verdict 'leak'. Did you mean 'leaks'?" in capsys.readouterr().err


def test_unlearn_then_audit_somebody_elses_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("unlearn", *WHO, "--method", METHOD, "--out", "gone") == 0
    checkpoint = Path("gone/unlearned.safetensors")
    assert weights.digest_of_file(checkpoint) in capsys.readouterr().out
    audit = ["audit", *WHO, "--attacks", FAST] if "--attacks" in HELP("audit") else ["audit", *WHO, "--audit", FAST]
    assert call(*audit, "--model", str(checkpoint), "--out", "theirs") == 0
    record = load(Path("theirs/record.json"))
    assert record.provenance.weights["unlearned"] == weights.digest_of_file(checkpoint)
    reference = list(cache_folder().glob("tiny-retrained-*.safetensors"))
    given = [word for path in reference for word in ("--reference", str(path))]
    original = next(cache_folder().glob("tiny-original-*.safetensors"))
    assert call(*audit, "--model", str(checkpoint), *given, "--original", str(original), "--out", "again") == 0
    again = load(Path("again/record.json"))
    assert sorted(again.provenance.weights.values()) == sorted(record.provenance.weights.values())


def HELP(command: str) -> str:  # noqa: N802
    done = subprocess.run(
        [sys.executable, "-m", "unrecall", command, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


def test_bench_makes_a_page_of_many_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", *WHO, "--attacks", "rmia", "--out", "grid", "--methods"]
    assert call(*words, f"{METHOD} ssd") == 0
    before = tree(Path("grid"))
    assert sum(name.endswith("record.json") for name in before) == 2
    assert call(*words, f"{METHOD} ssd finetune:epochs=1") == 0
    after = tree(Path("grid"))
    assert all(after[name] == content for name, content in before.items() if name != "report.html")
    assert call(*words, "ssd ssdd") == 2
    assert "unknown method 'ssdd'. Did you mean 'ssd'?" in capsys.readouterr().err


def test_one_bad_cell_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", *WHO, "--attacks", "rmia", "--out", "grid", "--methods", "neggrad_plus:lr=1e30 ssd") == 2
    assert one_line(capsys).startswith("error: 1 of 2 cells failed. First: neggrad_plus:lr=1e30, seed 0: ")
    assert Path("grid/ssd/seed-0/record.json").exists()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is the last line and the only one; what was done before it may have been told."""
    *told, last = capsys.readouterr().err.splitlines()
    assert all(re.search(r": done in|^(un|null|attack|  )", line) for line in told), told
    return last


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


AUDIT = ["audit", *WHO, "--audit", FAST, "--model", "bad.safetensors", "--out", "out"]
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
    ("no scenario", with_(RUN, scenario="case.py:no_scenario"), "expected a Scenario, got int"),
    ("not a scenario", with_(RUN, scenario="case.py:DATA"), "expected a class made from Builder"),
    ("missing path in the case", with_(RUN, scenario="case.py:absent"), "no-such-file: No such file"),
    ("missing case", with_(RUN, scenario="cases.py:make"), r"cases\.py: expected a Python file, got none there"),
    ("unknown function", with_(RUN, scenario="case.py:mkae"), "expected it to define 'mkae'.*Did you mean 'make'"),
    ("missing data", with_(RUN, scenario="cifar10:data=nowhere"), "data=nowhere: expected the CIFAR-10 folder"),
    ("missing indices", with_(RUN, scenario="digits:forget=gone.txt"), r"gone\.txt: expected a readable file"),
    ("unknown scenario", with_(RUN, scenario="digit"), "unknown scenario 'digit'. Did you mean 'digits'"),
    ("unknown method", with_(RUN, method="scrubb"), "unknown method 'scrubb'. Did you mean 'scrub'"),
    ("unknown parameter", with_(RUN, method="rurk:lamda_a=1"), "unknown parameter 'lamda_a'. Did you mean 'lambda_a'"),
    ("impossible value", with_(RUN, method="rurk:tau=-1"), "expected tau to be greater than or equal to 0, got '-1'"),
    ("impossible rate", with_(RUN, method="rurk:lr=nan"), "Fit: expected lr to be"),
    ("impossible epochs", with_(RUN, method="rurk:epochs=0"), "expected epochs to be greater than or equal to 1"),
    ("unknown attack", with_(RUN, audit="relern"), "unknown attack 'relern'. Did you mean 'relearn'"),
    ("unknown attack parameter", with_(RUN, audit="rmia:gama=1"), "unknown parameter 'gama'. Did you mean 'gamma'"),
    ("nothing to tune", [*with_(RUN, method="retrain"), "--tune"], "expected a method with a strength"),
    ("no seeds", [*RUN, "--seeds", "0"], "--seeds"),
    ("seeds in words", [*RUN, "--seeds", "two"], "--seeds"),
    ("unknown device", with_(RUN, device="tpu"), "device: expected cpu or cuda, got 'tpu'"),
    ("unknown option", [*RUN, "--speed"], "No such option: --speed"),
    ("missing option", ["run", "--method", "rurk"], "Missing option '--scenario'"),
    ("unknown command", ["forget"], "No such command 'forget'"),
    ("unknown kind", ["list", "method"], "unknown kind 'method'. Did you mean 'methods'"),
    ("missing checkpoint", AUDIT, "expected a checkpoint file, got none there"),
    ("folder for a checkpoint", ["folder", *AUDIT], "expected a checkpoint file, got none there"),
    ("other architecture", ["architecture", *AUDIT], "expected the weights of this architecture"),
    ("truncated checkpoint", ["truncated", *AUDIT], "got a damaged or truncated one"),
    ("pickle", ["pickle", *AUDIT], "expected safetensors, got a pickle, which can run code"),
    ("NaN in a checkpoint", ["nan", *AUDIT], "expected finite weights, got NaN or infinity in 6.bias"),
    ("missing record", ["check", "nowhere.json"], "expected a readable file, got: No such file"),
    ("folder for a record", ["check", "."], "expected a readable file, got: Is a directory"),
    ("no record", ["check", "case.py"], "expected JSON"),
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
        [*RUN, "--seeds", "2"],
        with_(RUN, scenario="case.py:five"),
        [*RUN, "--tune"],
    ):
        capsys.readouterr()
        assert call(*other) == 2
        assert re.search(
            r"expected an empty folder or this same run, got another run \(its \w+ differ", one_line(capsys)
        )
    assert tree(case) == before
    assert call(*RUN) == 0
    assert tree(case) == before, "the same command finds everything done"
    Path("case.py").write_text(CASE + "\n# changed\n")
    assert call(*RUN) == 2
    assert "its files differ" in one_line(capsys)


@pytest.mark.parametrize("what", ["write_text", "touch", "mkdir"])
def test_a_full_disk(
    what: str, case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before = tree(case)
    with monkeypatch.context() as patch:
        patch.setattr(Path, what, full)
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


def uninterrupted(folder: str) -> dict[str, Any]:
    assert call(*with_(RUN, out=folder)) == 0
    return load(Path(folder) / "seed-0" / "record.json").comparable()


PARTS: list[tuple[Any, str]] = [(bench, "scenario_of"), (auditing, "evidence"), (auditing, "judge"), (cli, "_show")]


@pytest.mark.parametrize(("owner", "name"), PARTS, ids=[name for _, name in PARTS])
def test_interrupted_and_called_again(
    owner: Any, name: str, case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        assert call(*RUN) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted: the same command goes on from here."
    assert call(*RUN) == 0
    monkeypatch.setenv("UNRECALL_CACHE", str(case / "another cache"))
    assert load(Path("out/seed-0/record.json")).comparable() == uninterrupted("whole")


def test_check_tells_a_good_record_from_a_forged_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN) == 0
    path = Path("out/seed-0/record.json")
    assert call("check", str(path)) == 0
    honest = path.read_text()

    def forge(change: Callable[[dict[str, Any]], Any]) -> None:
        data = json.loads(honest)
        change(data)
        path.write_text(json.dumps(data))

    forge(lambda data: data["verdict"].update(line="All is well."))
    capsys.readouterr()
    assert call("check", str(path)) == 1
    assert "off: verdict: the record says 'All is well.'" in capsys.readouterr().out
    forge(lambda data: data["provenance"]["weights"].update(unlearned="0" * 64))
    assert call("check", str(path)) == 1
    assert "its weights are not those that were audited" in capsys.readouterr().out
    forge(lambda data: data.update(verdicts={}))
    assert call("check", str(path)) == 2
    assert "Extra inputs are not permitted at verdicts" in one_line(capsys)


def test_list_names_everything_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("methods", "attacks", "metrics", "scenarios"):
        assert call("list", kind) == 0
        text = capsys.readouterr().out
        assert call("list", kind, "--json") == 0
        entries = json.loads(capsys.readouterr().out)
        assert entries
        assert all(re.search(rf"^{re.escape(entry['name'])} ", text, re.MULTILINE) for entry in entries)
        assert all(entry["summary"].endswith(".") or kind == "metrics" for entry in entries), kind
    assert call("list") == 0
    assert "lambda_a=0.03" in capsys.readouterr().out


def test_in_a_process_of_its_own(case: Path) -> None:
    """Exit codes, streams and the absence of a traceback as a shell sees them; the rest is tested in-process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from unrecall.cli import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    listed = shell("list", "methods")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "rurk" in listed.stdout
    bad = shell("run", "-s", "digits", "-m", "rurkk")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "error: unknown method 'rurkk'. Did you mean 'rurk'?\n"
    help_ = shell()
    assert help_.returncode == 2
    assert "Usage" in help_.stdout + help_.stderr
    assert "Traceback" not in help_.stderr
    assert [path.name for path in case.iterdir()] == ["case.py"]
