"""From before.pt to a signed statement: the code and the commands of the page on it run."""

import re
import sys
from pathlib import Path

import pytest
import torch

from tests.end_to_end.test_cli import call
from unrecall.experiment.cell import scenario_of
from unrecall.harness.checking import check
from unrecall.record.schema import load

PAGE = (Path(__file__).parents[2] / "docs" / "one-model.md").read_text(encoding="utf-8")
SCENARIO, BACK, PERSON, TRAINED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^unrecall (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's file, and the model that its reader has."""
    (tmp_path / "mine.py").write_text(SCENARIO, encoding="utf-8")
    (tmp_path / "ann.py").write_text(PERSON, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with torch.random.fork_rng():
        exec(compile(TRAINED, "one-model.md", "exec"))
    monkeypatch.delitem(sys.modules, "mine")
    return tmp_path


def test_the_page_s_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What they find may differ from what the page quotes, for training differs in the last bits on each processor."""
    verbs = [command.split()[0] for command in COMMANDS]
    assert verbs == ["doctor", "run", "run", "report", "check", "attest", "verify", "run"]
    for command in COMMANDS:
        more = ["--suite", "loss", "--device", "cpu"] if command.startswith(("doctor", "run")) else []
        assert call(*command.split(), *more) == 0, command
    assert (
        "beside 200 records never trained on it can be: leaks (wrongly in at most 4 of 100)" in capsys.readouterr().out
    )
    person = load(folder / "ann" / "seed-0" / "record.json")
    assert person.never_trained is not None
    assert (person.never_trained.unit, person.never_trained.forget) == ("group", 1)
    first, second = (load(folder / name / "seed-0" / "record.json") for name in ("scrub", "reheat"))
    assert first.tuning is not None
    assert first.verdict.basis == second.verdict.basis == "never trained"
    assert first.provenance.weights["original"] == second.provenance.weights["original"]
    assert first.provenance.weights["unlearned"] != second.provenance.weights["unlearned"]
    assert check(folder / "reheat" / "seed-0" / "record.json").problems == []
    assert "# Reheat on letter" in (folder / "answer.md").read_text(encoding="utf-8")
    exec(compile(BACK, "one-model.md", "exec"))
    model = scenario_of(f"{folder / 'mine.py'}:make").original
    assert model is not None
    model.load_state_dict(torch.load("after.pt", weights_only=True))
