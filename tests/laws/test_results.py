"""What stands in the repository beside the source is up to date with it: papers.md, the races, the recipes."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HOME = Path(__file__).parents[2]
VERDICT = ("verdict_alarms", "verdict_class", "verdict_persons", "verdict_real", "verdict_simulation", "verdict_worlds")
RACES = sorted({path.stem for path in (HOME / "speed").glob("*.py")} - {"__init__", "__main__", "clock"})


def recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of recipes/, which is no package: each is run by itself."""
    monkeypatch.syspath_prepend(HOME / "recipes")
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_papers_md_is_what_source_and_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    text = recipe("papers", monkeypatch).papers()
    assert text == (HOME / "papers.md").read_text(encoding="utf-8"), "run: python recipes/papers.py"


def test_every_paper_of_a_method_or_attack_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = recipe("papers", monkeypatch).references()
    for file in ("methods/rurk.py", "attacks/residual_knowledge.py", "metrics/gap.py", "scenarios/small_cifar5.py"):
        assert any(f"| `{file}` |" in row and "arXiv 2601.22359" in row for row in rows)
    assert sum("`methods/rurk.py`" in row for row in rows) == 1


NAMES = [
    "baselines",
    "publish",
    "roka_shape",
    "rurk_ablation",
    "by_heart",
    "movielens",
    "knowledge_holes",
    "objectives",
    "facts",
    *VERDICT,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_imports_what_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe(name, monkeypatch)


@pytest.mark.parametrize("name", RACES)
def test_a_race_imports_what_there_is(name: str) -> None:
    assert callable(importlib.import_module(f"speed.{name}").run)


def test_all_races_are_run() -> None:
    source = (HOME / "speed" / "__main__.py").read_text(encoding="utf-8")
    assert [name for name in RACES if f'"{name}"' not in source] == []
