"""Cells side by side give the records that they give one after another, and a killed process costs its cell alone."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_cli import CASE, METHOD, call
from unrecall.errors import BadInput
from unrecall.experiment import parallel
from unrecall.experiment.cell import Cell
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
    before, processes = threading.active_count(), parallel.Processes(1)
    assert processes.result(partial(killed_once, tmp_path / "flag")) != os.getpid()
    monkeypatch.setattr(parallel, "TRIES", 1)
    with pytest.raises(Lost, match="run the same command again"):
        processes.result(killed_always)
    processes.end()
    assert threading.active_count() == before, "one that is left may be woken while it closes"


# Ray.


def fake_ray(monkeypatch: pytest.MonkeyPatch, run: Callable[[Any, Any], Any], gpus: int = 0) -> list[dict[str, Any]]:
    """Ray as far as it is used, in this process; gives the resources that tasks ask for, as they do."""
    asked: list[dict[str, Any]] = []

    def remote(**resources: Any) -> Callable[[Any], Any]:
        asked.append(resources)
        return lambda function: types.SimpleNamespace(remote=lambda argument: task(function, argument))

    def task(function: Any, argument: Any) -> Any:
        done: Future[Any] = Future()
        try:
            done.set_result(run(function, argument))
        except Exception as error:
            done.set_exception(error)
        return types.SimpleNamespace(future=lambda: done)

    ray: Any = types.ModuleType("ray")
    ray.init, ray.shutdown, ray.remote = lambda **_: None, lambda: None, remote
    ray.cluster_resources = lambda: {"CPU": 2.0, "GPU": float(gpus)} if gpus else {"CPU": 2.0}
    monkeypatch.setitem(sys.modules, "ray", ray)
    return asked


def seeds(device: str | None) -> list[Cell]:
    return [Cell("none", "ssd", "quick", seed, False, "out", device) for seed in range(2)]


@pytest.mark.parametrize(("device", "gpus", "share"), [(None, 0, 0), (None, 2, 1), ("cpu", 2, 0), ("cuda", 2, 1)])
def test_a_task_of_ray_has_a_gpu_of_its_own_where_there_is_one(
    device: str | None, gpus: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    asked = fake_ray(monkeypatch, lambda function, cell: "no record", gpus)
    parallel._serve(seeds(device), "local", answers.append)
    assert answers[0] == ""
    assert dict(answers[1:]) == dict.fromkeys(seeds(device), "no record")
    assert [(ask["num_cpus"], ask["num_gpus"], ask["max_retries"]) for ask in asked] == [(1, share, 2)]


def test_a_worker_that_is_lost_has_its_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(function: Any, cell: Cell) -> str:
        if cell.seed == 1:
            raise RuntimeError("the worker died")
        return "no record"

    answers: list[Any] = []
    fake_ray(monkeypatch, run)
    parallel._serve(seeds("cpu"), "local", answers.append)
    assert answers[0] == "" and (seeds("cpu")[0], "no record") in answers
    (line,) = [outcome for _, outcome in answers[1:] if outcome != "no record"]
    assert line.startswith("ssd, seed 1: ") and "the worker died" in line


@pytest.mark.parametrize("error", [ConnectionError("no cluster"), SystemExit(0), None])
def test_ray_that_cant_start_says_why(error: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: Any) -> None:
        if error is not None:
            raise error

    answers: list[Any] = []
    fake_ray(monkeypatch, lambda function, cell: "no record")
    monkeypatch.setattr(sys.modules["ray"], "init", start)
    parallel._serve(seeds("cuda"), "local", answers.append)
    (line,) = answers
    assert (
        "no cluster" if isinstance(error, ConnectionError) else "SystemExit" if error else "without the GPU"
    ) in line


@pytest.mark.parametrize("answer", [None, "", "no cluster.", "silence"])
def test_ray_is_waited_for_less_than_a_minute(answer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parallel.PATIENCE < 60
    monkeypatch.setattr(parallel, "PATIENCE", 0.01)
    answers, there = multiprocessing.Pipe(duplex=False)
    if answer == "":
        there.send("")
        parallel._check_started(answers, "local")
        return
    if answer is None:
        there.close()
    elif answer != "silence":
        there.send(answer)
    reason = {None: "Ray ended at once", "silence": "no answer within 0.01 seconds"}.get(answer, answer)
    with pytest.raises(BadInput, match=rf"^--ray: expected .* 'local' .*{reason}.*Leave --ray out"):
        parallel._check_started(answers, "local")


def test_ray_that_ends_its_own_process_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("import os\nos._exit(1)")
    program = "from unrecall.cli.app import main\nif __name__ == '__main__': main()"
    (tmp_path / "cli.py").write_text(program)
    options = ["--scenario", "digits", "--methods", METHOD, "--out", str(tmp_path / "out")]
    command = [sys.executable, str(tmp_path / "cli.py"), "bench", *options, "--ray", "local"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --ray: expected Ray to start") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "Invalid value for '--jobs'"),
        (["--jobs", "2", "--ray", "local"], "--jobs: expected it without"),
    ],
)
def test_impossible_numbers_of_runs_at_once(
    options: list[str], message: str, cells: list[Cell], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", "--scenario", cells[0].scenario, "--out", str(tmp_path / "out"), *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def killed_in(cell: Cell) -> str:
    killed_once(Path(cell.folder))
    return f"{cell.title}: came after all"


def test_ray_tries_a_cell_again_whose_worker_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(parallel, "_attempt", killed_in)
    cells = [replace(cell, folder=str(tmp_path / str(cell.seed))) for cell in seeds("cpu")]
    answers: list[Any] = []
    parallel._serve(cells, "local", answers.append)
    assert sorted(answers[1:], key=str) == sorted(((c, f"{c.title}: came after all") for c in cells), key=str)
