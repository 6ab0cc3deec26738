"""How much a reader must hold at once: short functions, few parameters, few modules in the root, one cache.

`python -m tests.laws.test_shape` prints the figures and the functions behind them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import unrecall

ROOT = Path(unrecall.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
CLUMP = {"models", "original", "request", "task", "seen", "seed", "generator", "session"}
"""What a function should get in one piece: a job or a setting."""
PUBLIC = {"harness.audit.audit", "experiment.run.experiment", "experiment.forget.forget"}
"""Functions for users, who name each argument."""


class Function(NamedTuple):
    """A function or method: its dotted name, its parameters but self and cls, and its lines."""

    name: str
    parameters: tuple[str, ...]
    lines: int


def functions() -> Iterator[Function]:
    """All functions of the package but the verbs of the command line, whose parameters are options."""
    for path in FILES:
        place = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = tuple(a.arg for a in arguments if a.arg not in ("self", "cls"))
                name = f"{place}.{node.name}"
                if not place.startswith("cli.") and name not in PUBLIC:
                    yield Function(name, names, (node.end_lineno or 0) - node.lineno + 1)


def wide() -> list[str]:
    """Functions with six or more parameters."""
    return [f"{one.name}: {len(one.parameters)}" for one in functions() if len(one.parameters) >= 6]


def clumped() -> list[str]:
    """Functions that carry four or more of what belongs in one piece."""
    return [one.name for one in functions() if len(CLUMP & set(one.parameters)) >= 4]


def long() -> list[str]:
    """Functions of more than 50 lines."""
    return [f"{one.name}: {one.lines}" for one in functions() if one.lines > 50]


def questions() -> list[str]:
    """Places outside tasks that ask a task what it is."""
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        if path.parent.name != "tasks"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"isinstance\((\w+\.)*task,", line)
    ]


def caches() -> list[str]:
    """Files that keep values under a key: those that name the folder of the cache, or look whether such a file exists.

    The state of an unfinished training (training/resume.py), the folder of a run (disk/run_folder.py) and the look at a
    finished record (experiment/run_identity.py) are no caches.
    """
    none = ("resume.py", "run_folder.py", "run_identity.py")
    own = re.compile(r"cache_folder\(\)|if (not )?path\.exists\(\)")
    return [
        str(path.relative_to(ROOT))
        for path in FILES
        if own.search(path.read_text(encoding="utf-8")) and path.name not in none
    ]


FIGURES = {
    "modules in the root": (lambda: [path.name for path in FILES if path.parent == ROOT], 4),
    "functions with six or more parameters": (wide, 15),
    "functions that carry four of the clump": (clumped, 0),
    "functions of more than 50 lines": (long, 0),
    "questions about a task outside tasks": (questions, 5),
    "caches": (caches, 1),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures(name: str) -> None:
    count, most = FIGURES[name]
    found = count()
    assert len(found) <= most, found


if __name__ == "__main__":
    for title, (count, most) in FIGURES.items():
        places = count()
        print(f"{title}: {len(places)} (at most {most})")
        for place in places:
            print(f"  {place}")
    print("lines of source:", sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES))
