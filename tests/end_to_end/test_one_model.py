"""From before.pt to a signed statement: the page on it runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.end_to_end.test_cli import call
from unrecall.experiment.grid import scenario_of
from unrecall.harness.checking import check
from unrecall.record.schema import load

PAGE = (Path(__file__).parents[2] / "docs" / "one-model.md").read_text(encoding="utf-8")
SCENARIO, BACK = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^unrecall (.*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's file, and the model that its reader has."""
    path = tmp_path_factory.mktemp("letter")
    (path / "mine.py").write_text(SCENARIO, encoding="utf-8")
    names: dict[str, object] = {}
    exec(compile(SCENARIO, "one-model.md", "exec"), names)
    data = names["records"]()[:900]  # type: ignore[operator]
    inputs, labels = torch.stack([x for x, _ in data]), torch.tensor([y for _, y in data])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = names["network"]()  # type: ignore[operator]
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(200):
            order = torch.randperm(900)
            for i in range(0, 900, 32):
                optimizer.zero_grad()
                chosen = order[i : i + 32]
                nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
                optimizer.step()
    torch.save(model.state_dict(), path / "before.pt")
    return path


def test_the_page_runs_as_it_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert [command.split()[0] for command in COMMANDS] == ["doctor", "run", "run", "check", "attest", "verify"]
    for command in COMMANDS:
        more = ["--suite", "loss", "--device", "cpu"] if command.startswith(("doctor", "run")) else []
        assert call(*command.split(), *more) == 0, command
    assert "beside 200 records never trained on: leaks at 4 %" in capsys.readouterr().out
    first, second = (load(folder / name / "seed-0" / "record.json") for name in ("scrub", "reheat"))
    assert first.tuning is not None
    assert first.verdict.basis == second.verdict.basis == "never trained"
    assert first.provenance.weights["original"] == second.provenance.weights["original"]
    assert first.provenance.weights["unlearned"] != second.provenance.weights["unlearned"]
    assert check(folder / "reheat" / "seed-0" / "record.json").problems == []
    exec(compile(BACK, "one-model.md", "exec"))
    model = scenario_of(f"{folder / 'mine.py'}:make").original
    assert model is not None
    model.load_state_dict(torch.load("after.pt", weights_only=True))
