"""A modality of one's own: what can run on it runs; a suite of which nothing can is one clear line."""

import re
from pathlib import Path

import pytest

import unrecall as ur
from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import METHOD, call, case, one_line
from unrecall.errors import BadInput
from unrecall.experiment.cell import scenario_of
from unrecall.record.schema import load
from unrecall.training.session import Session

__all__ = ["case"]

SOUNDS = """
from dataclasses import dataclass, replace
from case import make as blobs
from unrecall.tasks import Classification
from unrecall.tasks.base import Task

@dataclass(frozen=True)
class Sounds(Task):
    "Offers what every task must, and no protocol."
    def collate(self, items): return Classification().collate(items)
    def rows(self, model, batch): return Classification().rows(model, batch)
    def view(self, model, batch): return Classification().view(model, batch)
    def head(self, model, batch): return Classification().head(model, batch)
    def blocks(self, model): return Classification().blocks(model)
    def check(self, model, request): return None
    def exhibit(self, item, caption): return Classification().exhibit(item, caption)
    def raw(self, item): return Classification().raw(item)

def make(): return replace(blobs(), task=Sounds())
"""
WHO = ["--scenario", "sounds.py:make", "--device", "cpu", "--out", "out"]
LACKING = (
    r"suite residual_knowledge prefix: expected a task that is one of Perturbable, Textual, got Sounds, on which none "
    r"of its attacks can run\. Name attacks that can, or give the task what they need\."
)


@pytest.fixture(autouse=True)
def sounds(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sounds.py").write_text(SOUNDS)
    monkeypatch.syspath_prepend(str(case))


@pytest.mark.parametrize("command", ["run", "bench", "audit"])
def test_a_suite_of_which_nothing_can_run_is_one_line(
    command: str, case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"run": ["--method", METHOD], "bench": ["--methods", METHOD], "audit": ["--unlearned", "any.safetensors"]}
    before = tree(case)
    assert call(command, *WHO, *options[command], "--suite", "residual_knowledge prefix") == 2
    assert re.search(f"^error: {LACKING}$", one_line(capsys))
    assert tree(case).keys() - {name for name in tree(case) if "__pycache__" in name} == before.keys()


def test_the_same_in_python() -> None:
    scenario, session = scenario_of("sounds.py:make"), Session(device="cpu")
    model = scenario.train_original(0, session).model
    with pytest.raises(BadInput, match=LACKING):
        ur.audit(
            original=model, unlearned=model, request=scenario.request, task=scenario.task, session=session,
            attacks=ur.suite("residual_knowledge", "prefix"),
        )  # fmt: skip


def test_what_can_run_runs_and_the_rest_are_rows_with_reasons() -> None:
    assert call("run", *WHO, "--method", METHOD, "--suite", "loss residual_knowledge") == 0
    record = load(Path("out/seed-0/record.json"))
    loss, residual = record.measurement("loss_auc"), record.measurement("residual_knowledge_sums")
    assert loss is not None
    assert loss.unlearned.value is not None
    assert residual is not None
    assert "expected a task with continuous inputs, got Sounds" in residual.note


def test_the_standard_suite_is_what_suits_every_task() -> None:
    assert call("run", *WHO, "--method", METHOD) == 0
    assert [attack.name for attack in load(Path("out/seed-0/record.json")).attacks] == ["loss", "lira", "rmia"]
