"""The cells of a grid one after another, several at once in processes of this machine, or as tasks of Ray."""

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import torch

from unrecall.errors import BadInput, MissingDependency, UnrecallError, error_line
from unrecall.experiment.cell import Cell, run_cell, scenario_for
from unrecall.record.schema import Record
from unrecall.training.session import Session, duration

TRIES = 3
"""How often a cell is tried whose process was killed."""
PATIENCE = 45.0
"""Seconds that Ray has to start, or a cluster to answer."""
SILENCE = 300.0
"""Seconds after which somebody who waits for Ray is told so."""
GRACE = 10.0
"""Seconds that Ray has to end."""

Result: TypeAlias = Record | str
"""The record of a cell, or the line that says why there is none."""
T = TypeVar("T")


class Lost(UnrecallError):
    """The process that a cell ran in was killed, each time that it was tried."""


@dataclass(frozen=True)
class SharedModel:
    """A model that several cells need, kept in the cache once it is trained: the original, or a retrained one.

    `cell`: one that needs it, and so can't end before it is there. `retrained`: its index; None for the original.
    """

    cell: Cell
    retrained: int | None


def run_cells(cells: Sequence[Cell], jobs: int = 1, ray_address: str | None = None) -> tuple[list[Record], list[str]]:
    """All cells: `jobs` at once on this machine, or as Ray tasks on a cluster ("local" starts one).

    Gives the records of those that finished, and a line for each that failed: the error of one cell doesn't stop the
    others, and one whose process is killed is tried again. The error of an only cell is raised as it is.
    """
    cells = list(dict.fromkeys(cells))
    if ray_address is None and len(cells) == 1:
        return [run_cell(cells[0])], []
    started, outcomes = time.monotonic(), dict[Cell, Result]()
    for cell, outcome in _as_they_end(cells, jobs, ray_address):
        outcomes[cell] = outcome
        rounds = math.ceil((len(cells) - len(outcomes)) / jobs) if ray_address is None else len(cells) - len(outcomes)
        left = (time.monotonic() - started) / math.ceil(len(outcomes) / jobs) * rounds
        ended = "done" if isinstance(outcome, Record) else "failed"
        rest = f"; about {duration(left)} left" if left else ""
        _say(cell, f"run {len(outcomes)} of {len(cells)}: {cell.title} {ended}{rest}")
    in_order = [outcomes[cell] for cell in cells]
    records = [outcome for outcome in in_order if isinstance(outcome, Record)]
    return records, [outcome for outcome in in_order if isinstance(outcome, str)]


def _say(cell: Cell, line: str) -> None:
    """A line for the person who waits, wherever the cell runs."""
    Session(show=cell.show).say(line)


def _as_they_end(cells: Sequence[Cell], jobs: int, ray_address: str | None) -> Iterator[tuple[Cell, Result]]:
    """Each cell and what came of it, in the order in which they end."""
    if ray_address is not None:
        yield from _on_ray(cells, ray_address)
    elif jobs > 1:
        yield from _in_processes(cells, jobs)
    else:
        for cell in cells:
            yield cell, _attempt(cell)


def _attempt(cell: Cell) -> Result:
    """The record of a cell, or the line that says why there is none."""
    return _outcome(lambda: run_cell(cell), cell)


def _outcome(make: Callable[[], Result], cell: Cell) -> Result:
    """What running a cell gives, or the line that says why it gives nothing."""
    try:
        return make()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's code raises, SystemExit too, is this cell's alone
        return f"{cell.title}: {error_line(error)}"


def _shared_models(cells: Sequence[Cell]) -> list[SharedModel]:
    """The models that these cells share, so that they are trained at once and not by one cell after another.

    None where that can't be said: the cells themselves then say what is wrong.
    """
    waiting = [replace(cell, show=False) for cell in cells if not cell.record_path.is_file()]
    if len(waiting) < 2:
        return []
    try:
        scenario = scenario_for(waiting[0])
    except KeyboardInterrupt:
        raise
    except BaseException:  # as in `_outcome`
        return []
    seeds = {cell.seeds.training: cell for cell in reversed(waiting)} if scenario.original is None else {}
    missing = range(len(scenario.retrained), scenario.retrained_count)
    models = [SharedModel(cell, None) for _, cell in sorted(seeds.items())]
    return models + [SharedModel(waiting[i % len(waiting)], i) for i in missing]


def _train(model: SharedModel) -> None:
    """Trains a model, unless it is in the cache. What goes wrong is said by each cell that needs it."""
    cell = model.cell
    scenario, session = scenario_for(cell), cell.session
    if model.retrained is None:
        scenario.train_original(cell.seeds.training, session)
    else:
        scenario.train_retrained(model.retrained, session)


def _ended(futures: Mapping["Future[Result]", Cell]) -> Iterator[tuple[Cell, Result]]:
    """The cells as they end, each with its outcome."""
    for future in as_completed(futures):
        yield futures[future], _outcome(future.result, futures[future])


# Several processes of this machine.


def _in_processes(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Result]]:
    """So many cells at once, each in a process of its own, with as many threads as this one has."""
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    jobs = min(jobs, len(cells))
    if 1 < cores < jobs * threads:
        _say(
            cells[0],
            f"{jobs} runs at once, each with {threads} threads, on {cores} cores: faster with "
            f"OMP_NUM_THREADS={max(1, cores // jobs)} set, which may change the last digits",
        )
    processes, threads_here = Processes(jobs), ThreadPoolExecutor(jobs)
    try:
        for model in _shared_models(cells):
            threads_here.submit(processes.result, partial(_train, model))
        works = {cell: partial(_attempt, replace(cell, show=False)) for cell in cells}
        yield from _ended({threads_here.submit(processes.result, work): cell for cell, work in works.items()})
    finally:
        processes.end()
        threads_here.shutdown(cancel_futures=True)


class Processes:
    """So many other processes, for work that threads of this one wait for; one that is killed takes no other along."""

    def __init__(self, count: int) -> None:
        self.idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        self.started: list[ProcessPoolExecutor] = []
        self.ended = False
        for _ in range(count):
            self.idle.put(self._new())

    def result(self, work: Callable[[], T]) -> T:
        """What the work gives in one of the processes; where that is killed, in a new one, and `Lost` in the end."""
        for _ in range(TRIES):
            process = self.idle.get()
            try:
                return process.submit(work).result()
            except BrokenProcessPool:
                process = self._new()
            finally:
                self.idle.put(process)
            if self.ended:
                break
        raise Lost(f"its process was killed, {TRIES} times. Give it more memory, or run the same command again.")

    def end(self) -> None:
        """Ends all of them, in the midst of their work."""
        self.ended = True
        for process in multiprocessing.active_children():
            process.terminate()
        for pool in self.started:  # or the interpreter may wake a pool while that closes, and print a traceback
            pool.shutdown()

    def _new(self) -> ProcessPoolExecutor:
        """A process that starts with its first work, with as many threads as this one has."""
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _settle, (torch.get_num_threads(),))
        self.started.append(pool)
        return pool


def _settle(threads: int) -> None:
    """Gives a new process its threads, and lets it end when the one that started it does."""
    torch.set_num_threads(threads)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: BaseProcess) -> None:
    """Ends this process when another one has ended."""
    process.join()
    os._exit(1)


# Ray.


def _on_ray(cells: Sequence[Cell], address: str) -> Iterator[tuple[Cell, Result]]:
    """The cells as tasks of Ray, which a process of its own speaks with: Ray ends the one that it can't serve.

    BadInput where Ray doesn't start, or its cluster doesn't answer, within `PATIENCE`.
    """
    if find_spec("ray") is None:
        raise MissingDependency("ray", "grid")
    spawn = multiprocessing.get_context("spawn")
    answers, there = spawn.Pipe(duplex=False)
    driver = spawn.Process(target=_drive, args=(cells, address, there, torch.get_num_threads()))
    driver.start()
    there.close()
    try:
        _check_started(answers, address)
        waiting = dict.fromkeys(cells)
        with suppress(EOFError):
            while waiting:
                while not answers.poll(SILENCE):
                    _say(cells[0], f"{len(waiting)} of {len(cells)} runs are still with Ray")
                cell, outcome = answers.recv()
                del waiting[cell]
                yield cell, outcome
            driver.join(GRACE)
        for cell in waiting:
            yield (
                cell,
                f"{cell.title}: Ray ended before it did. The same command tries it again, and without --ray too.",
            )
    finally:
        driver.terminate()
        driver.join(1)
        driver.kill()


def _check_started(answers: Connection, address: str) -> None:
    """BadInput unless the driver says in time that Ray has started."""
    try:
        reason = answers.recv() if answers.poll(PATIENCE) else f"no answer within {PATIENCE:g} seconds."
    except EOFError:
        reason = "Ray ended at once."
    if reason:
        raise BadInput(
            f"--ray: expected Ray to start, or the cluster at '{address}' to answer, got: {reason} Leave --ray out: "
            "the runs then go one after another, or with --jobs several at once."
        )


def _drive(cells: Sequence[Cell], address: str, answers: Connection, threads: int) -> None:
    """`_serve` in a process of its own, whose answers go to the one that started it."""
    _settle(threads)
    if "UNRECALL_TRACEBACK" not in os.environ:  # what Ray says of itself is long, and in a log of its own too
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _serve(cells, address, answers.send)


def _serve(cells: Sequence[Cell], address: str, answer: Callable[[Any], None]) -> None:
    """Answers why Ray didn't start, or nothing where it did, and then each cell with its outcome as it ends."""
    try:
        import ray

        ray.init(address=None if address == "local" else address, log_to_driver=False)
        gpus = ray.cluster_resources().get("GPU", 0)
        if cells[0].device == "cuda" and not gpus:
            raise BadInput("a cluster without the GPU that --device cuda asks for.")
    except BaseException as error:  # Ray raises what it likes, SystemExit too
        answer(error_line(error))
        return
    answer("")
    own = ray.remote(num_cpus=1, num_gpus=1 if gpus and cells[0].device != "cpu" else 0, max_retries=TRIES - 1)
    train, attempt = own(_train), own(_attempt)
    models = [train.remote(model) for model in _shared_models(cells)]  # a task that nobody holds is dropped
    for end in _ended({attempt.remote(replace(cell, show=False)).future(): cell for cell in cells}):
        answer(end)
    del models
    ray.shutdown()
