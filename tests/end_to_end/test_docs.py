"""What the documentation shows works as it stands: commands name options that there are, examples run."""

import importlib
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from typer.main import get_command

import unrecall as ur
from tests.end_to_end.test_cli import WHO, call, case
from tests.worlds import blobs, train
from unrecall.cli.app import app
from unrecall.data.digests import digest
from unrecall.data.examples import Selection, iterate
from unrecall.data.identity import identities
from unrecall.experiment.cell import scenario_of
from unrecall.record.schema import load
from unrecall.training.session import Session

__all__ = ["case"]

HOME = Path(__file__).parents[2]
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md")), *sorted((HOME / "recipes").glob("*.sh"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_that_a_page_gives_it(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(rf"unrecall (?:{'|'.join(commands)}) [^`\n]*", text):
        _, name, *words = line.split("#")[0].split()
        command = commands[name]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if re.match("--?[a-z]", word)} <= options, line


def test_the_reference_names_what_there_is() -> None:
    names = re.findall(
        r"^::: (\S+)\.(\w+)$", (HOME / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(names) > 5
    assert all(hasattr(importlib.import_module(module), name) for module, name in names)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere() -> None:
    site = (HOME / "mkdocs.yml").read_text(encoding="utf-8")
    assert {page.name for page in (HOME / "docs").glob("*.md")} == set(re.findall(r"(\S+\.md)$", site, re.MULTILINE))
    for page in PAGES:
        for link in re.findall(r"\]\(([\w./-]+\.md)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_s_script_runs_as_it_stands() -> None:
    """And says that SCRUB leaks."""
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    script, _ = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(script, "README.md", "exec"), names)
    assert names["outcome"].record.verdict.label == "leaks"
    assert Path("audit.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert torch.load("forgot.pt", weights_only=True).keys() == names["model"].state_dict().keys()


def test_the_scenario_of_the_page_on_own_scenarios_loads_as_it_stands() -> None:
    page = (HOME / "docs" / "own-scenario.md").read_text(encoding="utf-8")
    example, two_inputs, telling, steps, following = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("mine.py").write_text(example)
    scenario = scenario_of("mine.py:make")
    assert len(scenario.request.forget) == 100
    scenario.task.check(scenario.build(0, Session(device="cpu")), scenario.request)
    _check_two_inputs(two_inputs)
    _check_telling(telling)
    _check_steps(steps)
    _check_next_request(following)


def _check_telling(example: str) -> None:
    names: dict[str, Any] = {"Dataset": Dataset}
    exec(compile(example, "own-scenario.md", "exec"), names)
    scans = names["Scans"]()
    scans.sha256, scans.labels = ["a", "b", "a"], [0, 1, 0]
    type(scans).__len__ = lambda _: 3
    told = identities(Selection(scans, [2, 1]))
    assert told is not None
    assert told.values == ["a 0", "b 1"]


def _check_two_inputs(example: str) -> None:
    class Compared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 2)

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(left * right)}

    names: dict[str, Any] = {}
    exec(compile(example, "own-scenario.md", "exec"), names)
    items = [{"left": torch.rand(8, 8), "right": torch.rand(8, 8), "same": i % 2} for i in range(8)]
    request, model = ur.Request(items[:4], items[4:]), Compared()
    names["task"].check(model, request)
    assert torch.equal(names["task"].collate(items)["targets"], torch.arange(8) % 2)
    assert names["task"].head(model, names["task"].collate(items)) is model.head


def _check_steps(example: str) -> None:
    data, unseen = blobs(80, 4, 1), blobs(80, 4, 2)
    names = {"forget": data[:8], "retain": data[8:], "holdout": unseen[:20], "test": unseen[20:]}
    names |= {"model": train(data, 0), "again": train(data[8:], 1)}
    exec(compile(example.replace('"quick"', '"loss"'), "own-scenario.md", "exec"), names)
    record = names["record"]
    assert record.sizes["holdout"] == 10  # type: ignore[attr-defined]
    assert record.method.startswith("scrub")  # type: ignore[attr-defined]


def _check_next_request(example: str) -> None:
    """What went first is in neither set of the second request."""
    data, unseen = blobs(80, 4, 1), blobs(80, 4, 2)
    names: dict[str, Any] = {"training": data, "whose": {"Ann": list(range(8))}, "model": train(data, 0)}
    names |= {"holdout": unseen[:20], "others": unseen[20:40], "test": unseen[40:]}
    exec(compile(example.replace('"scrub"', '"scrub", attacks="loss", tune=False'), "own-scenario.md", "exec"), names)
    assert names["outcome"].record.sizes == {"forget": 8, "retain": 64, "holdout": 20, "test": 40}
    assert names["outcome"].record.sizes["retain"] == len(names["kept"])
    gone = {digest(item) for item in data[:8]}
    assert not gone & {digest(item) for item in iterate(names["kept"])}


def test_the_examples_of_extending_run_as_they_stand() -> None:
    examples = re.findall(
        r"```python\n(.*?)```", (HOME / "docs" / "extending.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for name, example in zip(("method", "attack", "metric"), examples, strict=True):
        Path(f"{name}.py").write_text(example)
    runpy.run_path("metric.py")
    words = ["--method", "method.py:Mine:alpha=0.3", "--suite", "attack.py:Confident", "--out", "out"]
    assert call("run", *WHO, *words, "--tune") == 0
    record = load(Path("out/seed-0/record.json"))
    assert record.method.startswith("method.py:Mine:alpha=")
    assert [attack.name for attack in record.attacks] == ["Confident"]
    area = record.measurement("Confident_auc")
    assert area is not None
    assert area.unlearned.value is not None
