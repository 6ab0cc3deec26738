"""Adds audits to a ledger: what a line says comes from the audit's record and the scores that are kept beside it."""

import datetime
import hashlib
import json
import math
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from unrecall.disk.append_only import AppendOnlyFile, append_only
from unrecall.disk.files import file_key, is_folder_of_files, read_text
from unrecall.errors import BadInput
from unrecall.record import ledger as lines
from unrecall.record.betting import bet_on_scores, mean_bet, random_gaps, seed_of
from unrecall.record.ledger import Entry, Ledger
from unrecall.record.one_run import one_run
from unrecall.record.pool_scores import PoolScores
from unrecall.record.recheck import places_of_scores
from unrecall.record.schema import NEVER_TRAINED, NeverTrained, Record, load

PLAIN = "loss"
"""The attack whose scores an e-value is computed from where there are none of the fixed suite."""
SALT = 32
"""Length of the salt in bytes."""
START = b'{"hash":"'
"""How the first line of every ledger begins."""
Arms: TypeAlias = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]
"""Scores of forget [n] and of holdout [m], and the half of each where they have halves."""


@dataclass(frozen=True)
class Audited:
    """A request's name, the record of an audit of it, and its records as texts: what it forgets, and its holdout.

    The texts are whatever names a record always in the same way: its JSON, a digest. They enter the ledger salted.
    """

    request: str
    record: Path
    forget: Sequence[str] = ()
    holdout: Sequence[str] = ()


class Added(NamedTuple):
    """The new line, and where a torn line that a killed process had left was set aside."""

    entry: Entry
    aside: Path | None


class EValue(NamedTuple):
    """An e-value and how it was computed, or None and why there is none.

    `epsilon`: a lower bound, with 95 % confidence, from the same pairs; None where there is no e-value.
    """

    value: float | None
    note: str
    epsilon: float | None = None


def add(path: Path, audited: Audited, *, reaudit: bool = False) -> Added:
    """Appends an audit to the ledger at `path`, which is made where there is none.

    `reaudit`: the request is in the ledger already, and was audited again. BadInput where the record doesn't hold,
    the name is taken or unknown, or the chain is broken; then nothing is written.
    """
    if reaudit and not path.is_file():
        raise BadInput(f"{path}: expected a ledger with earlier requests, got nothing there. Add the request first.")
    fields = _fields(path, audited)
    with append_only(path) as file:
        salt, torn_first = _begun(path, file)
        ledger = lines.parse(file.whole, file.torn, str(path))
        forget, holdout = ([lines.salted(salt, text) for text in own] for own in (audited.forget, audited.holdout))
        earlier = [entry for entry in ledger.entries if entry.request == audited.request]
        _check_name(path, earlier, forget, reaudit=reaudit)
        fields |= {"kind": "reaudit" if reaudit else "request", "forget": forget, "holdout": holdout}
        unproved = Entry.model_validate({**fields, "product": 1.0, "previous": "", "hash": ""})
        fields["product"] = lines.products([*ledger.entries, unproved])[-1]
        torn = file.append(lines.sealed(fields, ledger.hashes[-1]))
        return Added(lines.parse(file.whole, b"", str(path)).entries[-1], torn or torn_first)


def problems(path: Path, ledger: Ledger) -> Iterator[str]:
    """What is off about a ledger whose chain is whole: its end, and the records that it names, where they are there."""
    if ledger.torn:
        yield (
            f"{len(ledger.torn)} bytes of a line that was not finished stand at its end: a process was killed while it "
            "wrote, or the end was cut off. The next 'ledger add' sets them aside; add that request again"
        )
    for number, entry in enumerate(ledger.entries, 2):
        place = path.parent / entry.record
        if not place.is_file():
            continue
        if file_key(place) != entry.record_sha256:
            yield f"line {number}: the record at {entry.record} is not the one that was added"
            continue
        record = load(place)
        for name, value in _of_record(record).items():
            if getattr(entry, name) != value:
                yield f"line {number}: its {name} is not that of {entry.record}"
        derived = e_value(record, place.parent)
        if not _alike(derived.value, entry.e_value) or not _alike(derived.epsilon, entry.epsilon):
            yield f"line {number}: its e-value is not what the scores beside {entry.record} come to"


def _of_record(record: Record) -> dict[str, str]:
    """What a line says that stands in the audit's record."""
    return {
        "method": record.method,
        "scenario": record.scenario,
        "fingerprint": record.provenance.fingerprint,
        "weights": record.provenance.weights.get("unlearned", ""),
        "label": record.verdict.label,
        "basis": record.verdict.basis,
        "grade": "" if record.never_trained is None else record.never_trained.grade,
        "rule": record.verdict.rule,
    }


def _alike(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def missing(path: Path, ledger: Ledger) -> list[str]:
    """The records that the ledger names and that lie there no more."""
    return [entry.record for entry in ledger.entries if not (path.parent / entry.record).is_file()]


def e_value(record: Record, folder: Path) -> EValue:
    """The e-value of an audit, from the scores that its record names and that lie in its folder.

    Random pairs in an order by the sha256 of the request and of the audited weights; the mean over attacks.
    """
    seed = seed_of(record.provenance.fingerprint, record.provenance.weights.get("unlearned", ""))
    for name in (NEVER_TRAINED, PLAIN):
        place = next(iter(places_of_scores(folder, name)), None)
        if name in record.scores and place is not None:
            if file_key(place) != record.scores[name]:
                return EValue(None, f"the scores of {name} are not those that the record was made from")
            return _of_scores(record, name, place, seed)
    return EValue(None, "no scores of forget and holdout are kept beside the record")


def texts_of(path: Path | None) -> list[str]:
    """A text for each record of a request, the same in whatever order they come; none for no path.

    Of a file of records the JSON of each; of a list of names that ends in .txt its names, each once; of a folder of
    pictures their sha256. BadInput where it is none of these, and where a record is there twice.
    """
    from unrecall.disk.tables import records
    from unrecall.tasks.picture_files import LIST, listed, read

    if path is None:
        return []
    if is_folder_of_files(path):
        return [*dict.fromkeys(file_key(picture.source.file) for picture in read(path))]
    if path.suffix.lower() == LIST and read_text(path).removeprefix("\ufeff").lstrip()[:1] not in ("{", "["):
        return [*dict.fromkeys(posixpath.normpath(name) for name in listed(path))]
    texts = [json.dumps(record, sort_keys=True, ensure_ascii=False, default=str) for _, record in records(path)]
    if len(set(texts)) < len(texts):
        raise BadInput(f"{path}: expected each record once, got one twice. Remove it.")
    return texts


def _of_scores(record: Record, name: str, place: Path, seed: int) -> EValue:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    tested = record.never_trained
    try:
        arrays = load_file(place)
        rows = _pool(tested, arrays) if tested is not None and name == NEVER_TRAINED else _plain(arrays)
        bets = [bet_on_scores(forget, holdout, seed, halves) for forget, holdout, halves in rows]
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, BadInput) as error:
        lacking = f"{error} is not there, and scores of both forget and holdout are needed"
        reason = lacking if isinstance(error, KeyError) else error
        return EValue(None, f"the scores of {name} can't be bet on: {reason}")
    pairs = len(bets[0].wealth)
    note = f"{name}: mean over {len(bets)} attacks of bets on {pairs} random pairs"
    return EValue(mean_bet(bets), note, one_run(_gaps(rows, seed)).epsilon)


def _gaps(rows: Sequence[Arms], seed: int) -> np.ndarray:
    """Gaps of random pairs in the mean over attacks of scores, each in standard deviations over both arms."""
    pooled = np.stack([np.concatenate([forget, holdout]) for forget, holdout, _ in rows])
    spread = pooled.std(1, keepdims=True)
    mean = np.divide(pooled, spread, out=np.zeros_like(pooled), where=spread > 0).mean(0)
    forget, _, halves = rows[0]
    own, other = mean[: len(forget)], mean[len(forget) :]
    return random_gaps(own, other, np.random.default_rng(seed), halves)


def _plain(arrays: dict[str, np.ndarray]) -> list[Arms]:
    """The scores of both arms under the unlearned model before anything was spent."""
    forget, holdout = (arrays[f"unlearned/{arm}"][0].astype(float) for arm in ("forget", "holdout"))
    return [(forget, holdout, None)]


def _pool(tested: NeverTrained, arrays: dict[str, np.ndarray]) -> list[Arms]:
    """For each attack of the fixed suite, both arms' adjusted scores, one a record or person; and their blocks."""
    names = [test.name for test in tested.attacks]
    scores = PoolScores.from_arrays(arrays, names, list(tested.covariates.values())).even()
    own, block = scores.labels.forget, scores.labels.stratum
    blocks = (block[own], block[~own]) if block.any() else None
    means = scores.of_units(scores.adjusted(scores.unlearned))
    return [(row[own], row[~own], blocks) for row in means]


def _fields(path: Path, audited: Audited) -> dict[str, Any]:
    """What a line says of a record; BadInput where the record doesn't hold."""
    from unrecall.harness.checking import check

    if not audited.request.strip():
        raise BadInput("--request: expected a name for the request, got none. Name it, say by its number or date.")
    checked = check(audited.record)
    if checked.problems:
        first, more = checked.problems[0], len(checked.problems) - 1
        raise BadInput(
            f"{audited.record}: expected a record that holds, got: {first}{f' ({more} more)' if more else ''} "
            "Run 'unrecall check' on it."
        )
    record = checked.record
    value, note, epsilon = e_value(record, audited.record.parent)
    return {
        "request": audited.request,
        "time": _now(),
        **_of_record(record),
        "record": Path(os.path.relpath(audited.record, path.parent)).as_posix(),
        "record_sha256": file_key(audited.record),
        "e_value": value,
        "e_note": note,
        "epsilon": epsilon,
    }


def _check_name(path: Path, earlier: Sequence[Entry], forget: Sequence[str], *, reaudit: bool) -> None:
    """BadInput where a request's name is taken, or unknown for a re-audit, or it forgets other records."""
    if reaudit and not earlier:
        raise BadInput(f"{path}: expected the name of a request that is there, got another. Add the request first.")
    if earlier and not reaudit:
        raise BadInput(
            f"{path}: expected a new request, got '{earlier[0].request}', which is there. Choose another name, or use "
            "'unrecall ledger reaudit'."
        )
    if earlier and forget and earlier[0].forget and {*forget} != {*earlier[0].forget}:
        raise BadInput(
            f"{path}: expected the records that '{earlier[0].request}' forgets, got others. Name the same file, or "
            "another request."
        )


def _begun(path: Path, file: AppendOnlyFile) -> tuple[bytes, Path | None]:
    """The salt of an open ledger, which gets its first line where it has none; where a torn one was set aside.

    BadInput where something else than a ledger is there.
    """
    if file.whole:
        return _salt(path, lines.parse(file.whole, file.torn, str(path)).opening.salt), None
    written = file.torn.rstrip(b"\0")[: len(START)]
    if written != START[: len(written)]:
        raise BadInput(f"{path}: expected a ledger or nothing there, got another file. Choose another path.")
    salt = _salt(path, None)
    opening = {"kind": "opening", "version": lines.VERSION, "time": _now(), "salt": _sha256(salt)}
    return salt, file.append(lines.sealed(opening, lines.FIRST))


def _salt(path: Path, digest: str | None) -> bytes:
    """The salt beside a ledger, made where `digest` is None; BadInput where it is gone, or has another sha256."""
    place = path.with_name(f"{path.name}.salt")
    if digest is None:
        with append_only(place) as file:
            place.chmod(0o600)
            if not file.whole:
                file.append(os.urandom(SALT).hex().encode())
    try:
        salt = bytes.fromhex(place.read_text(encoding="ascii").strip())
        if len(salt) != SALT:
            raise ValueError(f"{len(salt)} bytes")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{place}: expected the salt of the ledger, got nothing that can be read. Put it back: without it no "
            "record can be compared with earlier ones."
        ) from error
    if digest is not None and _sha256(salt) != digest:
        raise BadInput(f"{place}: expected the salt of {path.name}, got that of another ledger. Put its own back.")
    return salt


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
