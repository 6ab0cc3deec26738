"""The ledger of requests: JSON Lines, each of which holds the hash of the one before; reads and checks them.

docs/ledger.md says what a line holds, which figures may be multiplied, and what the file alone can't show.
"""

import hashlib
import hmac
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from unrecall.disk.append_only import split_torn
from unrecall.errors import BadInput
from unrecall.record.betting import MOST
from unrecall.record.schema import Frozen

VERSION = 1
FIRST = "0" * 64
"""What stands in the first line for the hash of the one before."""
SHA256 = r"^[0-9a-f]{64}$"


class Opening(Frozen):
    """The first line. `salt`: sha256 of the salt, which lies in a file of its own."""

    kind: Literal["opening"]
    version: int
    time: str
    salt: str = Field(pattern=SHA256)
    previous: str
    hash: str


class Entry(Frozen):
    """One audit of one request: the first, or one of a later model.

    `forget`, `holdout`: salted digests of the records; empty where they weren't named. `fingerprint`: sha256 of the
    whole request; `weights`: of the audited model. `record`: where the audit's record lies, from the ledger;
    `record_sha256`: its bytes. `e_value` is None where `e_note` says why; else that says how it was computed.
    `epsilon`: a lower bound from the same pairs, with 95 % confidence. `product`: see `Evidence`.
    """

    kind: Literal["request", "reaudit"]
    request: str = Field(min_length=1)
    time: str
    method: str
    scenario: str
    fingerprint: str
    weights: str
    forget: list[str]
    holdout: list[str]
    record: str
    record_sha256: str = Field(pattern=SHA256)
    label: str
    basis: str
    grade: str
    rule: str
    e_value: float | None = Field(ge=0)
    e_note: str
    epsilon: float | None = Field(ge=0)
    product: float
    previous: str
    hash: str


class Ledger(NamedTuple):
    """A whole chain; `torn`: what a killed process left of a line after it."""

    opening: Opening
    entries: list[Entry]
    torn: bytes

    @property
    def hashes(self) -> list[str]:
        """The hash of every line, in order; the last is the head."""
        return [self.opening.hash, *(entry.hash for entry in self.entries)]


class Evidence(NamedTuple):
    """What all audits together say against "these models never saw what they were to forget".

    `product`: of the first audits' e-values of requests that share no record with an earlier one. Looked at after every
    request, it exceeds 1/alpha at any time with probability at most alpha (Ville). `combined`: re-audits of a request,
    and requests that share records, are averaged, the rest multiplied; an e-value at a time settled beforehand.
    """

    product: float
    combined: float


def read(path: Path) -> Ledger:
    """The ledger of a file; BadInput names the line at which the chain breaks."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: expected a ledger, got: {error.strerror}. Check the path.") from error
    whole, torn = split_torn(data)
    if not whole:
        raise BadInput(f"{path}: expected a ledger, got {'a torn first line' if torn else 'an empty file'}.")
    return parse(whole, torn, str(path))


def parse(whole: bytes, torn: bytes, place: str) -> Ledger:
    """The ledger that these whole lines make up; BadInput names the line at which the chain breaks."""
    lines = whole[:-1].split(b"\n")
    try:
        opening = Opening.model_validate(_checked(lines[0], FIRST), strict=True)
        if opening.version != VERSION:
            raise ValueError(f"version {opening.version}; this unrecall reads {VERSION}")
    except ValueError as error:
        raise _broken(place, 1, error) from error
    entries: list[Entry] = []
    requests: set[str] = set()
    previous = opening.hash
    for number, line in enumerate(lines[1:], 2):
        try:
            entry = Entry.model_validate(_checked(line, previous), strict=True)
            _check_story(entry, requests)
        except ValueError as error:
            raise _broken(place, number, error) from error
        entries.append(entry)
        requests.add(entry.request)
        previous = entry.hash
    for number, (entry, product) in enumerate(zip(entries, products(entries), strict=True), 2):
        if not math.isclose(entry.product, product, rel_tol=1e-9):
            wrong = ValueError(f"a product of {entry.product:g}, where its e-values make {product:g}")
            raise _broken(place, number, wrong)
    return Ledger(opening, entries, torn)


def sealed(fields: Mapping[str, Any], previous: str) -> bytes:
    """A line of the ledger, without its end: these fields, the hash of the line before, and that of this one."""
    linked = {**fields, "previous": previous}
    return _canonical({**linked, "hash": _hash(linked)})


def evidence(entries: Sequence[Entry]) -> Evidence:
    """What the entries of a ledger come to."""
    return Evidence([1.0, *products(entries)][-1], _combined(entries))


def products(entries: Sequence[Entry]) -> list[float]:
    """The running product after each entry (`Evidence`)."""
    product, earlier_records, running = 1.0, set[str](), []
    for entry in entries:
        if entry.kind == "request":
            if entry.e_value is not None and apart(entry, earlier_records):
                product = min(product * entry.e_value, MOST)
            earlier_records.update(_records(entry))
        running.append(product)
    return running


def firsts(entries: Sequence[Entry]) -> list[Entry]:
    """The first audit of each request, in order."""
    return [entry for entry in entries if entry.kind == "request"]


def apart(entry: Entry, earlier_records: set[str]) -> bool:
    """Whether an audit names its records, and none of them served an earlier request."""
    return bool(entry.forget and entry.holdout) and earlier_records.isdisjoint(_records(entry))


def of_request(entries: Sequence[Entry]) -> dict[str, float | None]:
    """Each request's e-value: the mean over its audits; None where none has one."""
    values: dict[str, list[float]] = {entry.request: [] for entry in entries}
    for entry in entries:
        values[entry.request] += [] if entry.e_value is None else [entry.e_value]
    return {name: math.fsum(own) / len(own) if own else None for name, own in values.items()}


def due(entries: Sequence[Entry]) -> list[str]:
    """The requests that have not been audited under the newest model: the one that was audited first the latest."""
    requests, models = firsts(entries), list(dict.fromkeys(entry.weights for entry in entries))
    under = {entry.request for entry in entries if entry.weights == models[-1]}
    return [entry.request for entry in requests if entry.request not in under]


def salted(salt: bytes, record: str) -> str:
    """The digest under which a record stands in a ledger: HMAC-SHA256, so that without the salt none can be tried."""
    return hmac.new(salt, record.encode(), "sha256").hexdigest()


def _combined(entries: Sequence[Entry]) -> float:
    """The product over clusters of requests that share records of the mean e-value in each."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    values = of_request(entries)
    valued = [e for e in firsts(entries) if values[e.request] is not None and e.forget and e.holdout]
    if not valued:
        return 1.0
    numbers: dict[str, int] = {}
    pairs = [(i, len(valued) + numbers.setdefault(r, len(numbers))) for i, e in enumerate(valued) for r in _records(e)]
    size = len(valued) + len(numbers)
    linked = coo_array(([1] * len(pairs), tuple(zip(*pairs, strict=True))), shape=(size, size))
    clusters: dict[int, list[float]] = {}
    for entry, cluster in zip(valued, connected_components(linked, directed=False)[1].tolist(), strict=False):
        clusters.setdefault(cluster, []).append(values[entry.request] or 0.0)
    product = 1.0
    for own in clusters.values():
        product = min(product * math.fsum(own) / len(own), MOST)
    return product


def _records(entry: Entry) -> list[str]:
    """The digests of both sets of an audit, and those of its data and its record's file, which are of one request."""
    return [*entry.forget, *entry.holdout, entry.record_sha256, *([entry.fingerprint] if entry.fingerprint else [])]


def _check_story(entry: Entry, requests: set[str]) -> None:
    """ValueError where an entry can't follow on those before it, which are of `requests`."""
    if entry.kind == "request" and entry.request in requests:
        raise ValueError(f"a second request named '{entry.request}'")
    if entry.kind == "reaudit" and entry.request not in requests:
        raise ValueError(f"a re-audit of '{entry.request}', which no earlier line asks for")


def _checked(line: bytes, previous: str) -> dict[str, Any]:
    """The fields of a line; ValueError where it doesn't follow the line of that hash, or isn't as it was written."""
    try:
        fields = json.loads(line.decode(), parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("lists or objects nested too deep") from error
    if not isinstance(fields, dict) or _canonical(fields) != line:
        raise ValueError("a line that is not as a ledger writes it")
    content = {key: value for key, value in fields.items() if key != "hash"}
    if fields.get("hash") != _hash(content):
        raise ValueError("a line whose hash is not that of its content: it was changed")
    if fields.get("previous") != previous:
        raise ValueError("a line that doesn't follow the one before: lines were changed, left out, added or swapped")
    return fields


def _broken(place: str, number: int, error: ValueError) -> BadInput:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        reason = f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'its top'}"
    else:
        reason = "bytes that are no text" if isinstance(error, UnicodeDecodeError) else str(error)
    return BadInput(
        f"{place}:{number}: expected a whole chain, got {reason}. The chain is broken at line {number}: "
        "compare with a copy, and trust no line from there on."
    )


def _refused(constant: str) -> float:
    raise ValueError(f"the number {constant}")


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _hash(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(fields)).hexdigest()


def shared(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """The first audits that are not multiplied, each with the reason."""
    request_of: dict[str, str] = {}
    for entry in firsts(entries):
        records = _records(entry)
        others = sorted({request_of[record] for record in records if record in request_of})
        if entry.e_value is None:
            yield entry, entry.e_note
        elif not (entry.forget and entry.holdout):
            yield entry, "its records were not named, so that it may share some with others"
        elif others:
            yield entry, f"it shares records with {', '.join(others)}"
        for record in records:
            request_of.setdefault(record, entry.request)
