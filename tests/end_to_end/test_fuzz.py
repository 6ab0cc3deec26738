"""A small share of the fuzzer and of the kills; `make fuzz` and `make kills` do the whole."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.fuzz import KINDS, prepared, tried

FIRST, SHARE = 1008, 3
"""The first seed, and how many bad inputs a kind."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("template")
    (folder / "work").mkdir()
    prepared(folder / "work")
    yield folder


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_line_and_leaves_nothing(kind: str, template: Path, tmp_path: Path) -> None:
    for seed in range(FIRST, FIRST + SHARE):
        arguments, wrong = tried(kind, seed, template, tmp_path)
        assert not wrong, (seed, arguments, wrong)


def test_what_was_killed_ends_with_the_same_record(tmp_path: Path) -> None:
    """In a process of its own, which forks: each kill ends a child."""
    command = [sys.executable, "-m", "tests.end_to_end.kills", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    home = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "3 kills, after 0 of which something was wrong\n"
