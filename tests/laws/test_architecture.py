"""Imports go one way, modality stays in its adapter, and what needs no torch doesn't load it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unrecall

ROOT = Path(unrecall.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

ROOMS = (
    "cli",
    "experiment",
    "report",
    "harness",
    "metrics",
    "attacks",
    "methods",
    "scenarios",
    "evidence",
    "training",
    "models",
    "tasks",
    "record",
    "data",
    "nn",
    "spec",
    "disk",
)
"""From the top down: a file imports from its own room, from rooms below it, and errors."""
HEIGHT = {name: -depth for depth, name in enumerate([*ROOMS, "errors"])}
ROOT_MODULES = {"__init__", "__main__", "errors"}

SIBLINGS = {
    "methods": {"base", "grad_diff", "npo", "random_label"},  # default bases of SSIUU, LoRA and SalUn
    "attacks": {"base", "deletion", "inspection", "lira", "min_k"},
    "metrics": {"base", "forgetting", "truth", "utility"},
    "tasks": {
        "base",
        "classification",
        "conversations",
        "dual_encoder",
        "generation",
        "hook_key",
        "input_difficulty",
        "interactions",
        "labelled",
        "pairs",
        "pictures",
        "pretrained",
        "processors",
        "protocols",
        "record_keys",
        "strings",
        "text_difficulty",
        "templates",
        "text_files",
        "tokenised",
        "zero_shot",
    },
    "scenarios": {
        "base",
        "choice",
        "cifar_data",
        "classifiers",
        "corruptions",
        "digits",
        "emoji",
        "hub",
        "image_text",
        "language",
        "llama2c",
        "model_cache",
        "networks",
        "own_classifiers",
        "own_files",
        "paper_tables",
        "ratings",
        "recommenders",
        "teaching",
    },
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> Iterator[str]:
    """Every module of unrecall that a file imports anywhere, by its name below the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "unrecall":
            home = (node.module or "").removeprefix("unrecall").lstrip(".")
            for alias in node.names:
                longer = f"{home}.{alias.name}".lstrip(".")
                there = ROOT.joinpath(*longer.split("."))
                yield longer if there.is_dir() or there.with_suffix(".py").exists() else home
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("unrecall.") for a in node.names if a.name.startswith("unrecall."))


def test_every_file_stands_in_a_room() -> None:
    assert {name_of(path).split(".")[0] for path in FILES} == {*ROOMS, *ROOT_MODULES}


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != ROOT], ids=name_of)
def test_imports_go_down(path: Path) -> None:
    room, _, stem = name_of(path).partition(".")
    for module in filter(None, imported(path)):
        other, _, leaf = module.partition(".")
        if other != room:
            assert other in ("__init__", *HEIGHT), f"{name_of(path)} imports {module}"
            assert HEIGHT[other] < HEIGHT[room], f"{name_of(path)} imports {module}"
        elif stem not in ("__init__", "") and room in SIBLINGS:
            assert leaf in SIBLINGS[room], f"{name_of(path)} imports its sibling {module}"


def test_no_circle_of_imports() -> None:
    wanted = {name_of(path): {name for name in imported(path) if name} for path in FILES}
    done: set[str] = set()

    def visit(name: str, on_the_way: tuple[str, ...]) -> None:
        assert name not in on_the_way, " -> ".join((*on_the_way, name))
        if name not in done:
            for other in wanted.get(name, ()):
                visit(other, (*on_the_way, name))
            done.add(name)

    for path in FILES:
        if path.name != "__init__.py":
            visit(name_of(path), ())


def test_the_page_reads_records_and_nothing_else() -> None:
    for path in (ROOT / "report").glob("*.py"):
        assert {module.split(".")[0] for module in imported(path)} <= {"record", "errors", "disk", "report"}


def test_only_the_loop_makes_optimisers() -> None:
    for path in FILES:
        if path != ROOT / "training" / "loop.py":
            assert not re.search(r"torch\.optim\.\w+\(|import torch\.optim|from torch import optim", path.read_text())


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Names and texts of the code itself: no comments, no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.keyword | ast.FunctionDef | ast.ClassDef):
            name = {"Name": "id", "Attribute": "attr"}.get(type(node).__name__) or (
                "arg" if isinstance(node, ast.arg | ast.keyword) else "name"
            )
            yield getattr(node, "lineno", 0), str(getattr(node, name))


MODALITY = re.compile(r"(?<![a-z])(images?|pixels?|tokens?|captions?)(?![a-z])", re.IGNORECASE)


def test_only_tasks_scenarios_and_the_page_know_a_modality() -> None:
    """A record may hold an exhibit with a caption: that is its noun for what a task made for people to look at."""
    known = ("tasks.", "scenarios.", "report.")
    found = [
        f"{name_of(path)}:{line}: {text}"
        for path in FILES
        if not name_of(path).startswith(known)
        for line, text in words(path)
        if MODALITY.search(text.replace("_", " ")) and (name_of(path), text) != ("record.schema", "caption")
    ]
    assert not found


LIST = "import unrecall.cli.app as c\ntry: c.main(['list', 'attacks'])\nexcept SystemExit as e: assert e.code == 0"
READ = (
    "import unrecall.record.schema, unrecall.report, unrecall.record.recheck, unrecall.disk.run_folder, "
    "unrecall.spec.parameters"
)


@pytest.mark.parametrize("code", [LIST, READ], ids=["list", "report"])
def test_what_needs_no_torch_does_not_load_it(code: str) -> None:
    script = f"import sys\n{code}\nheavy = sorted({{'torch', 'accelerate', 'plotly', 'ray'}} & sys.modules.keys())\n"
    command = [sys.executable, "-c", script + "assert not heavy, heavy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            heavy = {"ray", "torchvision", "transformers", "timm", "peft", "datasets", "accelerate", "PIL"}
            heavy |= {"torch_geometric"}
            assert heavy.isdisjoint(name.split(".")[0] for name in names), name_of(path)
