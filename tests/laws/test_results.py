"""What stands in the repository beside the source is up to date with it: papers.md, the races, the recipes."""

import importlib
from pathlib import Path

import pytest

from recipes.papers import papers, references

HOME = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (HOME / "recipes").glob("*.py"))
RACES = sorted({path.stem for path in (HOME / "speed").glob("*.py")} - {"__init__", "__main__", "clock"})


def test_papers_md_is_what_source_and_records_say() -> None:
    assert papers() == (HOME / "papers.md").read_text(encoding="utf-8"), "run: python recipes/papers.py"


def test_every_paper_of_a_method_or_attack_has_its_row() -> None:
    rows = references()
    for file in ("methods/rurk.py", "attacks/residual_knowledge.py", "metrics/gap.py", "scenarios/small_cifar5.py"):
        assert any(f"| `{file}` |" in row and "arXiv 2601.22359" in row for row in rows)
    assert sum("`methods/rurk.py`" in row for row in rows) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_imports_what_there_is(name: str) -> None:
    assert importlib.import_module(f"recipes.{name}")


@pytest.mark.parametrize("name", RACES)
def test_a_race_imports_what_there_is(name: str) -> None:
    assert callable(importlib.import_module(f"speed.{name}").run)


def test_all_races_are_run() -> None:
    source = (HOME / "speed" / "__main__.py").read_text(encoding="utf-8")
    assert [name for name in RACES if f'"{name}"' not in source] == []
