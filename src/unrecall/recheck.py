"""Reads a record again and says whether it holds together; needs no model, no data and no trust in who wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from unrecall.records import Estimate, Measurement, Record, load
from unrecall.verdict import ALPHA, judge


def recheck(path: Path) -> tuple[Record, list[str]]:
    """The record, and everything about it that is off: judged anew, summed anew, weights beside it hashed anew."""
    record = load(path)
    problems = [*_judgement(record), *_numbers(record), *_weights(record, path.parent)]
    return record, problems


def _judgement(record: Record) -> Iterator[str]:
    labelled, verdict = judge(record.measurements)
    if record.verdict.alpha != ALPHA:
        yield f"verdict: the record was judged at alpha {record.verdict.alpha:g}, the rule says {ALPHA:g}."
    for written, found in zip(record.measurements, labelled, strict=True):
        if written.verdict != found.verdict:
            yield f"{written.name}: the record says '{written.verdict}', its numbers say '{found.verdict}'."
        if not _same_bounds(written, found):
            yield f"{written.name}: its bounds are not those of its references."
    if verdict != record.verdict:
        yield f"verdict: the record says '{record.verdict.line}', its numbers say '{verdict.line}'."


def _same_bounds(written: Measurement, found: Measurement) -> bool:
    pairs = ((written.bound_low, found.bound_low), (written.bound_high, found.bound_high))
    return all(
        a is b is None or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9))
        for a, b in pairs
    )


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
    """An unlearned checkpoint in the record's folder must be the one that was audited."""
    for checkpoint in sorted([*folder.glob("unlearned.safetensors"), *folder.glob("parts/unlearned-*.safetensors")]):
        from unrecall.weights import digest_of_file

        if digest_of_file(checkpoint) != record.provenance.weights.get("unlearned"):
            yield f"{checkpoint.name}: its weights are not those that were audited."
