"""Reads a record again and says whether it holds together; needs no model, no data and no trust in who wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from unrecall.records import Estimate, Record, load
from unrecall.verdict import judge


def recheck(path: Path) -> tuple[Record, list[str]]:
    """The record, and everything about it that is off: judged anew, summed anew, weights beside it hashed anew."""
    record = load(path)
    problems = [*_judgement(record), *_numbers(record), *_weights(record, path.parent)]
    return record, problems


def _judgement(record: Record) -> Iterator[str]:
    labelled, verdict = judge(record.measurements, record.verdict.alpha)
    for written, found in zip(record.measurements, labelled, strict=True):
        if written.verdict != found.verdict:
            yield f"{written.name}: the record says '{written.verdict}', its numbers say '{found.verdict}'."
    if verdict != record.verdict:
        yield f"verdict: the record says '{record.verdict.line}', its numbers say '{verdict.line}'."


def _numbers(record: Record) -> Iterator[str]:
    for m in record.measurements:
        known = [e.value for e in m.references if e.value is not None]
        if known and (m.reference is None or not math.isclose(m.reference, sum(known) / len(known), abs_tol=1e-9)):
            yield f"{m.name}: the mean of its references is not its reference."
        for estimate in (m.unlearned, m.original, m.null, *m.references):
            if not _ordered(estimate):
                yield f"{m.name}: the interval {estimate.low} to {estimate.high} does not hold {estimate.value}."
    for role, digest in record.provenance.weights.items():
        if len(digest) != 64:
            yield f"weights of {role}: '{digest}' is no sha256."


def _ordered(estimate: Estimate) -> bool:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return True
    return estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9


def _weights(record: Record, folder: Path) -> Iterator[str]:
    """The unlearned checkpoint beside the record, if it is there, must be the one that was audited."""
    checkpoint = folder / "unlearned.safetensors"
    if not checkpoint.exists():
        return
    from unrecall.weights import digest_of_file

    if digest_of_file(checkpoint) != record.provenance.weights.get("unlearned"):
        yield f"{checkpoint.name}: its weights are not those that were audited."
