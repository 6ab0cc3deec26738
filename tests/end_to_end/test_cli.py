"""The command line: verdict, page and exit code; one clear line for whatever can't be used, with nothing written."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worlds import network
from tests.worlds.records import full
from unrecall.cli import app as cli
from unrecall.cli import runs
from unrecall.disk import weights
from unrecall.disk.cache import cache_folder
from unrecall.evidence import setting
from unrecall.experiment import cell
from unrecall.harness import audit as auditing
from unrecall.record.schema import Record, load
from unrecall.record.verdict import judge

CASE = """
import os
import torch
from torch import nn
from tests.worlds import blobs, network
from unrecall import Fit, Request, Scenario
from unrecall.tasks import Classification
from unrecall.data.examples import Selection

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
def remembered(): return case(holdout=UNSEEN[4:28], test=UNSEEN[28:])  # less of validation is right than of forget
def five(): return case(references=5)
def outside(): return case(forget=Selection(DATA, [0, 80]))
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
def own_probabilities(): return case(original=nn.Sequential(network(seed=9), nn.Softmax(1)))
def shaped(): return case(build=lambda s, _: nn.Linear(3, 4))
def nan_weights():
    model = network()
    model[6].weight.data[0, 0] = torch.nan
    return case(original=model)
def no_model(): return case(build=None)
def nan_build(): return case(build=lambda s, _: nan_weights().original)
def absent(): return case(forget=[int(l) for l in open("no-such-file")])
def no_scenario(): return 3
def boom(): raise ValueError("boom")
def refused(): assert False, "no"
"""
FAST = "recalibration:counts=16 rmia svc"
METHOD = "neggrad_plus:epochs=3,batch_size=16"
WHO = ["--scenario", "case.py:make", "--device", "cpu"]
RUN = ["run", *WHO, "--method", METHOD, "--suite", FAST, "--out", "out"]


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


def test_one_original_is_unlearned_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN, "--seeds", "1x2") == 0
    assert "trained" not in capsys.readouterr().err.split("seed 1")[-1]
    first, second = (load(Path(f"out/{name}/record.json")) for name in ("seed-0", "seed-0-1-1"))
    assert first.provenance.weights["original"] == second.provenance.weights["original"]
    assert (first.seeds, second.seeds) == ({}, {"training": 0, "unlearning": 1})
    assert (first.seed, second.seed) == (0, 1)
    assert call("check", "out") == 0


def test_a_strength_is_tuned_against_an_attack(capsys: pytest.CaptureFixture[str]) -> None:
    against = ["--against", "relearn:steps=2,learning_rates=0.01", "--kl", "0.5"]
    run = [word.replace("case.py:make", "case.py:remembered") for word in RUN]
    assert call(*run, *against) == 0
    record = load(Path("out/seed-0/record.json"))
    assert record.tuning is not None
    assert record.tuning.criterion.startswith(
        "the least that relearn:steps=2,learning_rates=0.01 brings back of forget"
    )
    assert all(trial.kl is not None for trial in record.tuning.trials)
    assert call("check", "out") == 0
    capsys.readouterr()
    assert call(*run, "--tune") == 2
    assert "against" in capsys.readouterr().err


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
    audit = ["audit", *WHO, "--suite", FAST]
    assert call(*audit, "--unlearned", str(checkpoint), "--out", "theirs") == 0
    record = load(Path("theirs/record.json"))
    assert record.provenance.weights["unlearned"] == weights.digest_of_file(checkpoint)
    references = cache_folder().glob("tiny-retrained-*.safetensors")
    given = [word for path in references for word in ("--retrained", str(path))]
    original = next(cache_folder().glob("tiny-original-*.safetensors"))
    assert call(*audit, "--unlearned", str(checkpoint), *given, "--original", str(original), "--out", "again") == 0
    again = load(Path("again/record.json"))
    assert sorted(again.provenance.weights.values()) == sorted(record.provenance.weights.values())


def test_model_is_the_model_before_in_an_audit_too() -> None:
    weights.save(network(), Path("theirs.safetensors"))
    weights.save(network(seed=1), Path("before.safetensors"))
    audit = ["audit", *WHO, "--suite", "rmia", "--out", "theirs", "--unlearned", "theirs.safetensors"]
    assert call(*audit, "--model", "before.safetensors") == 0
    assert call(*audit, "--original", "before.safetensors") == 0, "another name of the same is no other command"
    record = load(Path("theirs/record.json"))
    assert record.provenance.weights["original"] == weights.digest_of_file(Path("before.safetensors"))


def test_bench_makes_a_page_of_many_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods"]
    assert call(*words, f"{METHOD} ssd") == 0
    before = {path: path.read_bytes() for path in Path("grid").rglob("*.json")}
    assert sum(path.name == "record.json" for path in before) == 2
    assert call(*words, f"{METHOD} ssd finetune:epochs=1") == 0
    after = {path: path.read_bytes() for path in Path("grid").rglob("*.json")}
    assert all(after[path] == content for path, content in before.items())
    assert call(*words, "ssd ssdd") == 2
    assert "unknown method 'ssdd'. Did you mean 'ssd'?" in capsys.readouterr().err


def test_a_tuned_bench_runs_what_has_no_strength_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    methods = f"retrain:epochs=1 eu_k:blocks=1,epochs=1 {METHOD}"
    assert call("bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", methods, "--tune") == 0
    told = capsys.readouterr().err
    records = [load(path) for path in Path("grid").rglob("record.json")]
    assert {record.method.split(":")[0]: record.tuning is None for record in records} == {
        "retrain": True,
        "eu_k": True,
        "neggrad_plus": False,
    }
    assert re.findall(r"^(\w+):.* has no strength to tune, so it runs as it is\.$", told, re.MULTILINE) == [
        "eu_k",
        "retrain",
    ]


def test_an_audit_trains_only_what_was_not_given() -> None:
    """With --original no original is trained; one --retrained is topped up to the two that the scenario wants."""
    weights.save(network(seed=5), Path("theirs.safetensors"))
    weights.save(network(seed=6), Path("reference.safetensors"))
    audit = ["audit", *WHO, "--suite", "rmia", "--unlearned", "theirs.safetensors", "--original", "theirs.safetensors"]
    assert call(*audit, "--retrained", "reference.safetensors", "--out", "audit") == 0
    assert not list(cache_folder().glob("tiny-original-*"))
    assert len(list(cache_folder().glob("tiny-retrained-*.safetensors"))) == 1
    digests = load(Path("audit/record.json")).provenance.weights
    assert digests["retrained 0"] == weights.digest_of_file(Path("reference.safetensors"))
    assert digests["original"] == weights.digest_of_file(Path("theirs.safetensors"))
    assert "retrained 1" in digests


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is the last line and the only one; what was done before it may have been told."""
    *told, last = capsys.readouterr().err.splitlines()
    progress = r": done in|^(un|null|attack|not given|trying|before attacks|memory|run \d|The budget|All takes|  )"
    assert all(re.search(progress, line) for line in told), told
    return last


def uninterrupted(folder: str) -> dict[str, Any]:
    assert call(*with_(RUN, out=folder)) == 0
    return load(Path(folder) / "seed-0" / "record.json").comparable()


PARTS: list[tuple[Any, str]] = [(cell, "scenario_of"), (setting, "observe"), (auditing, "judge_all"), (runs, "_show")]


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
    assert call("check", str(path)) == call("check", str(path.parent)) == 0
    honest = path.read_text()

    def forge(change: Callable[[dict[str, Any]], Any]) -> None:
        data = json.loads(honest)
        change(data)
        path.write_text(json.dumps(data))

    forge(lambda data: data["verdict"].update(line="All is well."))
    capsys.readouterr()
    assert call("check", str(path)) == 1
    assert "problem: verdict: the record says 'All is well.'" in capsys.readouterr().out
    forge(lambda data: data["provenance"]["weights"].update(unlearned="0" * 64))
    assert call("check", str(path)) == 1
    assert "its weights are not those that were audited" in capsys.readouterr().out
    forge(flattered)
    assert call("check", str(path)) == 1
    told = capsys.readouterr().out
    assert "the record has it not judged, the rule has it judged." in told
    assert "expected a margin of at most 0.1, got 9." in told
    forge(lambda data: data.update(verdicts={}))
    assert call("check", str(path)) == 2
    assert "Extra inputs are not permitted at verdicts" in one_line(capsys)


def test_check_goes_on_past_damaged_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN) == 0
    path = Path("out/seed-0/unlearned.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    capsys.readouterr()
    assert call("check", "out/seed-0") == 1
    told = capsys.readouterr().out
    assert re.findall(r"^  problem: (.*)$", told, re.MULTILINE) == [
        f"{path}: expected a whole safetensors file, got a damaged or truncated one. Copy it again."
    ]
    assert "  not checked: " in told


def test_report_names_the_records_that_it_can_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    full().save("many/good/record.json")
    for name, text in (("cut", "{"), ("other", "[]")):
        Path("many", name).mkdir()
        Path("many", name, "record.json").write_text(text)
    assert call("report", "many", "-o", "page.html") == 2
    told = capsys.readouterr()
    assert [line.split(": ")[1] for line in told.err.splitlines()] == [
        "many/cut/record.json",
        "many/other/record.json",
        "2 of 3 records could not be read, and were left out.",
    ]
    assert told.out == "page.html\n"
    assert full().method_title in Path("page.html").read_text(encoding="utf-8")
    assert call("report", "many/cut", "-o", "none.html") == 2
    assert not Path("none.html").exists()


def flattered(data: dict[str, Any]) -> None:
    """What leaks is no longer judged, the rest has a margin that nothing exceeds, and no doubt is left."""
    for entry in data["measurements"]:
        entry["judged"] &= entry["verdict"] not in ("leaks", "over-forgets")
        entry["margin"] = 9.0
    data["measurements"][0]["judged"] = not data["measurements"][0]["judged"]
    record = Record.model_validate(data)
    labelled, verdict = judge(record.measurements, record.attacks)
    data |= record.model_copy(update={"measurements": labelled, "verdict": verdict, "doubts": []}).model_dump(
        mode="json"
    )


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
    assert call("list", "scrub") == 0
    text = capsys.readouterr().out
    assert text.startswith("scrub\n\nDisobeys")
    assert "Expected to fail:" in text
    assert "\n  forget_batch: Count = 64\n" in text


def test_in_a_process_of_its_own(case: Path) -> None:
    """Exit codes, streams and the absence of a traceback as a shell sees them; the rest is tested in-process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from unrecall.cli.app import main; main()", *arguments]
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


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f'{sys.executable} -c "from unrecall.cli.app import main; main()" list methods --json | head -c 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("[", "")


def together(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in two processes, as torchrun starts them."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unrecall"]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        timeout=240,
    )


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torchrun")
def test_two_processes_leave_what_one_does(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 5 for a network with BatchNorm; killed at first, of which the launcher hears at once."""
    dying = 'os.kill(os.getpid(), 9) if os.path.exists("die") else network(seed=s)'
    Path("case.py").write_text(CASE + f"\ndef mortal(): return case(build=lambda s, _: {dying})\n")
    asked = with_(RUN, scenario="case.py:mortal", method="neggrad_plus:epochs=1,batch_size=5", suite="svc")
    Path("die").touch()
    killed = together(*asked)
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    assert not list(case.rglob("record.json"))
    Path("die").unlink()
    done = together(*asked)
    assert done.returncode == 0, done.stderr
    assert [done.stderr.count(f"process {rank} of 2: does ") for rank in (0, 1)] == [1, 1]
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r"neggrad_plus:.*, seed 0: [A-Z].*\n"
        r"(neggrad_plus:.*, seed 0: It forgot nothing: .* as eu_k or reheat\.\n)?out/report.html\n",
        done.stdout,
    )
    assert call("check", "out") == 0
    monkeypatch.setenv("UNRECALL_CACHE", str(case.parent / "another-cache"))
    assert call(*with_(asked, out="alone")) == 0
    (several,), (alone,) = (list(Path(name).rglob("record.json")) for name in ("out", "alone"))
    for record, other in zip(load(several).measurements, load(alone).measurements, strict=True):
        if record.group != "cost":
            assert record.unlearned.value == pytest.approx(other.unlearned.value, abs=1e-5), record.name
    first, second = (weights.read(Path(name) / "seed-0" / "unlearned.safetensors") for name in ("out", "alone"))
    for key, value in second.items():
        torch.testing.assert_close(first[key], value, atol=1e-5, rtol=1e-4)
    checkpoint = several.parent / "unlearned.safetensors"
    assert list(Path("out").rglob("unlearned.safetensors")) == [checkpoint]
    assert weights.digest_of_file(checkpoint) == load(several).provenance.weights["unlearned"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--method", "scrub"],
        ["run", "--method", "salun(scrob)", "--scenario", "digits"],
        ["unlearn", "--method", "scrub", "--scenario", "digitz"],
        ["bench", "--scenario", "digits", "--suite", "quik"],
    ],
)
def test_a_missing_or_unknown_name_is_told_before_torch_is_imported(arguments: list[str]) -> None:
    program = (
        "import sys, unrecall.cli.app as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, *arguments]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2 False\n"
