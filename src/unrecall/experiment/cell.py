"""One run of a method on a scenario, with its files: a cell of a grid. A finished one is never done again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from unrecall.disk import weights
from unrecall.disk.cache import shared
from unrecall.disk.files import check_writable, content_key
from unrecall.disk.json_files import write_json
from unrecall.errors import BadInput
from unrecall.experiment.against import Against
from unrecall.experiment.case import Case
from unrecall.experiment.checkpoints import checkpoint_key, load_checkpoint
from unrecall.experiment.doctor import beforehand
from unrecall.experiment.goal import check_memorised
from unrecall.experiment.output import Unlearned, drop_parts, save_unlearned
from unrecall.experiment.run import experiment, retrained_models
from unrecall.experiment.run_identity import CHECKPOINT, IDENTITY, check_checkpoint, finished, identity, rate_key
from unrecall.experiment.seeds import Seeds
from unrecall.experiment.starting_point import StartingPoint
from unrecall.experiment.tuned_on import LOST, looked_at, tuned_on
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.methods.base import Method
from unrecall.record.schema import Record, Run
from unrecall.scenarios.base import Builder, Scenario
from unrecall.spec.lines import parse, show, taken_apart
from unrecall.tasks.base import check_inputs
from unrecall.tasks.protocols import check_folders
from unrecall.training.session import Session


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid, in words, so that it can travel to another machine.

    `scenario`, `method`, `suite`: as on the command line. `seed`: one for all that chance decides, or one for each
    level. `tuned`: whether the strength is searched first, or against which attack. `folder`: where its record goes,
    and its finished parts. `alone`: without retrained models, beside records that were never trained on; `rate`: the
    learning rate of that verdict's fine-tuning attacks. `anyway`: whether it goes on though the original doesn't know
    what it must forget. `show_examples`: whether the record holds what is to be forgotten. `show`: whether progress is
    printed. `note`: what its record says beside the scenario's summary.
    """

    scenario: str
    method: str
    suite: str
    seed: int | Seeds
    tuned: bool | Against
    folder: str
    device: str | None
    alone: bool = False
    rate: float | None = None
    anyway: bool = False
    show_examples: bool = False
    show: bool = True
    note: str = ""

    @property
    def seeds(self) -> Seeds:
        """Of training, unlearning and evaluation."""
        return Seeds.of(self.seed)

    @property
    def session(self) -> Session:
        """Where its parts are kept, and on which device they are made."""
        return Session(Path(self.folder) / "parts", self.device, show=self.show)

    @property
    def record_path(self) -> Path:
        """The file of its record."""
        return Path(self.folder) / "record.json"

    @property
    def title(self) -> str:
        """How it is called in what people read."""
        return f"{self.method}, seed {self.seeds.evaluation}"


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
    if cell.note:
        scenario = replace(scenario, summary=f"{scenario.summary.rstrip('. ')}. {cell.note}")
    return replace(scenario, references=0, retrained=()) if cell.alone else scenario


def architecture(scenario: Scenario, seed: int, session: Session) -> nn.Module:
    """A model that a checkpoint can be loaded into: the scenario's own, or an untrained one."""
    if scenario.original is not None:
        return scenario.train_original(seed, session).model
    if scenario.build is None:
        raise BadInput(
            f"{scenario.name}: expected build, which gives the network that the weights of --original go into, got "
            "none. Give the Scenario build=..., a function of seed and session; it needs no recipe for that."
        )
    return scenario.untrained_model(seed, session)


def _check_memorised(cell: Cell, scenario: Scenario) -> None:
    """BadInput where a model that was given doesn't know what it must forget, unless the cell goes on anyway."""
    if scenario.original is not None and not cell.anyway:
        check_memorised(scenario.task, scenario.original, scenario.request)


def _check_places(cell: Cell, *files: Path) -> None:
    """BadInput where these files, the parts of a cell, or the cache can't be written: before anything is computed."""
    check_writable(*files)
    check_writable(Path(cell.folder) / "parts" / "part", private=True)
    shared(on_disk=True).check()


def run_cell(cell: Cell) -> Record:
    """Runs one cell, or reads its record if it is finished; the parts of an unfinished one are taken up again."""
    scenario, method, attacks = scenario_for(cell), parse(cell.method, "methods"), suite(*cell.suite.split())
    session, folder = cell.session, Path(cell.folder)
    expected = identity(scenario, method, attacks.suiting(scenario.task), cell.seeds, session, cell.tuned)
    expected |= rate_key(cell.rate)
    if (before := finished(cell.record_path, expected)) is not None:
        drop_parts(folder)
        session.end()
        return before
    _check_places(cell, cell.record_path, folder / CHECKPOINT)
    _check_memorised(cell, scenario)
    if scenario.note:
        session.say(f"note: {scenario.note}")
    if cell.show:
        case = Case(scenario, method, (), Session(device=cell.device), cell.tuned, cell.seeds.training)
        for line in beforehand(case):
            session.say(line)
    record = experiment(
        scenario,
        method,
        attacks,
        cell.seeds,
        session,
        tuned=cell.tuned,
        rate=cell.rate,
        show_examples=cell.show_examples,
    ).record
    _save_audited(cell, scenario, method, record, session)
    record.save(cell.record_path)
    drop_parts(folder)
    session.end()
    return record


def _save_audited(cell: Cell, scenario: Scenario, method: Method, record: Record, session: Session) -> None:
    """Writes the model that was audited into the cell's folder, from its parts; without it, says why it isn't there."""
    folder = Path(cell.folder)
    chosen = method if record.tuning is None else method.scaled(record.tuning.chosen)
    files = (folder / "parts").glob("unlearned-*.safetensors")  # one may be of the method before it was edited
    audited = record.provenance.weights["unlearned"]
    file = next((file for file in files if weights.digest_of_file(file) == audited), None)
    if file is None:
        session.say("no checkpoint: the model's buffers change as it answers, so what was audited is no longer there")
        return
    model = load_checkpoint(architecture(scenario, cell.seeds.training, session), file)
    tuned_by = looked_at(scenario.request) if cell.tuned else []
    save_unlearned(Unlearned(model, chosen, cell.seeds.unlearning, record, tuned_by), scenario, folder)


def unlearn_cell(cell: Cell) -> str:
    """Only the unlearned model of a cell, as a checkpoint in its folder; a line that names file, method and sha256."""
    scenario, method = scenario_of(cell.scenario), parse(cell.method, "methods")
    session, folder = cell.session, Path(cell.folder)
    expected = identity(scenario, method, (), cell.seeds, session, cell.tuned)
    check_checkpoint(folder, expected)
    _check_places(cell, folder / CHECKPOINT, folder / IDENTITY)
    original = scenario.train_original(cell.seeds.training, session).model
    start = StartingPoint(scenario, original, cell.seeds.unlearning, session, cell.tuned)
    check_inputs(scenario.task, start.original, scenario.request)
    _check_memorised(cell, scenario)
    chosen = method.scaled(start.tuning(method).chosen) if cell.tuned else method
    unlearned = start.unlearned(chosen).model
    tuned_by = looked_at(scenario.request) if cell.tuned else []
    place = save_unlearned(Unlearned(unlearned, chosen, cell.seeds.unlearning, tuned_by=tuned_by), scenario, folder)
    write_json(folder / IDENTITY, expected)
    drop_parts(folder)
    session.end()
    return f"{place}  {show(chosen)}  sha256 {weights.digest_of(unlearned)}"


def _without_tuned_on(scenario: Scenario, models: Sequence[Path], session: Session) -> Scenario:
    """The scenario without what checkpoints' strengths were tuned on; its summary says where nobody knows that."""
    for model in models:
        tuning = tuned_on(model)
        if tuning.lost:
            warning = LOST.format(model.name)
            session.say(f"warning: {warning} Copy it from the folder of the run.")
            scenario = replace(scenario, summary=f"{scenario.summary} {warning}")
        elif tuning.digests:
            scenario = replace(scenario, request=scenario.request.unseen(tuning.digests))
    return scenario


def _given(cell: Cell, original: Path | None) -> list[Path]:
    """The checkpoint of the original that somebody gave, on its own or as the model of the scenario; or none."""
    place = original or taken_apart(cell.scenario).values.get("model")
    return [Path(place)] if place and Path(place).exists() else []


def audit_checkpoint(cell: Cell, model: Path, original: Path | None, retrained: Sequence[Path]) -> Record:
    """The audit of somebody else's checkpoint in place of a cell's method; models that aren't given are trained."""
    attacks, session = suite(*cell.suite.split()), cell.session
    scenario = _without_tuned_on(scenario_for(cell), [model, *_given(cell, original)], session)
    expected = identity(scenario, None, attacks.suiting(scenario.task), cell.seeds, session) | rate_key(cell.rate)
    own = checkpoint_key(original) if original else ""
    expected["checkpoints"] = content_key(checkpoint_key(model), own, *map(checkpoint_key, retrained))
    if (before := finished(cell.record_path, expected)) is not None:
        return before
    _check_places(cell, cell.record_path)
    check_folders(scenario.task, scenario.request, model, *retrained, *filter(None, [original]))
    if scenario.note:
        session.say(f"note: {scenario.note}")
    seed = cell.seeds.training
    like = architecture(scenario, seed, session) if original else scenario.train_original(seed, session).model
    source = load_checkpoint(like, original) if original else like
    after = load_checkpoint(source, model)
    scenario = replace(
        scenario, retrained=tuple(load_checkpoint(source, path) for path in retrained) or scenario.retrained
    )
    models = retrained_models(scenario, session)
    if trained := _trained_here(scenario, original, len(models)):
        session.say(f"not given, and so trained here: {' and '.join(trained)}")
    own_models = f" Trained for this audit, not given: {' and '.join(trained)}." if trained else ""
    run = Run(
        scenario=scenario.name,
        summary=scenario.summary + own_models,
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
        seed=cell.seeds.evaluation,
        session=session,
        run=run,
        rate=cell.rate,
        show_examples=cell.show_examples,
    )
    record.save(cell.record_path)
    session.end()
    return record


def _trained_here(scenario: Scenario, original: Path | None, models: int) -> list[str]:
    """Which models of an audit were trained for it, as nobody gave them, in words; `models`: how many retrained."""
    trained = [] if original or scenario.original is not None else ["the original"]
    if missing := models - len(scenario.retrained):
        trained.append(f"{missing} of {models} retrained models")
    return trained
