"""The commands that train or audit: demo, doctor, run, unlearn, audit, bench. Heavy imports wait."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from unrecall.cli.lines import check_names, lines_of, method_line, scenario_line, search_of, tunes
from unrecall.cli.options import (
    FORGOT_NOTHING,
    Anyway,
    Attacks,
    Device,
    Jobs,
    Judging,
    MethodName,
    Out,
    OwnModel,
    ScenarioName,
    Seed,
    SeedCounts,
    Unlearning,
    against_content,
    labels,
)
from unrecall.cli.output import complain_of, say
from unrecall.disk.run_folder import claimed, content_keys, file_name
from unrecall.errors import BadInput
from unrecall.experiment.seeds import seeds_of
from unrecall.spec.lines import parse, paths

DEMO = {
    "hides": "grad_ascent:lr=0.004,epochs=25",
    "forgets": "eu_k:blocks=3,lr=0.05,epochs=20",
    "retrained": "retrain:lr=0.05,epochs=25,batch_size=64,weight_decay=0.0005,schedule=cosine",
}
"""Folder and method: one hides and is caught, one forgets and passes, one is exact."""
DEMO_CASE = "digits:forget=mistakes:0.1"
"""A tenth of the pictures were entered under a wrong digit, and must go."""


def demo(out: Annotated[Path, typer.Option("--out", "-o")] = Path("unrecall-demo"), device: Device = "cpu") -> None:
    """Digits, some entered wrongly: train, retrain, forget these in three ways, attack, report; about a minute."""
    from unrecall.experiment.cell import Cell

    with claimed(out, {"command": "demo"}) as folder:
        cells = [Cell(DEMO_CASE, line, "quick", 0, False, str(folder / name), device) for name, line in DEMO.items()]
        _run_and_show(cells, folder, "")


def run(
    method: MethodName,
    own: OwnModel,
    unlearning: Unlearning,
    judging: Judging,
    scenario: ScenarioName = "",
    out: Out = Path("unrecall-run"),
    seeds: SeedCounts = "1",
    jobs: Jobs = 1,
    device: Device = None,
    anyway: Anyway = False,
) -> None:
    """The whole line: original and retrained models, unlearning, audit, record and page."""
    run_seeds = seeds_of(seeds)
    scenario, line = scenario_line(scenario, own), method_line(method, unlearning.lora)
    from unrecall.experiment.cell import Cell

    search = unlearning.search() or tunes(unlearning.tune, method, own)
    check_names(scenario, line, judging.suite, bool(search))
    command = {"command": "run", "scenario": scenario, "method": line, "tune": bool(search)}
    files = content_keys(*paths(scenario, line, *judging.suite.split(), *unlearning.against.split()))
    with claimed(out, command | judging.content(search) | {"files": files}) as folder:
        cell = _with_judging(Cell(scenario, line, "", 0, search, "", device, anyway=anyway), judging)
        cells = [replace(cell, seed=seeds_of_run, folder=str(folder / seeds_of_run.name)) for seeds_of_run in run_seeds]
        _run_and_show(_within(cells, folder, judging.budget), folder, judging.fail_on, jobs)


def doctor(
    own: OwnModel,
    unlearning: Unlearning,
    attacks: Attacks,
    scenario: Annotated[str, typer.Argument(help="built-in or FILE.py:function, then [:key=value,...]")] = "",
    named: ScenarioName = "",
    method: Annotated[str, typer.Option("--method", "-m", help="the method that you mean to use")] = "grad_diff",
    device: Device = None,
) -> None:
    """A case before it is run: every check, a step of everything, what can be concluded, and how long it takes."""
    if scenario and named:
        raise BadInput(f"doctor: expected one scenario, got '{scenario}' and --scenario '{named}'. Leave one out.")
    scenario, line = scenario_line(scenario or named, own), method_line(method, unlearning.lora)
    search = unlearning.search() or tunes(unlearning.tune, method, own)
    check_names(scenario, line, attacks.suite, bool(search))
    from unrecall.experiment.case import Case
    from unrecall.experiment.cell import Cell, scenario_for
    from unrecall.experiment.doctor import doctor as look
    from unrecall.harness.suites import suite
    from unrecall.training.session import Session

    case_scenario = scenario_for(Cell(scenario, line, attacks.suite, 0, False, "", device, alone=attacks.alone))
    if not isinstance(search, bool):
        search.attack_on(case_scenario.task, case_scenario.request.kind)
    suiting = suite(*attacks.suite.split()).suiting(case_scenario.task)
    case = Case(case_scenario, parse(line, "methods"), suiting, Session(device=device, show=True), search)
    say(f"{case_scenario.name}: {case_scenario.summary}")
    for finding in look(case):
        say(f"  {finding.subject:<10} {finding.text}")


def unlearn(
    method: MethodName,
    own: OwnModel,
    unlearning: Unlearning,
    scenario: ScenarioName = "",
    out: Out = Path("unrecall-unlearned"),
    seed: Seed = 0,
    device: Device = None,
    anyway: Anyway = False,
) -> None:
    """A checkpoint only: OUT/unlearned.safetensors, or for a language model the Transformers folder OUT/unlearned."""
    scenario, line = scenario_line(scenario, own), method_line(method, unlearning.lora)
    search = unlearning.search() or tunes(unlearning.tune, method, own)
    check_names(scenario, line, "quick", bool(search))
    from unrecall.experiment.cell import Cell, unlearn_cell

    command = {"command": "unlearn", "scenario": scenario, "method": line, "tune": bool(search), "seed": seed}
    files = content_keys(*paths(scenario, line, *unlearning.against.split()))
    with claimed(out, command | against_content(search) | {"files": files}) as folder:
        say(unlearn_cell(Cell(scenario, line, "quick", seed, search, str(folder), device, anyway=anyway)))


def audit(
    unlearned: Annotated[
        Path, typer.Option(help="the unlearned model: safetensors, a Transformers folder, or an adapter of PEFT")
    ],
    own: OwnModel,
    judging: Judging,
    scenario: ScenarioName = "",
    original: Annotated[
        str,
        typer.Option(help="the model before: the scenario's checkpoint; without a scenario as --model"),
    ] = "",
    retrained: Annotated[list[Path] | None, typer.Option(help="a retrained model, as --unlearned; repeat")] = None,
    out: Out = Path("unrecall-audit"),
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Somebody else's model against a suite of attacks; models that aren't named are trained where possible."""
    if original and own.model:
        raise BadInput(f"--original: expected it or --model, got '{original}' and '{own.model}'. Leave one out.")
    original = original or own.model
    before = Path(original) if original and scenario else None
    scenario = scenario_line(scenario, replace(own, model="" if scenario else original))
    check_names(scenario, None, judging.suite)
    from unrecall.experiment.cell import Cell, audit_checkpoint
    from unrecall.report import check_page_path

    if judging.alone and retrained:
        raise BadInput("--alone: expected no retrained models, got --retrained as well. Leave one of them out.")
    command = {"command": "audit", "scenario": scenario, "model": str(unlearned), "seed": seed}
    command |= {"original": str(before), "retrained": [str(path) for path in retrained or []]}
    files = (str(path) for path in (unlearned, before, *(retrained or [])) if path is not None)
    command |= judging.content() | {"files": content_keys(*files, *paths(scenario, *judging.suite.split()))}
    with claimed(out, command) as folder:
        check_page_path(folder / "report.html")
        cell = Cell(scenario, unlearned.resolve().name, "", seed, False, str(folder), device)
        (cell,) = _within(
            [_with_judging(cell, judging)], folder, judging.budget, (before is not None, len(retrained or []))
        )
        _show([audit_checkpoint(cell, unlearned, before, retrained or [])], folder, judging.fail_on)


def bench(
    own: OwnModel,
    unlearning: Unlearning,
    judging: Judging,
    scenario: ScenarioName = "",
    methods: Annotated[str, typer.Option(help="all, or methods separated by spaces")] = "all",
    out: Out = Path("unrecall-bench"),
    seeds: SeedCounts = "1",
    jobs: Jobs = 1,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster, or local")] = None,
    device: Device = None,
    anyway: Anyway = False,
) -> None:
    """Each method with each seed, under the same attacks; what is finished is kept, and one failure stops no other."""
    if ray is not None and jobs > 1:
        raise BadInput(f"--jobs: expected it without --ray, which decides itself, got {jobs}. Leave one of them out.")
    run_seeds, scenario = seeds_of(seeds), scenario_line(scenario, own)
    from unrecall.experiment.cell import Cell

    search = unlearning.search()
    lines, left_out = lines_of(methods, unlearning.lora)
    for name in left_out:
        say(f"{name}: can't train a low-rank change, so it is left out.", sys.stderr)
    for line in lines.values():
        check_names(scenario, line, judging.suite)
    tuned = {line: search_of(search, name, own) for name, line in lines.items()}
    for line in sorted(line for line in tuned if search and not tuned[line]):
        say(f"{line}: has no strength to tune, so it runs as it is.", sys.stderr)
    command = {"command": "bench", "scenario": scenario, "tune": bool(search)}
    command |= {"tune": "by default"} if own.model and search is None else {}
    files = content_keys(*paths(scenario, *judging.suite.split(), *unlearning.against.split()))
    with claimed(out, command | judging.content(search) | {"files": files}) as folder:
        cell = _with_judging(Cell(scenario, "", "", 0, False, "", device, anyway=anyway), judging)
        folders = {line: folder / file_name(line) for line in tuned}
        cells = [
            replace(
                cell, method=line, seed=seeds_of_run, tuned=tuned[line], folder=str(folders[line] / seeds_of_run.name)
            )
            for line in tuned
            for seeds_of_run in run_seeds
        ]
        _run_and_show(_within(cells, folder, judging.budget), folder, judging.fail_on, jobs, ray)


def _with_judging(cell: Any, judging: Judging) -> Any:
    """The cell, attacked and judged as these options say."""
    return replace(
        cell, suite=judging.suite, alone=judging.alone, rate=judging.rate, show_examples=judging.show_examples
    )


def _within(cells: list[Any], folder: Path, budget: str, given: tuple[bool, int] | None = None) -> list[Any]:
    """The cells with the attacks that fit into the budget; all, where there is none. `given`: see `UserModels`."""
    if not budget:
        return cells
    from unrecall.experiment.budget import UserModels, cells_in_budget

    return cells_in_budget(cells, folder, budget, given and UserModels(*given))


def _run_and_show(cells: list[Any], folder: Path, fail_on: str, jobs: int = 1, ray: str | None = None) -> None:
    """Runs all cells and shows those that finished; UnrecallError where some did not."""
    from unrecall.experiment.parallel import run_cells
    from unrecall.report import check_page_path

    check_page_path(folder / "report.html")
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
        say(f"{record.method}, seed {record.seed}: {record.verdict.line}")
        if nothing := forgot_nothing(record):
            advice = "Search its strength by --tune, or take" if record.tuning is None else "Take"
            say(f"{record.method}, seed {record.seed}: {nothing} {advice} another method, as eu_k or reheat.")
    for line in summary_lines(records):
        say(line)
    say(folder / "report.html")
    if FORGOT_NOTHING in labels(fail_on) and any(map(forgot_nothing, records)):
        raise typer.Exit(3)
    if any(record.verdict.label in labels(fail_on) for record in records):
        raise typer.Exit(1)
