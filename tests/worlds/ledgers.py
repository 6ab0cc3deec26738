"""Ledgers written by hand: a chain of audits that no run was needed for."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from unrecall.record.ledger import FIRST, VERSION, Entry, Ledger, parse, products, sealed

KEY = "ab" * 32


def fields(request: str, e_value: float | None = 2.0, **changed: Any) -> dict[str, Any]:
    """What a line says of an audit, its place in the chain left out."""
    return {
        "kind": "request",
        "request": request,
        "time": "2026-11-28T12:00:00+00:00",
        "method": "finetune",
        "scenario": "digits",
        "fingerprint": sha256(f"data of {request}".encode()).hexdigest(),
        "weights": f"model after {request}",
        "forget": [f"forget of {request}"],
        "holdout": [f"holdout of {request}"],
        "record": f"{request}/record.json",
        "record_sha256": sha256(request.encode()).hexdigest(),
        "label": "leaks",
        "basis": "retrained",
        "grade": "",
        "rule": "prediction-interval-1",
        "e_value": e_value,
        "e_note": "by hand",
        "epsilon": None if e_value is None else 0.5,
    } | changed


def chained(*audits: dict[str, Any]) -> bytes:
    """The whole lines of a ledger of these audits."""
    opening = {"kind": "opening", "version": VERSION, "time": "2026-11-28T12:00:00+00:00", "salt": KEY}
    lines = [sealed(opening, FIRST)]
    ledger: Ledger = parse(lines[0] + b"\n", b"", "ledger")
    for audit in audits:
        unproved = Entry.model_validate({**audit, "product": 1.0, "previous": "", "hash": ""})
        product = products([*ledger.entries, unproved])[-1]
        lines.append(sealed({**audit, "product": product}, ledger.hashes[-1]))
        ledger = parse(b"\n".join(lines) + b"\n", b"", "ledger")
    return b"\n".join(lines) + b"\n"


def written(path: Path, *audits: dict[str, Any]) -> Path:
    """The ledger's file."""
    path.write_bytes(chained(*audits))
    return path
