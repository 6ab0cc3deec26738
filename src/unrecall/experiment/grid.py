"""A grid of methods and seeds over one scenario; a finished cell is never done again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread

from torch import nn

from unrecall.data.examples import digest, iterate
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.cache import shared
from unrecall.disk.files import check_writable, content_key, read_json, write_json
from unrecall.errors import BadInput, MissingDependency, error_line
from unrecall.experiment.goal import check_known
from unrecall.experiment.identity import CHECKPOINT, IDENTITY, check_checkpoint, finished, identity, rate_key
from unrecall.experiment.output import Unlearned, drop_parts, leave
from unrecall.experiment.run import StartingPoint, checkpoint_key, experiment, loaded, references
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.record.schema import Record, Run
from unrecall.scenarios.base import Builder, Scenario
from unrecall.spec.lines import parse, show
from unrecall.tasks.base import check_inputs
from unrecall.training.session import Session

TUNED_ON = "tuned-on.json"
"""What a tuned run leaves beside the checkpoint: the sha256 of each example of validation that tuning looked at."""
PATIENCE = 45.0
"""Seconds that Ray has to start, or a cluster to answer."""


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid, in words, so that it can travel to another machine.

    `scenario`, `method`, `suite`: as on the command line. `tuned`: whether the strength is searched first. `folder`:
    where its record goes, and the parts of it that are finished. `alone`: without retrained models, beside records that
    were never trained on; `rate`: the learning rate of that verdict's fine-tuning attacks. `anyway`: whether it goes on
    though the original doesn't know what it must forget. `show_examples`: whether the record holds what is to be
    forgotten.
    """

    scenario: str
    method: str
    suite: str
    seed: int
    tuned: bool
    folder: str
    device: str | None
    alone: bool = False
    rate: float | None = None
    anyway: bool = False
    show_examples: bool = False
    show: bool = True

    @property
    def session(self) -> Session:
        """Where its parts are kept, and on which device they are made."""
        return Session(Path(self.folder) / "parts", self.device, show=self.show)

    @property
    def record(self) -> Path:
        """The file of its record."""
        return Path(self.folder) / "record.json"


def scenario_of(text: str) -> Scenario:
    """The scenario that a line names: a built-in, or what a function of the user's file gives."""
    maker = parse(text, "scenarios")
    scenario = maker.make() if isinstance(maker, Builder) else maker()
    if not isinstance(scenario, Scenario):
        raise BadInput(f"'{text}': expected a Scenario, got {type(scenario).__name__}. See docs/own-scenario.md.")
    return scenario


def scenario_for(cell: Cell) -> Scenario:
    """The scenario of a cell; without retrained models where it is to be judged without."""
    scenario = scenario_of(cell.scenario)
    return replace(scenario, references=0, retrained=()) if cell.alone else scenario


def architecture(scenario: Scenario, seed: int, session: Session) -> nn.Module:
    """A model that a checkpoint can be loaded into; untrained where the scenario can build one."""
    if scenario.original is not None or scenario.build is None:
        return scenario.train_original(seed, session).model
    return scenario.built(seed, session)


def _check_known(cell: Cell, scenario: Scenario) -> None:
    """BadInput where a model that was given doesn't know what it must forget, unless the cell goes on anyway."""
    if scenario.original is not None and not cell.anyway:
        check_known(scenario.task, scenario.original, scenario.request)


def run_cell(cell: Cell) -> Record:
    """Runs one cell, or reads its record if it is finished; the parts of an unfinished one are taken up again."""
    scenario, method, attacks = scenario_for(cell), parse(cell.method, "methods"), suite(*cell.suite.split())
    session, folder = cell.session, Path(cell.folder)
    expected = identity(scenario, method, attacks.suiting(scenario.task), (cell.seed, session), cell.tuned)
    expected |= rate_key(cell.rate)
    if (before := finished(cell.record, expected)) is not None:
        drop_parts(folder)
        session.end()
        return before
    check_writable(cell.record, folder / CHECKPOINT)
    check_writable(folder / "parts" / "part", private=True)
    shared(on_disk=True).check()
    _check_known(cell, scenario)
    start = partial(experiment, scenario, method, attacks, cell.seed, session)
    record = start(tuned=cell.tuned, rate=cell.rate, show_examples=cell.show_examples).record
    chosen = method if record.tuning is None else method.scaled(record.tuning.chosen)
    files = [
        file
        for file in (folder / "parts").glob("unlearned-*.safetensors")  # one may be of the method before it was edited
        if weights.digest_of_file(file) == record.provenance.weights["unlearned"]
    ]
    for file in files[:1]:
        model = loaded(architecture(scenario, cell.seed, session), file)
        leave(Unlearned(model, chosen, cell.seed, record), scenario, folder)
    if not files:
        session.say("no checkpoint: the model's buffers change as it answers, so what was audited is no longer there")
    _leave_tuned_on(cell, scenario.request)
    record.save(cell.record)
    drop_parts(folder)
    session.end()
    return record


def unlearn_cell(cell: Cell) -> str:
    """Only the unlearned model of a cell, as a checkpoint in its folder; a line that names file, method and sha256."""
    scenario, method = scenario_of(cell.scenario), parse(cell.method, "methods")
    session, folder = cell.session, Path(cell.folder)
    expected = identity(scenario, method, (), (cell.seed, session), cell.tuned)
    check_checkpoint(folder, expected)
    check_writable(folder / CHECKPOINT, folder / IDENTITY)
    check_writable(folder / "parts" / "part", private=True)
    shared(on_disk=True).check()
    start = StartingPoint(scenario, scenario.train_original(cell.seed, session).model, cell.seed, session, cell.tuned)
    check_inputs(scenario.task, start.original, scenario.request)
    _check_known(cell, scenario)
    chosen = method.scaled(start.tuned(method).chosen) if cell.tuned else method
    unlearned = start.unlearned(chosen).model
    key, place = weights.digest_of(unlearned), leave(Unlearned(unlearned, chosen, cell.seed), scenario, folder)
    write_json(folder / IDENTITY, expected)
    _leave_tuned_on(cell, scenario.request)
    drop_parts(folder)
    session.end()
    return f"{place}  {show(chosen)}  sha256 {key}"


def _leave_tuned_on(cell: Cell, request: Request) -> None:
    """Leaves the digests of what tuning looked at in a tuned cell's folder, so that an audit can do without it."""
    if cell.tuned:
        validation = request.with_validation().validation or ()
        write_json(Path(cell.folder) / TUNED_ON, [digest(item) for item in iterate(validation)], private=True)


def audit_checkpoint(cell: Cell, model: Path, original: Path | None, retrained: Sequence[Path]) -> Record:
    """The audit of somebody else's checkpoint in place of a cell's method; models that aren't given are trained."""
    scenario, attacks, session = scenario_for(cell), suite(*cell.suite.split()), cell.session
    if (tuned_on := model.resolve().parent / TUNED_ON).is_file():
        scenario = replace(scenario, request=scenario.request.unseen(set(read_json(tuned_on))))
    expected = identity(scenario, None, attacks.suiting(scenario.task), (cell.seed, session)) | rate_key(cell.rate)
    checkpoints = [model, *([original] if original else []), *retrained]
    expected["checkpoints"] = content_key(*map(checkpoint_key, checkpoints))
    if (before := finished(cell.record, expected)) is not None:
        return before
    check_writable(cell.record)
    check_writable(Path(cell.folder) / "parts" / "part", private=True)
    shared(on_disk=True).check()
    like = architecture(scenario, cell.seed, session) if original else scenario.train_original(cell.seed, session).model
    source = loaded(like, original) if original else like
    after = loaded(source, model)
    scenario = replace(scenario, retrained=tuple(loaded(source, path) for path in retrained) or scenario.retrained)
    models = references(scenario, session)
    trained = [] if original or scenario.original is not None else ["the original"]
    if missing := len(models) - len(scenario.retrained):
        trained.append(f"{missing} of {len(models)} retrained models")
    if trained:
        session.say(f"not given, and so trained here: {' and '.join(trained)}")
    run = Run(
        scenario=scenario.name,
        summary=f"{scenario.summary} Trained for this audit, not given: {' and '.join(trained)}."
        if trained
        else scenario.summary,
        method=cell.method,
        title=f"Checkpoint {cell.method}",
        identity=expected,
    )
    record = audit(
        original=source,
        unlearned=after,
        retrained=[reference.model for reference in models],
        request=scenario.request,
        task=scenario.task,
        attacks=attacks,
        seed=cell.seed,
        session=session,
        run=run,
        rate=cell.rate,
        show_examples=cell.show_examples,
    )
    record.save(cell.record)
    session.end()
    return record


def run_cells(cells: Sequence[Cell], ray_address: str | None = None) -> tuple[list[Record], list[str]]:
    """All cells, here one after another, or as Ray tasks on a cluster ("local" starts one); lost cells are retried.

    Gives the records of those that finished, and a line for each that failed: the error of one cell doesn't stop the
    others. The error of an only cell is raised as it is.
    """
    if ray_address is None and len(cells) == 1:
        return [run_cell(cells[0])], []
    outcomes = [_attempt(cell) for cell in cells] if ray_address is None else _on_ray(cells, ray_address)
    records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    return records, [outcome for outcome in outcomes if isinstance(outcome, str)]


def _attempt(cell: Cell) -> Record | str:
    """The record of a cell, or the line that says why there is none."""
    return _outcome(lambda: run_cell(cell), cell)


def _outcome(make: Callable[[], Record | str], cell: Cell) -> Record | str:
    """What running a cell gives, or the line that says why it gives nothing."""
    try:
        return make()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's code raises, SystemExit too, is this cell's alone
        return f"{cell.method}, seed {cell.seed}: {error_line(error)}"


def _start(ray_starts: Callable[[], object], address: str) -> None:
    """Starts Ray, or joins its cluster; BadInput where it fails, or takes longer than `PATIENCE`."""
    failed: list[BaseException] = []

    def start() -> None:
        try:
            ray_starts()
        except BaseException as error:  # Ray raises what it likes, SystemExit too
            failed.append(error)

    thread = Thread(target=start, daemon=True)  # one that never ends doesn't keep the process from ending
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive() or failed:
        reason = error_line(failed[0]) if failed else f"no answer within {PATIENCE:g} seconds"
        raise BadInput(f"ray: expected to start it or to join the cluster at '{address}', got: {reason} Check --ray.")


def _on_ray(cells: Sequence[Cell], address: str) -> list[Record | str]:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("ray", "grid") from error
    _start(lambda: ray.init(address=None if address == "local" else address, log_to_driver=False), address)
    try:
        task = ray.remote(num_cpus=1, max_retries=3)(_attempt)
        tasks = [(cell, task.remote(cell)) for cell in cells]
        outcomes = [_outcome(partial(ray.get, task), cell) for cell, task in tasks]
    finally:
        ray.shutdown()
    return outcomes
