"""What is kept is taken again only by the run that would make it: every change of what decides it is another run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end.test_cli import CASE as PLAIN
from tests.end_to_end.test_cli import METHOD, RUN, WHO, call, case, one_line, with_
from tests.unit.disk.test_code_key import forget_files
from tests.worlds import network
from unrecall.disk import weights
from unrecall.disk.cache import cache_folder
from unrecall.disk.files import sealed_as
from unrecall.record.schema import load
from unrecall.training.resume import Saved

__all__ = ["case"]

CASE = "from pathlib import Path\n" + PLAIN
QUICK = with_(RUN, suite="rmia")


def record(folder: str) -> dict[str, Any]:
    return load(next(Path(folder).rglob("record.json"))).comparable()


def alone(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of the same command with an empty cache, in a folder of its own."""
    forget_files()
    with monkeypatch.context() as patch:
        patch.setenv("UNRECALL_CACHE", str(cache_folder().parent / "empty cache"))
        assert call(*with_(arguments, out="alone")) == 0
    return record("alone")


# A network's constants.

SCALED = """
class Scaled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
{start}
    def forward(self, x):
        return self.inner({scaled})

{after}
def zero(model):
    nn.init.zeros_(model[6].weight)
    return model

def wrapped(): return case(build=lambda seed, _: Scaled({inner}))
"""
READ = "torch.tensor(float(Path('scale.txt').read_text()))"
PLACES = {
    "tensor": {"start": f"        self.scale = {READ}", "scaled": "x * self.scale", "after": ""},
    "closure": {
        "start": "        scale = " + READ + "\n        self.preprocess = lambda x: x * scale",
        "scaled": "self.preprocess(x)",
        "after": "",
    },
    "global": {"start": "", "scaled": "x * SCALE", "after": f"SCALE = {READ}"},
}


@pytest.mark.parametrize(
    ("place", "head"),
    [("tensor", "network(seed=seed)"), ("closure", "zero(network(seed=seed))"), ("global", "network(seed=seed)")],
)
def test_mended_constants_of_a_network_are_another_model(
    place: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are the same, and the untrained network with a head of zeros even answers the same."""
    Path("case.py").write_text(CASE + SCALED.format(inner=head, **PLACES[place]))
    weights.save(network(seed=9), Path("inner.safetensors"))
    audit = ["audit", *with_(WHO, scenario="case.py:wrapped"), "--suite", "rmia", "--out", "first"]
    Path("scale.txt").write_text("0.01")
    assert call("unlearn", *with_(WHO, scenario="case.py:wrapped"), "--method", METHOD, "--out", "gone") == 0
    command = [*audit, "--unlearned", "gone/unlearned.safetensors"]
    assert call(*command) == 0
    Path("scale.txt").write_text("1.0")
    assert call(*with_(command, out="second")) == 0
    assert record("second") == alone(command, monkeypatch)
    assert record("second")["provenance"]["weights"]["original"] != record("first")["provenance"]["weights"]["original"]


def test_a_finished_run_is_not_taken_for_that_of_another_network(capsys: pytest.CaptureFixture[str]) -> None:
    Path("case.py").write_text(CASE + SCALED.format(inner="network(seed=seed)", **PLACES["tensor"]))
    command = with_(QUICK, scenario="case.py:wrapped")
    Path("scale.txt").write_text("0.01")
    assert call(*command) == 0
    assert call(*command) == 0
    Path("scale.txt").write_text("1.0")
    assert call(*command) == 2
    assert "expected the record of this same run, got another's (other models)" in one_line(capsys)


def test_dropout_shows_in_no_answer_and_decides_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    share = "float(Path('share.txt').read_text())"
    more = f"\ndef dropping(): return case(build=lambda s, _: nn.Sequential(nn.Dropout({share}), network(seed=s)))\n"
    Path("case.py").write_text(CASE + more)
    command = with_(QUICK, scenario="case.py:dropping")
    Path("share.txt").write_text("0.0")
    assert call(*command) == 0
    Path("share.txt").write_text("0.9")
    assert call(*with_(command, out="second")) == 0
    assert record("second") == alone(command, monkeypatch)


IN_TRAINING = """
VALUE = float(Path('value.txt').read_text())
def case_of(model): return case(build=lambda seed, _: model(network(seed=seed)))

class Net(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        {start}
    def forward(self, x):
        {dropped}
        return self.inner(x)

def frozen(inner):
    inner[0].requires_grad_(VALUE == 0)
    return inner

def acting(): return case_of({made})
"""
DROPPED = "if self.training: x = nn.functional.dropout(x, {}, True)"
ACTING = {
    "a global": {"start": "pass", "dropped": DROPPED.format("VALUE"), "made": "Net"},
    "a private one": {"start": "self._share = VALUE", "dropped": DROPPED.format("self._share"), "made": "Net"},
    "a dict": {
        "start": "self.config = {'share': VALUE}",
        "dropped": DROPPED.format("self.config['share']"),
        "made": "Net",
    },
    "frozen weights": {"start": "pass", "dropped": "pass", "made": "frozen"},
}


@pytest.mark.parametrize("where", ACTING)
def test_what_acts_in_training_alone_is_another_model(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("case.py").write_text(CASE + IN_TRAINING.format(**ACTING[where]))
    command = with_(QUICK, scenario="case.py:acting")
    found = []
    for value in ("0", "0.9"):
        Path("value.txt").write_text(value)
        assert call(*with_(command, out=f"out{value}")) == 0
        found.append(record(f"out{value}")["provenance"]["weights"]["original"])
    assert found[0] != found[1]
    assert call(*with_(command, out="out0")) == 2
    assert "another's (other models)" in one_line(capsys)


# Data.


def test_a_training_that_was_killed_is_not_taken_up_with_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    more = "\nN = int(Path('n.txt').read_text())\ndef some(): return case(retain=DATA[10 + N:])\n"
    Path("case.py").write_text(CASE + more)
    command = with_(QUICK, scenario="case.py:some")
    kept = Saved.keep
    with monkeypatch.context() as patch:

        def stop(self: Saved, progress: Any) -> None:
            self.at = -1e9
            kept(self, progress)
            if progress.effort.steps > 8:
                raise KeyboardInterrupt

        patch.setattr(Saved, "keep", stop)
        Path("n.txt").write_text("0")
        assert call(*command) == 130
    assert list(Path("out").rglob("*.ckpt"))
    Path("n.txt").write_text("30")
    assert call(*command) == 0
    assert record("out") == alone(command, monkeypatch)
    assert call(*with_(command, out="third")) == 0
    assert record("third") == record("out"), "nor is anything of the old data in the cache"


def test_a_file_with_a_space_in_its_name_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("my idx.txt", "a(b).txt"):
        command = ["run", "-s", f"digits:forget={name}", "-m", "finetune:steps=1", "--suite", "loss", "--device", "cpu"]
        for many in (10, 30):
            Path(name).write_text("\n".join(map(str, range(many))))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "unrecall.experiment.parallel.run_cell", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
                )
                assert call(*command, "--out", f"of {name}") == (130 if many == 10 else 2)
        assert "got another run (other files)" in capsys.readouterr().err


def test_another_reading_of_the_same_examples_is_another_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a chat template says which day it is."""
    more = """
class Today(Classification):
    def collate(self, items):
        batch = super().collate(items)
        return batch | {"inputs": batch["inputs"] * float(Path('day.txt').read_text())}

def dated(): return case(task=Today())
"""
    text = (CASE + more).replace("task=Classification(), ", "")
    Path("case.py").write_text(text.replace('"references": 2}', '"references": 2, "task": Classification()}'))
    command = with_(QUICK, scenario="case.py:dated")
    Path("day.txt").write_text("1.0")
    assert call(*command) == 0
    Path("day.txt").write_text("0.5")
    assert call(*command) == 2
    assert "expected the record of this same run, got another's (other models)" in one_line(capsys)
    assert call(*with_(command, out="second")) == 0
    assert record("second") == alone(command, monkeypatch)


def test_a_checkpoint_is_not_replaced_by_one_of_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    Path("case.py").write_text(
        CASE + "\nN = int(Path('n.txt').read_text())\ndef some(): return case(retain=DATA[10 + N:])\n"
    )
    command = ["unlearn", *with_(WHO, scenario="case.py:some"), "--method", METHOD, "--out", "gone"]
    Path("n.txt").write_text("0")
    assert call(*command) == call(*command) == 0
    before = Path("gone/unlearned.safetensors").read_bytes()
    Path("n.txt").write_text("30")
    assert call(*command) == 2
    assert "expected the checkpoint of this same run, got another's (other data, models)" in one_line(capsys)
    assert Path("gone/unlearned.safetensors").read_bytes() == before
    assert call(*with_(command, out="other")) == 0


def test_an_edited_task_gives_other_scores_and_another_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the weights nor what the task reads show how it puts inputs into a batch."""
    own = """
class Mine(Classification):
    def with_inputs(self, batch, inputs):
        return super().with_inputs(batch, {})

def mine(): return case(task=Mine(), references=0)
"""
    text = CASE.replace("task=Classification(), ", "").replace('"references": 2}', '"task": Classification()}')
    command = with_(RUN, scenario="case.py:mine", method="rurk:tau=0.3,lr=0.02,epochs=2", suite="residual_knowledge")
    found = []
    for inputs in ("1 - inputs", "inputs"):
        Path("case.py").write_text(text + own.format(inputs))
        forget_files()
        assert call(*with_([*command, "--tune"], out=inputs)) == 0
        found.append(record(inputs))
    assert found[0]["tuning"] != found[1]["tuning"]
    assert found[0]["measurements"] != found[1]["measurements"]
    assert found[1] == alone([*command, "--tune"], monkeypatch)


# Methods.

MINE = """
from dataclasses import dataclass
from unrecall.methods import Finetune

@dataclass(frozen=True)
class Mine(Finetune):
    def unlearn(self, model, job):
        made = super().unlearn(model, job)
        made[6].bias.data += {shift}
        return made
"""


def test_an_edited_method_makes_a_new_record_in_a_bench() -> None:
    command = ["bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", "m.py:Mine:epochs=1 ssd"]
    found = []
    for shift in (0, 5, 5):
        Path("m.py").write_text(MINE.format(shift=shift))
        forget_files()
        assert call(*command) == 0
        found.append({path: path.read_bytes() for path in sorted(Path("grid").rglob("record.json"))})
    (mine,) = [path for path in found[0] if "Mine" in str(path)]
    assert found[0][mine] != found[1][mine]
    assert found[1] == found[2]
    assert all(found[0][path] == found[1][path] for path in found[0] if path != mine)


READING = """
from dataclasses import dataclass
from pathlib import Path
from unrecall.attacks import Loss
from unrecall.methods import Finetune

@dataclass(frozen=True)
class Mine(Finetune):
    where: str = ""
    def unlearn(self, model, job):
        made = super().unlearn(model, job)
        made[6].bias.data += float(Path(self.where).read_text())
        return made

@dataclass(frozen=True)
class Other(Loss):
    where: str = ""
    def score(self, evidence, split):
        return super().score(evidence, split) * float(Path(self.where).read_text())
"""


def test_another_content_of_a_file_that_a_method_names_makes_a_new_record_in_a_bench() -> None:
    Path("m.py").write_text(READING)
    command = ["bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", "m.py:Mine:epochs=1,where=s.txt"]
    found = []
    for shift in ("0", "5", "5"):
        Path("s.txt").write_text(shift)
        assert call(*command) == 0
        found.append(next(Path("grid").rglob("record.json")).read_bytes())
    assert found[0] != found[1] == found[2]


def test_another_content_of_a_file_that_an_attack_names_gives_other_scores() -> None:
    Path("at.py").write_text(READING)
    command = with_(RUN, suite="at.py:Other:where=s.txt")
    found = []
    for sign in ("1", "-1"):
        Path("s.txt").write_text(sign)
        assert call(*with_(command, out=f"out{sign}")) == 0
        found.append(record(f"out{sign}"))
    assert found[0]["measurements"] != found[1]["measurements"]


def test_two_rates_that_differ_in_a_sign_have_a_record_each(capsys: pytest.CaptureFixture[str]) -> None:
    """At the larger one this network may well diverge: then that cell has no record, and not the other's."""
    code = call("bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", "finetune:lr=1e-1 finetune:lr=1e+1")
    assert len([path for path in Path("grid").iterdir() if path.is_dir()]) == 2
    records = [load(path) for path in Path("grid").rglob("record.json")]
    told = capsys.readouterr().err
    assert sorted(record.method for record in records) == ["finetune:lr=0.1", *["finetune:lr=10"] * (code == 0)]
    assert code == 0 or "finetune:lr=1e+1, seed 0: " in told


def test_a_long_line_and_one_in_capitals_have_folders_of_their_own() -> None:
    long = "finetune:" + ",".join(["epochs=1"] * 40)
    assert call("bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", f"ssd SSD {long}") == 0
    assert len({path.parent.parent.name.lower() for path in Path("grid").rglob("record.json")}) == 3


# Models.


def test_other_weights_at_the_same_place_are_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", *WHO, "--suite", "rmia", "--unlearned", "x.safetensors", "--out", "theirs"]
    weights.save(network(seed=5), Path("x.safetensors"))
    assert call(*command) == 0
    before = Path("theirs/record.json").read_bytes()
    assert call(*command) == 0
    assert Path("theirs/record.json").read_bytes() == before, "what is finished is not done again"
    weights.save(network(seed=6), Path("x.safetensors"))
    assert call(*command) == 2
    assert "got another run (other files)" in one_line(capsys)
    assert Path("theirs/record.json").read_bytes() == before


def test_another_number_of_threads_is_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*QUICK) == 0
    assert load(Path("out/seed-0/record.json")).provenance.identity["threads"] == "1"
    names = {path.name for path in cache_folder().glob("tiny-original-*")}
    torch.set_num_threads(2)
    try:
        assert call(*QUICK) == 2
        assert "(other threads)" in one_line(capsys)
        assert call(*with_(QUICK, out="two")) == 0
    finally:
        torch.set_num_threads(1)
    assert load(Path("two/seed-0/record.json")).provenance.identity["threads"] == "2"
    assert len({path.name for path in cache_folder().glob("tiny-original-*")} - names) == 1


@pytest.mark.parametrize("sealed", [False, True])
def test_an_original_in_the_place_of_a_retrained_model(sealed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not what its name says is made anew; one that is renamed as well is refused as a reference."""
    assert call(*QUICK) == 0
    original = next(cache_folder().glob("tiny-original-*.safetensors"))
    seal = original.name.split(".")[-2]
    for path in list(cache_folder().glob("tiny-retrained-*.safetensors")):
        shutil.copyfile(original, path)
        if sealed:
            path.rename(path.with_name(f"{path.name.split('.')[0]}.{seal}.safetensors"))
            assert sealed_as(path.with_name(f"{path.name.split('.')[0]}.safetensors"))
    capsys.readouterr()
    if sealed:
        assert call(*with_(QUICK, out="again")) == 2
        assert "retrained 0: expected a model of its own, got the same weights as original." in one_line(capsys)
    else:
        with pytest.warns(UserWarning, match="damaged, so it is made anew"):
            assert call(*with_(QUICK, out="again")) == 0
        assert record("again") == record("out")


# Records.


@pytest.mark.parametrize("command", ["run", "bench", "audit"])
def test_an_edited_record_is_not_believed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights.save(network(seed=5), Path("x.safetensors"))
    words = {
        "run": [*QUICK, "--fail-on", "leaks,inconclusive,over-forgets"],
        "bench": ["bench", *WHO, "--suite", "rmia", "--out", "out", "--methods", METHOD],
        "audit": ["audit", *WHO, "--suite", "rmia", "--unlearned", "x.safetensors", "--out", "out"],
    }[command]
    code = call(*words)
    (path,) = Path("out").rglob("record.json")
    data = json.loads(path.read_text())
    data["verdict"].update(label="like retrained", line="Like a retrained model.")
    path.write_text(json.dumps(data))
    capsys.readouterr()
    assert code != 2
    assert call(*words) == 2
    assert "expected the record that was made here, got one that doesn't hold" in one_line(capsys)
    path.unlink()
    assert call(*words) == code, "once it is gone it is made again"


def test_a_damaged_file_of_a_finished_run_is_named_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*QUICK) == 0
    path, checkpoint = Path("out/seed-0/record.json"), Path("out/seed-0/unlearned.safetensors")
    whole, before = path.read_bytes(), record("out")
    for damaged in (path, checkpoint):
        path.write_bytes(whole)
        damaged.write_text("hello")
        capsys.readouterr()
        assert call(*QUICK) == 2
        told = one_line(capsys)
        assert str(damaged) in told
        assert told.endswith("Remove it to make it again, or choose another --out.")
    path.unlink()
    assert call(*QUICK) == 0
    assert record("out") == before
    assert weights.digest_of_file(checkpoint) == before["provenance"]["weights"]["unlearned"]
