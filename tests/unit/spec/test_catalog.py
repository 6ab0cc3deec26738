"""What is listed as a metric is one, and helpers aren't."""

import importlib
from pathlib import Path

import pytest

from unrecall.errors import BadInput
from unrecall.metrics import METRICS
from unrecall.spec.catalog import Kind, Parameter, entries, entry_of_file


def test_metrics_are_listed_and_their_helpers_are_not() -> None:
    names = [entry.name for entry in entries("metrics")]
    assert names == sorted(metric.name for metric in METRICS)
    assert set(names) >= {"over_unlearning", "average_gap", "extraction_strength", "answers"}
    assert set(names).isdisjoint({"confusion", "paid", "gained", "worst_drop", "away_from_competitor", "evaluate"})


def test_a_metric_of_several_numbers_names_them() -> None:
    summary = {entry.name: entry.summary for entry in entries("metrics")}
    assert all(summary.values())
    assert {"forget_quality", "model_utility"} <= set(summary["answers"].replace(",", "").split())


def test_formulas_from_papers_say_which() -> None:
    reference = {entry.name: entry.reference for entry in entries("metrics")}
    from_papers = {"answers", "average_gap", "contamination", "disagreement", "extraction_strength", "over_unlearning"}
    assert {name for name, text in reference.items() if "arXiv" in text} >= from_papers


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [("methods", "Scrub", "SCRUB"), ("methods", "gradascent", "GradAscent"), ("methods", "GRAD_ASCENT", "GradAscent"),
     ("methods", "RandomLabels", "RandomLabel"), ("attacks", "Rmia", "RMIA"), ("attacks", "ReLearn", "Relearn")],
)  # fmt: skip
def test_a_misspelt_class_is_told_the_one_that_is_meant(kind: str, name: str, meant: str) -> None:
    package = importlib.import_module(f"unrecall.{kind}")
    with pytest.raises(AttributeError, match=f"got '{name}'. Did you mean '{meant}'"):
        getattr(package, name)
    assert isinstance(getattr(package, meant), type)
    assert not hasattr(package, "__wrapped__")


@pytest.mark.parametrize("kind", ["methods", "attacks"])
def test_every_listed_class_is_there_by_its_listed_name(kind: Kind) -> None:
    package = importlib.import_module(f"unrecall.{kind}")
    assert all(isinstance(getattr(package, entry.owner), type) for entry in entries(kind))


OWN = """from unrecall.methods import RURK
class Mine(RURK):
    \"\"\"Does it.\"\"\"
    beta: float = 2.0
def make(size, *, name: str = "x"): ...
"""


def test_what_a_file_defines_is_told_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"raise SystemExit\n{OWN}")
    mine, make = (entry_of_file(f"{path}:{name}") for name in ("Mine", "make"))
    assert mine.summary == "Does it."
    assert {"tau", "fit", "beta"} <= {parameter.name for parameter in mine.parameters}
    assert make.parameters == (Parameter("size", "", ""), Parameter("name", "str", "'x'"))
    with pytest.raises(BadInput, match="expected it to define 'Mien', got none"):
        entry_of_file(f"{path}:Mien")
    path.write_text("def")
    with pytest.raises(BadInput, match="expected a Python file that can be read"):
        entry_of_file(f"{path}:Mine")
    with pytest.raises(BadInput, match=r"none\.py: expected a Python file, got none there\. Check the path\."):
        entry_of_file(f"{tmp_path / 'none.py'}:Mine")


def test_a_file_may_name_its_class_as_ours_and_arguments_as_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    text = "class SCRUB(SCRUB):\n    q: int = 1\nclass Mine(ur.methods.SCRUB):\n    q: int = 1\ndef f(a=1, /, b=2): ..."
    path.write_text(text)
    for name in ("SCRUB", "Mine"):
        assert {"q", "fit"} <= {parameter.name for parameter in entry_of_file(f"{path}:{name}").parameters}
    assert entry_of_file(f"{path}:f").parameters == (Parameter("a", "", "1"), Parameter("b", "", "2"))
