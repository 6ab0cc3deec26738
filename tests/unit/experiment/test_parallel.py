"""Cells side by side give the records that they give one after another, and a killed process costs its cell alone."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.test_cli import CASE, METHOD
from unrecall.experiment import parallel
from unrecall.experiment.grid import Cell
from unrecall.experiment.parallel import Lost, run_cells
from unrecall.record.schema import Record


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Two seeds of one case, which share their retrained models."""
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "case.py").write_text(CASE)
    return [
        Cell(f"{tmp_path}/case.py:make", METHOD, "rmia", n, False, str(tmp_path / f"seed-{n}"), "cpu") for n in range(2)
    ]


def elsewhere(cells: list[Cell], folder: Path) -> list[Cell]:
    return [replace(cell, folder=str(folder / Path(cell.folder).name)) for cell in cells]


def numbers(records: list[Record]) -> list[object]:
    """All that was measured but time and memory."""
    return [[str(m) for m in record.measurements if not m.name.startswith("cost_")] for record in records]


def test_several_at_once_are_as_one_after_another(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    side_by_side, failures = run_cells(cells, jobs=2)
    assert failures == []
    told = capfd.readouterr().err
    assert "run 1 of 2: " in told and "run 2 of 2: " in told and "; about " in told
    trained = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "cache").glob("*.safetensors"))
    assert trained == ["tiny-original"] * 2 + ["tiny-retrained"] * 2
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "other cache"))
    serially, _ = run_cells(elsewhere(cells, tmp_path / "serial"))
    assert numbers(side_by_side) == numbers(serially)
    assert [record.seed for record in side_by_side] == [0, 1]


def killed_once(flag: Path) -> int:
    """Kills its process the first time, and gives the number of another the second time."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def killed_always() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_whose_process_is_killed_is_tried_again_and_given_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = parallel.Processes(1)
    assert processes.result(partial(killed_once, tmp_path / "flag")) != os.getpid()
    monkeypatch.setattr(parallel, "TRIES", 1)
    with pytest.raises(Lost, match="run the same command again"):
        processes.result(killed_always)
    processes.end()
