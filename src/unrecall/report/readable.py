"""The record as people read it, on a page, in a text or in a table."""

from typing import Any

from unrecall.errors import visible
from unrecall.record.judgement import rejudge
from unrecall.record.schema import NO_USE, Curve, Record
from unrecall.record.verdict import too_few
from unrecall.report import harm, scales
from unrecall.report.sentences import NO_STATISTICS


def readable(record: Record) -> Record:
    """The record as people read it: judged anew by this version, without what can't be printed."""
    read = without_idle_null(without_ruined_choices(by_this_version(printable(record))))
    return read.model_copy(update={"doubts": [harm.doubt(read, doubt) for doubt in read.doubts]})


def by_this_version(record: Record) -> Record:
    """The record as this version judges it, without labels that it doesn't rest on and bounds that can't be reached."""
    read = without_row_verdicts(rejudge(record))
    return read.model_copy(update={"measurements": list(map(scales.possible, read.measurements))})


def printable(record: Record) -> Record:
    """The record with control characters in its texts as their code points."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return visible(value)
        if isinstance(value, dict):
            return {walk(key): walk(part) for key, part in value.items()}
        return [walk(part) for part in value] if isinstance(value, list | tuple) else value

    return Record.model_validate(walk(record.model_dump()))


def without_row_verdicts(record: Record) -> Record:
    """The record without labels of its rows, and without what these lack, where its verdict rests on no row."""
    if record.verdict.basis != "never trained":
        return record
    rows = [
        m.model_copy(update={"verdict": "not judged", "note": "" if m.note == too_few(m) else m.note})
        for m in record.measurements
    ]
    return record.model_copy(update={"measurements": rows})


def without_idle_null(record: Record) -> Record:
    """The record without its null where that is the original: where no batch moves what a network takes from it."""
    weights = record.provenance.weights
    if "null" not in weights or weights["null"] != weights.get("original"):
        return record
    attacks = [
        attack.model_copy(update={"curves": [_without_null(curve) for curve in attack.curves]})
        for attack in record.attacks
    ]
    measurements = [m.model_copy(update={"null": NO_STATISTICS}) for m in record.measurements]
    return record.model_copy(update={"attacks": attacks, "measurements": measurements})


def _without_null(curve: Curve) -> Curve:
    return curve.model_copy(update={"series": [s for s in curve.series if not s.role.startswith("null")]})


def without_ruined_choices(record: Record) -> Record:
    """The record without choices of attacks that ruined every copy; their rows say what they then show."""
    ruined = [attack.name for attack in record.attacks if attack.note == NO_USE]
    rows = {f"{name}{ending}" for name in ruined for ending in ("", "_mean", "_worst")}
    attacks = [
        attack.model_copy(update={"curves": [curve.model_copy(update={"note": ""}) for curve in attack.curves]})
        if attack.name in ruined
        else attack
        for attack in record.attacks
    ]
    measurements = [
        m.model_copy(update={"note": " ".join(filter(None, (NO_USE, m.note)))}) if m.name in rows else m
        for m in record.measurements
    ]
    return record.model_copy(update={"attacks": attacks, "measurements": measurements})
