"""The command line: list, report, check, cache, and the commands of runs.py and trust.py. Heavy imports wait."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unrecall.cli import runs, trust
from unrecall.cli.groups import grouped
from unrecall.cli.launcher import claim_first_process
from unrecall.cli.output import complain, complain_of, say
from unrecall.errors import BadInput, UnrecallError, error_line, nearest, of_users_code
from unrecall.spec.catalog import CATALOGS, Entry, entries, entry_of_file


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
            if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # as Rich ends then
                raise error.__context__ from None
            raise UnrecallError(error_line(error)) from error


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a trained model forget, attack it to see whether it really did, and show the evidence.",
)


def list_(
    kind: Annotated[
        str, typer.Argument(help="methods, attacks, metrics or scenarios; the name of one, or FILE.py:NAME")
    ] = "methods",
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable, with every parameter")] = False,
) -> None:
    """What there is, with parameters and defaults; of one, all that its page says."""
    catalog = next((entries(name) for name in CATALOGS if name == kind), None)
    if catalog is None:
        everything = [entry for name in CATALOGS for entry in entries(name)]
        own = (entry_of_file(kind),) if ".py:" in kind else ()
        catalog = own or tuple(entry for entry in everything if entry.name == kind.lower())
        if not catalog:
            hint = nearest(kind, [*CATALOGS, *(entry.name for entry in everything)], shown=CATALOGS)
            raise BadInput(f"list: expected {', '.join(CATALOGS)}, or the name of one, got '{kind}'. {hint}")
        if not as_json:
            say("\n\n".join(f"{entry.name}\n\n{entry.text}" + _parameters(entry) for entry in catalog))
            return
    if as_json:
        described = [{k: v for k, v in asdict(entry).items() if k not in ("owner", "text")} for entry in catalog]
        say(json.dumps(described, indent=1))
        return
    width = max(len(entry.name) for entry in catalog)
    for entry in catalog:
        say(f"{entry.name:<{width}}  {entry.summary}")
        parameters = ", ".join(f"{p.name}={p.default or 'required'}" for p in entry.parameters)
        if kind != "metrics":  # a class, as Python calls it
            say(f"{'':<{width}}    {entry.owner}({parameters})")


def _parameters(entry: Entry) -> str:
    """The parameters of a method, an attack or a scenario with their types and defaults, a line each."""
    names = (f"{p.name}: {p.type}" if p.type else p.name for p in entry.parameters)
    lines = [
        f"  {name} = {p.default}" if p.default else f"  {name}, required"
        for name, p in zip(names, entry.parameters, strict=True)
    ]
    return "\n\nParameters:\n" + "\n".join(lines) if lines else ""


PAGES = (".html", ".htm", "")
"""How the name of a page ends."""


def report(
    paths: Annotated[list[Path], typer.Argument(help="records, or folders that hold them")],
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("report.html"),
) -> None:
    """One page from any number of records; their first screens as text as .md; their numbers as .csv, .json or .tex.

    What is written follows from how --out ends.
    """
    from unrecall.disk.run_folder import records_in
    from unrecall.harness.suites import judged_names
    from unrecall.record.schema import Record, load
    from unrecall.report import check_page_path, export, markdown, summary_lines, write
    from unrecall.report.summary import repeated

    text, table = out.suffix == markdown.SUFFIX, out.suffix in export.FORMS
    if not text and not table and out.suffix not in PAGES:
        forms = ", ".join((*PAGES[:1], markdown.SUFFIX, *export.FORMS))
        raise BadInput(f"--out: expected a name that ends in {forms}, got '{out.name}'. Rename it.")
    (markdown.check if text else export.check if table else check_page_path)(out)
    loaded, errors, files = dict[Path, Record](), [], records_in(paths)
    for path in files:
        try:
            loaded[path] = load(path)
        except BadInput as error:
            errors.append(str(error))
    again = repeated(loaded)
    for path, first in again.items():
        say(f"{path}: left out, for it is the same audit as {first}: no other seed, and the same numbers")
    if records := [record for path, record in loaded.items() if path not in again]:
        if text:
            markdown.write(records, out, judged_names(*records))
        elif table:
            export.write(records, out)
        else:
            write(records, out, judged_names(*records))
        for line in summary_lines(records):
            say(line)
        say(out)
    complain_of(errors, f"{len(errors)} of {len(files)} records could not be read, and were left out.")


def check(records: Annotated[list[Path], typer.Argument(help="records, or folders that hold some")]) -> None:
    """Whether a record agrees with itself, the rule, and scores and weights beside it; exit code 1 if not."""
    from unrecall.disk.run_folder import records_in
    from unrecall.harness.checking import check as checked_again
    from unrecall.report.summary import tries

    checks = {path: checked_again(path) for path in records_in(records)}
    for path, checked in checks.items():
        say(f"{path}: {checked.record.scenario}, {checked.record.method}, seed {checked.record.seed}")
        say(checked.record.verdict.line)
        for doubt in checked.record.doubts:
            say(f"  {doubt.severity}: {doubt.message} [{doubt.id}]")
        if not checked.problems:
            say(f"  {checked.agreement}")
        for state, lines in (("problem", checked.problems), ("not checked", checked.unseen)):
            for line in lines:
                say(f"  {state}: {line}")
    for sentence in tries([checked.record for checked in checks.values()]):
        say(sentence)
    if any(checked.problems for checked in checks.values()):
        raise typer.Exit(1)


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
        say(f"{size}, removed")
    else:
        say(f"{size}: models, scores and answers of earlier runs; 'unrecall cache clear' removes them")


EVIDENCE = "Show, check and sign the evidence"
PANELS: Mapping[str, Sequence[Callable[..., None]]] = {
    "What there is, and what it takes": (list_, runs.doctor, cache),
    "Make a model forget, and judge it": (runs.demo, runs.run, runs.unlearn, runs.audit, runs.bench),
    EVIDENCE: (report, check, trust.attest, trust.verify, trust.plant),
}
"""The commands, by the panels in which the help shows them."""
for panel, verbs in PANELS.items():
    for verb in verbs:
        app.command(verb.__name__.rstrip("_"), rich_help_panel=panel)(grouped(verb))
app.add_typer(trust.ledger, name="ledger", rich_help_panel=EVIDENCE)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; an error is one line on stderr and exit code 2, an interruption 130.

    Of several processes that a launcher started, the first alone does anything.
    """
    try:
        _check_text(sys.argv[1:] if arguments is None else arguments)
        code = (app(arguments, standalone_mode=False) or 0) if claim_first_process(os.environ) else 0
    except typer.TyperException as error:
        hint = " 'unrecall list methods' names them." if "Missing option '--method'" in error.format_message() else ""
        code = complain(error.format_message() + hint)
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
