"""The command line: demo, list, run, unlearn, audit, bench, report, check, cache, cli/trust.py. Heavy imports wait."""

import json
import os
import sys
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unrecall.cli import options, trust
from unrecall.cli.launched import works
from unrecall.cli.options import (
    Budget,
    Device,
    FailOn,
    Jobs,
    MethodName,
    Out,
    ScenarioName,
    SuiteName,
    Tune,
    check_names,
    labels,
)
from unrecall.cli.output import complain, complain_of
from unrecall.cli.output import say as _say
from unrecall.errors import BadInput, UnrecallError, error_line, nearest, of_users_code
from unrecall.spec.catalog import CATALOGS, Entry, entries


class Commands(TyperGroup):
    """The commands; whatever one of them raises is an error that can be told in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command. Typer's own ways out pass, unless it is a user's code that takes one of them."""
        try:
            return super().invoke(ctx)
        except (UnrecallError, KeyboardInterrupt, BrokenPipeError):
            raise
        except BaseException as error:
            if "UNRECALL_TRACEBACK" in os.environ:
                traceback.print_exception(error)
            if isinstance(error, typer.Exit | typer.TyperException) and not of_users_code(error):
                raise
            raise UnrecallError(error_line(error)) from error


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a trained model forget, attack it to see whether it really did, and show the evidence.",
)

app.add_typer(trust.ledger, name="ledger")
for verb in (trust.plant, trust.attest, trust.verify):
    app.command()(verb)

DEMO = (
    ("hides", "grad_ascent:lr=0.004,epochs=25", False),
    ("forgets", "eu_k:blocks=3,lr=0.05,epochs=20", False),
    ("retrained", "retrain:lr=0.05,epochs=25,batch_size=64,weight_decay=0.0005,schedule=cosine", False),
)
"""Folder, method, and whether it is tuned: one hides and is caught, one forgets and passes, one is exact."""
DEMO_CASE = "digits:forget=mistakes:0.1"
"""A tenth of the pictures were entered under a wrong digit, and must go."""


@app.command()
def demo(out: Annotated[Path, typer.Option("--out", "-o")] = Path("unrecall-demo"), device: Device = "cpu") -> None:
    """Digits, some entered wrongly: train, retrain, forget these in three ways, attack, report; about a minute."""
    from unrecall.disk.run_folder import claimed
    from unrecall.experiment.grid import Cell

    with claimed(out, {"command": "demo"}) as folder:
        cells = [Cell(DEMO_CASE, line, "quick", 0, tuned, str(folder / name), device) for name, line, tuned in DEMO]
        _run_and_show(cells, folder, "")


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="methods, attacks, metrics or scenarios; or the name of one")] = "methods",
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable, with every parameter")] = False,
) -> None:
    """What there is, with parameters and defaults; of one, all that its page says."""
    catalog = next((entries(name) for name in CATALOGS if name == kind), None)
    if catalog is None:
        everything = [entry for name in CATALOGS for entry in entries(name)]
        catalog = tuple(entry for entry in everything if entry.name == kind.lower())
        if not catalog:
            hint = nearest(kind, [*CATALOGS, *(entry.name for entry in everything)], shown=CATALOGS)
            raise BadInput(f"list: expected {', '.join(CATALOGS)}, or the name of one, got '{kind}'. {hint}")
        if not as_json:
            _say("\n\n".join(f"{entry.name}\n\n{entry.text}" + _parameters(entry) for entry in catalog))
            return
    if as_json:
        described = [{k: v for k, v in asdict(entry).items() if k not in ("owner", "text")} for entry in catalog]
        _say(json.dumps(described, indent=1))
        return
    width = max(len(entry.name) for entry in catalog)
    for entry in catalog:
        _say(f"{entry.name:<{width}}  {entry.summary}")
        parameters = ", ".join(f"{p.name}={p.default or 'required'}" for p in entry.parameters)
        if kind != "metrics":  # a class, as Python calls it
            _say(f"{'':<{width}}    {entry.owner}({parameters})")


def _parameters(entry: Entry) -> str:
    """The parameters of a method, an attack or a scenario with their types and defaults, a line each."""
    lines = [f"  {p.name}: {p.type}" + (f" = {p.default}" if p.default else ", required") for p in entry.parameters]
    return "\n\nParameters:\n" + "\n".join(lines) if lines else ""


@app.command()
def run(
    method: MethodName,
    scenario: ScenarioName = "",
    model: options.ModelName = "",
    forget: options.Forget = "",
    retain: options.Retain = "",
    holdout: options.Holdout = "",
    test: options.Test = "",
    base: options.Base = "",
    adapter: options.Adapter = "",
    group: options.Group = "",
    control: options.HoldoutIs = "",
    manifest: options.ManifestFile = "",
    published: options.Published = "",
    lora: options.Lora = None,
    out: Out = Path("unrecall-run"),
    tune: Tune = None,
    against: options.AgainstAttack = "",
    kl: options.MostKl = None,
    measure: options.Measure = "shown",
    suite: SuiteName = "standard",
    seeds: options.Levels = "1",
    budget: Budget = "",
    jobs: Jobs = 1,
    device: Device = None,
    alone: options.Alone = False,
    rate: options.Rate = None,
    anyway: options.Anyway = False,
    show_examples: options.ShowExamples = False,
    fail_on: FailOn = "",
) -> None:
    """The whole line: original and retrained models, unlearning, audit, record and page."""
    own = options.own_texts(locals())
    from unrecall.disk.run_folder import claimed, content_keys
    from unrecall.experiment.grid import Cell
    from unrecall.experiment.seeds import seeds_of
    from unrecall.spec.lines import paths

    levels = seeds_of(seeds)
    search = options.against_attack(tune, against, kl, measure) or options.tunes(tune, method, own)
    scenario, method = options.scenario_line(scenario, **own), options.method_line(method, lora)
    check_names(scenario, method, suite, bool(search))
    labels(fail_on)
    command = {"command": "run", "scenario": scenario, "method": method, "tune": bool(search), "suite": suite}
    command |= options.basis(alone, rate, budget, search) | options.shown(show_examples)
    files = content_keys(*paths(scenario, method, *suite.split(), *against.split()))
    with claimed(out, command | {"files": files}) as folder:
        cell = Cell(scenario, method, suite, 0, search, str(folder), device, alone, rate, anyway)
        cell = replace(cell, show_examples=show_examples)
        cells = [replace(cell, seed=each, folder=str(folder / each.name)) for each in levels]
        _run_and_show(_within(cells, folder, budget), folder, fail_on, jobs)


@app.command()
def doctor(
    scenario: Annotated[str, typer.Argument(help="built-in[:key=value,...] or FILE.py:function")] = "",
    named: ScenarioName = "",
    method: Annotated[str, typer.Option("--method", "-m", help="the method that you mean to use")] = "grad_diff",
    model: options.ModelName = "",
    forget: options.Forget = "",
    retain: options.Retain = "",
    holdout: options.Holdout = "",
    test: options.Test = "",
    base: options.Base = "",
    adapter: options.Adapter = "",
    group: options.Group = "",
    lora: options.Lora = None,
    tune: Tune = None,
    against: options.AgainstAttack = "",
    kl: options.MostKl = None,
    measure: options.Measure = "shown",
    suite: SuiteName = "standard",
    device: Device = None,
    alone: options.Alone = False,
) -> None:
    """A case before it is run: every check, a step of everything, what can be concluded, and how long it takes."""
    own = options.own_texts(locals())
    if scenario and named:
        raise BadInput(f"doctor: expected one scenario, got '{scenario}' and --scenario '{named}'. Leave one out.")
    search = options.against_attack(tune, against, kl, measure) or options.tunes(tune, method, own)
    scenario, method = options.scenario_line(scenario or named, **own), options.method_line(method, lora)
    check_names(scenario, method, suite, bool(search))
    from unrecall.experiment.case import Case
    from unrecall.experiment.doctor import doctor as look
    from unrecall.experiment.grid import Cell, scenario_for
    from unrecall.harness.suites import suite as attacks
    from unrecall.spec.lines import parse
    from unrecall.training.session import Session

    case_scenario = scenario_for(Cell(scenario, method, suite, 0, False, "", device, alone=alone))
    if not isinstance(search, bool):
        search.attack_on(case_scenario.task, case_scenario.request.kind)
    suiting = attacks(*suite.split()).suiting(case_scenario.task)
    case = Case(case_scenario, parse(method, "methods"), suiting, Session(device=device, show=True), search)
    _say(f"{case_scenario.name}: {case_scenario.summary}")
    for line in look(case):
        _say(f"  {line.subject:<10} {line.text}")


@app.command()
def unlearn(
    method: MethodName,
    scenario: ScenarioName = "",
    model: options.ModelName = "",
    forget: options.Forget = "",
    retain: options.Retain = "",
    holdout: options.Holdout = "",
    test: options.Test = "",
    base: options.Base = "",
    adapter: options.Adapter = "",
    group: options.Group = "",
    control: options.HoldoutIs = "",
    manifest: options.ManifestFile = "",
    published: options.Published = "",
    lora: options.Lora = None,
    out: Out = Path("unrecall-unlearned"),
    tune: Tune = None,
    against: options.AgainstAttack = "",
    kl: options.MostKl = None,
    measure: options.Measure = "shown",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Device = None,
    anyway: options.Anyway = False,
) -> None:
    """A checkpoint only: OUT/unlearned.safetensors, or for a language model the Transformers folder OUT/unlearned."""
    own = options.own_texts(locals())
    search = options.against_attack(tune, against, kl, measure) or options.tunes(tune, method, own)
    scenario, method = options.scenario_line(scenario, **own), options.method_line(method, lora)
    check_names(scenario, method, "quick", bool(search))
    from unrecall.disk.run_folder import claimed, content_keys
    from unrecall.experiment.grid import Cell, unlearn_cell
    from unrecall.spec.lines import paths

    command = {"command": "unlearn", "scenario": scenario, "method": method, "tune": bool(search), "seed": seed}
    command |= options.basis(False, None, "", search)
    with claimed(out, command | {"files": content_keys(*paths(scenario, method, *against.split()))}) as folder:
        _say(unlearn_cell(Cell(scenario, method, "quick", seed, search, str(folder), device, anyway=anyway)))


@app.command()
def audit(
    unlearned: Annotated[
        Path,
        typer.Option(
            "--unlearned", help="the unlearned model: safetensors, a Transformers folder, or an adapter of PEFT"
        ),
    ],
    scenario: ScenarioName = "",
    original: Annotated[
        str,
        typer.Option(
            "--original", "--model", help="the model before; with texts a folder or hub id, else a checkpoint"
        ),
    ] = "",
    forget: options.Forget = "",
    retain: options.Retain = "",
    holdout: options.Holdout = "",
    test: options.Test = "",
    base: options.Base = "",
    adapter: options.Adapter = "",
    group: options.Group = "",
    control: options.HoldoutIs = "",
    manifest: options.ManifestFile = "",
    published: options.Published = "",
    retrained: Annotated[
        list[Path] | None, typer.Option("--retrained", help="a retrained model, as --unlearned; repeat")
    ] = None,
    out: Out = Path("unrecall-audit"),
    suite: SuiteName = "standard",
    budget: Budget = "",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Device = None,
    alone: options.Alone = False,
    rate: options.Rate = None,
    show_examples: options.ShowExamples = False,
    fail_on: FailOn = "",
) -> None:
    """Somebody else's model against a suite of attacks; models that aren't named are trained where possible."""
    before = Path(original) if original and scenario else None
    own = options.own_texts({**locals(), "model": "" if scenario else original})
    scenario = options.scenario_line(scenario, **own)
    check_names(scenario, None, suite)
    labels(fail_on)
    from unrecall.disk.run_folder import claimed, content_keys
    from unrecall.experiment.grid import Cell, audit_checkpoint
    from unrecall.report import check_place
    from unrecall.spec.lines import paths

    command = {"command": "audit", "scenario": scenario, "model": str(unlearned), "suite": suite, "seed": seed}
    command |= {"original": str(before), "retrained": [str(path) for path in retrained or []]}
    command |= options.basis(alone, rate, budget) | options.shown(show_examples)
    if alone and retrained:
        raise BadInput("--alone: expected no retrained models, got --retrained as well. Leave one of them out.")
    files = (str(path) for path in (unlearned, before, *(retrained or [])) if path is not None)
    with claimed(out, command | {"files": content_keys(*files, *paths(scenario, *suite.split()))}) as folder:
        check_place(folder / "report.html")
        cell = Cell(scenario, unlearned.resolve().name, suite, seed, False, str(folder), device, alone=alone, rate=rate)
        cell = replace(cell, show_examples=show_examples)
        (cell,) = _within([cell], folder, budget, (before is not None, len(retrained or [])))
        _show([audit_checkpoint(cell, unlearned, before, retrained or [])], folder, fail_on)


@app.command()
def bench(
    scenario: ScenarioName = "",
    methods: Annotated[str, typer.Option("--methods", help="all, or methods separated by spaces")] = "all",
    model: options.ModelName = "",
    forget: options.Forget = "",
    retain: options.Retain = "",
    holdout: options.Holdout = "",
    test: options.Test = "",
    base: options.Base = "",
    adapter: options.Adapter = "",
    group: options.Group = "",
    control: options.HoldoutIs = "",
    manifest: options.ManifestFile = "",
    published: options.Published = "",
    lora: options.Lora = None,
    suite: SuiteName = "standard",
    out: Out = Path("unrecall-bench"),
    seeds: options.Levels = "1",
    tune: Tune = None,
    against: options.AgainstAttack = "",
    kl: options.MostKl = None,
    measure: options.Measure = "shown",
    budget: Budget = "",
    jobs: Jobs = 1,
    ray: Annotated[str | None, typer.Option("--ray", help="address of a Ray cluster, or local")] = None,
    device: Device = None,
    alone: options.Alone = False,
    rate: options.Rate = None,
    anyway: options.Anyway = False,
) -> None:
    """Each method with each seed, under the same attacks; what is finished is kept, and one failure stops no other."""
    own = options.own_texts(locals())
    from unrecall.disk.run_folder import claimed, content_keys, file_name
    from unrecall.experiment.grid import Cell
    from unrecall.experiment.seeds import seeds_of
    from unrecall.spec.lines import paths

    if ray is not None and jobs > 1:
        raise BadInput(f"--jobs: expected it without --ray, which decides itself, got {jobs}. Leave one of them out.")
    levels, scenario = seeds_of(seeds), options.scenario_line(scenario, **own)
    search = options.against_attack(tune, against, kl, measure) or tune
    lines, left_out = options.lines_of(methods, lora)
    for name in left_out:
        _say(f"{name}: can't train a low-rank change, so it is left out.", sys.stderr)
    for line in lines.values():
        check_names(scenario, line, suite)
    tuned = {line: options.search_of(search, name, own) for name, line in lines.items()}
    for line in sorted(line for line in tuned if search and not tuned[line]):
        _say(f"{line}: has no strength to tune, so it runs as it is.", sys.stderr)
    command = {"command": "bench", "scenario": scenario, "suite": suite, "tune": bool(search)}
    command |= {"tune": "by default"} if model and search is None else {}
    command |= options.basis(alone, rate, budget, search)
    with claimed(out, command | {"files": content_keys(*paths(scenario, *suite.split(), *against.split()))}) as folder:
        cell = Cell(scenario, "", suite, 0, False, str(folder), device, alone, rate, anyway)
        cells = [
            replace(cell, method=line, seed=each, tuned=tuned[line], folder=str(folder / file_name(line) / each.name))
            for line in tuned
            for each in levels
        ]
        _run_and_show(_within(cells, folder, budget), folder, "", jobs, ray)


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(help="records, or folders that hold them")],
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("report.html"),
) -> None:
    """One page from any number of records; a table of their numbers where --out ends in .csv, .json or .tex."""
    from unrecall.disk.run_folder import records_in
    from unrecall.harness.suites import judged_names
    from unrecall.record.schema import load
    from unrecall.report import check_place, export, summary_lines, write

    table = out.suffix in export.FORMS
    (export.check if table else check_place)(out)
    records, errors, files = [], [], records_in(paths)
    for path in files:
        try:
            records.append(load(path))
        except BadInput as error:
            errors.append(str(error))
    if records:
        if table:
            export.write(records, out)
        else:
            write(records, out, judged_names(*records))
        for line in summary_lines(records):
            _say(line)
        _say(out)
    complain_of(errors, f"{len(errors)} of {len(files)} records could not be read, and are on no page.")


@app.command()
def check(record: Annotated[Path, typer.Argument(help="a record, or a folder that holds some")]) -> None:
    """Whether a record agrees with itself, the rule, and the scores and weights beside it; exit code 1 if not."""
    from unrecall.disk.run_folder import records_in
    from unrecall.harness.checking import check as checked_again

    checks = {path: checked_again(path) for path in records_in([record])}
    for path, checked in checks.items():
        _say(f"{path}: {checked.record.scenario}, {checked.record.method}, seed {checked.record.seed}")
        _say(checked.record.verdict.line)
        for doubt in checked.record.doubts:
            _say(f"  {doubt.severity}: {doubt.message} [{doubt.id}]")
        if not checked.problems:
            _say("  agrees with itself, the rule, and the scores and weights beside it")
        for state, lines in (("problem", checked.problems), ("not checked", checked.unseen)):
            for line in lines:
                _say(f"  {state}: {line}")
    if any(checked.problems for checked in checks.values()):
        raise typer.Exit(1)


@app.command()
def cache(
    action: Annotated[str, typer.Argument(help="clear: remove it; left out, say where it is and how large")] = "",
) -> None:
    """What is kept between runs: originals, retrained models, and what models answered; texts of forget among it."""
    from unrecall.disk.cache import shared

    if action not in ("", "clear"):
        raise BadInput(f"cache: expected 'clear' or nothing, got '{action}'. Leave it out to see what is there.")
    store = shared(on_disk=True)
    files = store.files()
    size = f"{store.folder}: {len(files):,} files, {sum(path.stat().st_size for path in files) / 2**20:,.1f} MiB"
    if action:
        store.clear()
        _say(f"{size}, removed")
    else:
        _say(f"{size}: models, scores and answers of earlier runs; 'unrecall cache clear' removes them")


def _within(cells: list[Any], folder: Path, budget: str, given: tuple[bool, int] | None = None) -> list[Any]:
    """The cells with the attacks that fit into the budget; as they are where there is none. `given`: as in `Given`."""
    if not budget:
        return cells
    from unrecall.experiment.budget import Given, within

    return within(cells, folder, budget, given and Given(*given))


def _run_and_show(cells: list[Any], folder: Path, fail_on: str, jobs: int = 1, ray: str | None = None) -> None:
    """Runs all cells and shows those that finished; UnrecallError where some did not."""
    from unrecall.experiment.parallel import run_cells
    from unrecall.report import check_place

    check_place(folder / "report.html")
    records, failures = run_cells(cells, jobs, ray)
    if records:
        _show(records, folder, "" if failures else fail_on)
    complain_of(failures, f"{len(failures)} of {len(cells)} runs failed. The same command tries them again.")


def _show(records: list[Any], folder: Path, fail_on: str) -> None:
    """Writes the page, prints each record's verdict, and exits with 1 where --fail-on names one of them.

    With 3 where it names "forgot nothing", and a method did.
    """
    from unrecall.record.judgement import forgot_nothing
    from unrecall.report import summary_lines, write

    write(records, folder / "report.html")
    for record in records:
        _say(f"{record.method}, seed {record.seed}: {record.verdict.line}")
        if nothing := forgot_nothing(record):
            _say(f"{record.method}, seed {record.seed}: {nothing}")
    for line in summary_lines(records):
        _say(line)
    _say(folder / "report.html")
    if options.NOTHING in labels(fail_on) and any(map(forgot_nothing, records)):
        raise typer.Exit(3)
    if any(record.verdict.label in labels(fail_on) for record in records):
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; an error is one line on stderr and exit code 2, an interruption 130.

    Of several processes that a launcher started, the first alone does anything.
    """
    try:
        _check_text(sys.argv[1:] if arguments is None else arguments)
        code = (app(arguments, standalone_mode=False) or 0) if works(os.environ) else 0
    except typer.TyperException as error:
        code = complain(error.format_message())
    except BrokenPipeError:  # who read the output has read enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (UnrecallError, OSError) as error:
        code = complain(error_line(error))
    except KeyboardInterrupt:
        code = 130
    if code == 130:
        print("interrupted: the same command goes on from here.", file=sys.stderr)
    sys.exit(code)


def _check_text(arguments: list[str]) -> None:
    """BadInput where an argument holds bytes that are no text: no file of that name could be written to the end."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise BadInput(
                f"command line: expected UTF-8 text, got other bytes in '{argument}' at {error.start}. Rename it."
            ) from error
