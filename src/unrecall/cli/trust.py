"""What lets others trust an audit: the ledger of requests, planted records, signed attestations. Heavy imports wait."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unrecall.cli.output import say
from unrecall.errors import BadInput, visible

RecordPath = Annotated[Path, typer.Argument(help="the audit's record, or a folder that holds one")]
LedgerPath = Annotated[Path, typer.Argument(help="the ledger: JSON Lines, made where there is none")]
RequestName = Annotated[str, typer.Option("--request", help="the request's name, the same whenever it is audited")]
ForgetFile = Annotated[
    Path | None,
    typer.Option("--forget", help="file of the forgotten records, as for `run`; salted digests are kept"),
]
HoldoutFile = Annotated[
    Path | None,
    typer.Option("--holdout", help="the holdout, likewise; e-values of requests that share none are multiplied"),
]

Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="the audited weights, where they don't lie beside the record")
]

ledger = typer.Typer(no_args_is_help=True, help="Requests one after another: their audits, e-values, and a hash chain.")


@ledger.command()
def add(
    path: LedgerPath, record: RecordPath, request: RequestName, forget: ForgetFile = None, holdout: HoldoutFile = None
) -> None:
    """Adds the audit of a new request."""
    _add(path, record, request, forget, holdout)


@ledger.command()
def reaudit(
    path: LedgerPath, record: RecordPath, request: RequestName, forget: ForgetFile = None, holdout: HoldoutFile = None
) -> None:
    """Adds another audit of an earlier request, under a newer model; a request's audits are averaged."""
    _add(path, record, request, forget, holdout, reaudit=True)


@ledger.command()
def status(
    path: LedgerPath,
    expect: Annotated[str, typer.Option("--expect", help="a hash that this ledger once had as its head")] = "",
) -> None:
    """The table of audits, whether the chain is whole, what is due; exit code 1 where something is off."""
    from unrecall.experiment.ledger import missing, problems
    from unrecall.record import ledger as lines

    book = lines.read(path)
    say(f"{path}: {len(book.entries)} audits, a whole chain, head {book.hashes[-1]}")
    for line in _table(book):
        say(line)
    evidence = lines.evidence(book.entries)
    say(f"product over requests with records of their own: {evidence.product:.4g}")
    say("  (models that never saw what they were to forget reach 20 in at most 5 of 100 ledgers, whenever one looks)")
    say(f"with re-audits averaged, at a time settled beforehand: {evidence.combined:.4g}")
    for entry, reason in lines.shared(book.entries):
        say(f"  not multiplied: {entry.request}: {reason}")
    for name in lines.due(book.entries):
        say(f"  due: {name}: not audited under the newest model")
    for name in missing(path, book):
        say(f"  not checked: {name}: no such record there")
    faults = list(problems(path, book))
    if expect and expect not in book.hashes:
        faults.append(f"no line has the hash {expect}: the end was cut off, or the ledger written anew")
    if not expect:
        say("  not checked: whether the end was cut off: only a head that was noted shows (--expect)")
    for problem in faults:
        say(f"  problem: {problem}.")
    if faults:
        raise typer.Exit(1)


@ledger.command()
def page(path: LedgerPath, out: Annotated[Path, typer.Option("--out", "-o")] = Path("ledger.html")) -> None:
    """One page on the ledger."""
    from unrecall.report import ledger_page

    ledger_page.write(path, out)
    say(out)


def plant(
    data: Annotated[
        Path | None,
        typer.Argument(help="JSON Lines with prompt, answer and second, its other wording"),
    ] = None,
    count: Annotated[int, typer.Option("--canaries", help="so many invented secrets in place of records")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="a new folder")] = Path("planted"),
) -> None:
    """Coins decide which of two wordings of each record is trained on; publish the manifest's sha256 before that."""
    from unrecall.experiment.plant import HOLDOUT, MANIFEST, TRAIN, canaries, pairs_of
    from unrecall.experiment.plant import plant as write

    if (data is None) == (count == 0):
        raise BadInput("plant: expected a file of records or --canaries, got both or neither. Give one of them.")
    key = write(canaries(count) if data is None else pairs_of(data), out)
    say(f"{out / TRAIN}: train on these")
    say(f"{out / HOLDOUT}: never train on these; they are the holdout of an audit")
    say(f"{out / MANIFEST}: keep it to yourself, and publish its sha256 before training:")
    say(key)


def attest(
    record: RecordPath,
    key: Annotated[Path, typer.Option("--key", help="the Ed25519 private key, PEM")],
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("attestation.json"),
    checkpoint: Checkpoint = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="make it first, and the public one beside it")] = False,
) -> None:
    """Signs what an audit found: an in-toto statement on the checkpoint, for whoever holds the public key."""
    from unrecall.disk.files import check_writable
    from unrecall.harness.checking import check
    from unrecall.record import attest as attesting

    place = _record_file(record)
    checked = check(place)
    if checked.problems:
        raise BadInput(f"{place}: expected a record that holds, got: {checked.problems[0]} Run 'unrecall check' on it.")
    stated = attesting.statement(place, checked.unseen, checkpoint)
    check_writable(out)
    if new_key:
        say(f"{attesting.new_key(key)}: give this public key to whoever verifies")
    attesting.sign(stated, key, out)
    say(f"{out}: signed; {checked.record.verdict.label} (in-toto: {stated['predicate']['result']})")


def verify(
    attestation: Annotated[Path, typer.Argument(help="what 'unrecall attest' wrote")],
    record: RecordPath,
    key: Annotated[Path, typer.Option("--key", help="the public key of whoever signed, PEM")],
    checkpoint: Checkpoint = None,
) -> None:
    """Whether the signature holds, the files are those that were signed, and the record agrees with its scores."""
    from unrecall.harness.checking import check
    from unrecall.record import attest as attesting

    stated, place = attesting.verified(attestation, key), _record_file(record)
    checked = check(place)
    faults = [*attesting.differing(stated, attesting.statement(place, checked.unseen, checkpoint)), *checked.problems]
    say(f"{attestation}: signed with {key}")
    say(checked.record.verdict.line)
    for line in stated["predicate"]["unrecall"]["limits"]:
        say(f"  {line}")
    for problem in faults:
        say(f"  problem: {problem}")
    if faults:
        raise typer.Exit(1)
    say("  the signature holds, the files are those that were signed, and the record agrees with its scores")


def _add(path: Path, record: Path, request: str, *files: Path | None, reaudit: bool = False) -> None:
    from unrecall.experiment.ledger import Audited, texts_of
    from unrecall.experiment.ledger import add as append

    forget, holdout = map(texts_of, files)
    entry, aside = append(path, Audited(request, _record_file(record), forget, holdout), reaudit=reaudit)
    if aside:
        say(f"{aside}: a line that was never finished stands here now; its request was not added.", sys.stderr)
    value = "none: " + entry.e_note if entry.e_value is None else f"{entry.e_value:.4g}"
    say(f"{entry.request}: {entry.label}; e-value {value}; product {entry.product:.4g}")
    if not reaudit and entry.e_value is not None and not (entry.forget and entry.holdout):
        say("not multiplied with other requests' e-values: its records were not named (--forget and --holdout)")
    say(f"head {entry.hash}")


def _record_file(path: Path) -> Path:
    """The file of the one record that a path stands for; BadInput where it holds several."""
    from unrecall.disk.run_folder import records_in

    records = records_in([path])
    if len(records) > 1:
        raise BadInput(f"{path}: expected one record, got {len(records)}. Name one of them.")
    return records[0]


def _table(book: Any) -> list[str]:
    """The audits, a line each, in columns."""
    rows = [("no.", "request", "audit", "verdict", "basis", "e-value", "epsilon", "product")]
    for i, e in enumerate(book.entries, 1):
        value = "none" if e.e_value is None else f"{e.e_value:.4g}"
        kind = {"request": "first", "reaudit": "again"}[e.kind]
        epsilon = "" if e.epsilon is None else f">= {e.epsilon:.2f}"
        basis = f"{e.basis} {e.grade}"
        rows.append((str(i), visible(e.request), kind, e.label, basis, value, epsilon, f"{e.product:.4g}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
