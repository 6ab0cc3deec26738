"""A grid of methods and seeds over one scenario; a finished cell is never done again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unrecall.auditing import Audit
from unrecall.errors import BadInput, MissingDependency, UnrecallError
from unrecall.records import Record, load
from unrecall.run import experiment
from unrecall.scenarios.base import Builder, Scenario
from unrecall.session import Session
from unrecall.spec import parse
from unrecall.storage import writing


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid, in words, so that it can travel to another machine."""

    scenario: str
    method: str
    attacks: tuple[str, ...]
    seed: int
    tuned: bool
    folder: str
    device: str | None
    show: bool

    @property
    def record(self) -> Path:
        """Where its record goes."""
        return Path(self.folder) / "record.json"


def attacks_of(names: Sequence[str]) -> Audit:
    """The audit that a list of words names: standard, quick, or attacks with their parameters."""
    if tuple(names) in (("standard",), ("all",)):
        return Audit.standard()
    if tuple(names) == ("quick",):
        return Audit.quick()
    return Audit(tuple(parse(name, "attacks") for name in names))


def scenario_of(text: str) -> Scenario:
    """The scenario that a line names: a built-in, or what a function of the user's file gives."""
    named = parse(text, "scenarios")
    made = named.make() if isinstance(named, Builder) else named()
    if not isinstance(made, Scenario):
        raise BadInput(f"'{text}': expected a Scenario, got {type(made).__name__}. See docs/own-case.md.")
    return made


def perform(cell: Cell) -> Record:
    """Runs one cell, or reads its record if it is finished; the parts of an unfinished one are taken up again."""
    if cell.record.exists():
        return load(cell.record)
    session = Session(folder=Path(cell.folder) / "parts", device=cell.device, show=cell.show)
    record = experiment(
        scenario_of(cell.scenario),
        parse(cell.method, "methods"),
        attacks_of(cell.attacks),
        cell.seed,
        session,
        tuned=cell.tuned,
    )
    for made in (Path(cell.folder) / "parts").glob("unlearned-*.safetensors"):
        with writing(Path(cell.folder) / "unlearned.safetensors") as temporary:
            shutil.copyfile(made, temporary)
    record.save(cell.record)
    return record


def perform_all(cells: Sequence[Cell], ray_address: str | None = None) -> list[Record]:
    """All cells, here one after another, or as Ray tasks on a cluster ("local" starts one); lost cells are retried.

    Errors of single cells don't stop the others: they are raised together at the end.
    """
    if ray_address is not None:
        return _on_ray(cells, ray_address)
    if len(cells) == 1:
        return [perform(cells[0])]
    records, failures = [], []
    for cell in cells:
        try:
            records.append(perform(cell))
        except UnrecallError as error:
            failures.append(f"{cell.method}, seed {cell.seed}: {error}")
    if failures:
        raise UnrecallError(f"{len(failures)} of {len(cells)} cells failed. First: {failures[0]}")
    return records


def _on_ray(cells: Sequence[Cell], address: str) -> list[Record]:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("ray", "grid") from error
    ray.init(address=None if address == "local" else address, log_to_driver=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=3)(perform)
        found: list[Record] = ray.get([task.remote(cell) for cell in cells])
    finally:
        ray.shutdown()
    return found
