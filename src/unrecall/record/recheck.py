"""Reads a record again and says whether it agrees with itself; needs no model and no data.

What the rule is comes from the code, not from the record: which measurements are judged, on which side they leak and
how wide a margin may be; verdict, bounds, means and doubts follow from the numbers. The numbers themselves can't be
checked, nor whether rows or attacks were left out: a forgery that is consistent, with every number changed to fit, is
found only by doing the run again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from unrecall.record.doubts import Facts, doubts
from unrecall.record.schema import Estimate, Measurement, Record, load
from unrecall.record.verdict import ALPHA, JUDGED, judge

WIDEST = 0.1
"""The largest margin of a judged measurement."""


def recheck(path: Path) -> tuple[Record, list[str]]:
    """The record, and everything about it that is off: judged, summed and doubted anew, weights beside it hashed."""
    record = load(path)
    problems = [*_rule(record), *_judgement(record), *_numbers(record), *_weights(record, path.parent)]
    return record, problems or [*_doubts(record)]


def _rule(record: Record) -> Iterator[str]:
    """What the record says of the rule must be the rule."""
    for m in record.measurements:
        if m.judged != (m.name in JUDGED):
            yield f"{m.name}: the record has it {_word(m.judged)}, the rule has it {_word(not m.judged)}."
        if m.name not in JUDGED:
            continue
        side = JUDGED[m.name]
        if m.leak != side:
            yield f"{m.name}: the record says it leaks {m.leak or 'nowhere'}, the rule says {side or 'nowhere'}."
        if not 0 <= m.margin <= WIDEST:
            yield f"{m.name}: expected a margin of at most {WIDEST:g}, got {m.margin:g}."


def _word(judged: bool) -> str:
    return "judged" if judged else "not judged"


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
    if record.tuning and record.tuning.chosen not in [trial.strength for trial in record.tuning.trials]:
        yield f"tuning: the strength {record.tuning.chosen:g} was chosen, but not tried."
    if record.sizes.get("forget", 0) < 1:
        yield f"sizes: expected at least one forget example, got {record.sizes.get('forget', 0)}."
    for role, digest in record.provenance.weights.items():
        if len(digest) != 64:
            yield f"weights of {role}: '{digest}' is no sha256."


def _ordered(estimate: Estimate) -> bool:
    if estimate.value is None:
        return estimate.low is estimate.high is None
    if estimate.low is None or estimate.high is None:
        return True
    return estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9


def _doubts(record: Record) -> Iterator[str]:
    """Every doubt that the record gives rise to must be in it, word for word."""
    facts = Facts(
        sizes=record.sizes,
        measurements={m.name: m for m in record.measurements},
        reports=record.attacks,
        references=max((len(m.references) for m in record.measurements), default=0),
        tuning=record.tuning,
        dirty=record.provenance.dirty,
        weights=record.provenance.weights,
    )
    for doubt in doubts(facts):
        if doubt not in record.doubts:
            yield f"doubts: the record leaves out '{doubt.message}' [{doubt.id}]."


def _weights(record: Record, folder: Path) -> Iterator[str]:
    """An unlearned checkpoint in the record's folder must be the one that was audited."""
    for checkpoint in sorted([*folder.glob("unlearned.safetensors"), *folder.glob("parts/unlearned-*.safetensors")]):
        from unrecall.disk.weights import digest_of_file

        if digest_of_file(checkpoint) != record.provenance.weights.get("unlearned"):
            yield f"{checkpoint.name}: its weights are not those that were audited."
