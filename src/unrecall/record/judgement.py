"""Which of the two verdicts stands at the head of a record: beside retrained models where those can judge anything."""

from collections.abc import Mapping, Sequence

from unrecall.record import former, never_trained, verdict
from unrecall.record.never_trained import as_verdict
from unrecall.record.schema import Measurement, NeverTrained, Record, Side, Verdict
from unrecall.record.verdict import SINCE, judge


def judge_all(measurements: Sequence[Measurement], alone: NeverTrained | None) -> tuple[list[Measurement], Verdict]:
    """The measurements with their labels, and the verdict of the whole audit.

    `alone`: what was found beside records that were never trained on.
    """
    labelled, whole = judge(measurements)
    return labelled, as_verdict(alone) if alone is not None and not whole.judged else whole


def judged(record: Record) -> Record:
    """The record with the labels and the verdict that its numbers have under the present rules, whatever it says."""
    labelled, whole = judge_all(record.measurements, record.never_trained)
    return record.model_copy(update={"measurements": labelled, "verdict": whole})


def judged_then(record: Record) -> Record | None:
    """The record judged anew by the rule that it names; None where that is unknown here."""
    if record.verdict.rule != former.RULE:
        return judged(record) if record.verdict.rule in (verdict.RULE, never_trained.RULE) else None
    labelled, whole = former.judge(record.measurements)
    return record.model_copy(update={"measurements": labelled, "verdict": whole})


def declared_then(record: Record, declared: Mapping[str, Side | None]) -> Mapping[str, Side | None]:
    """What was judged, and which side leaks, under the rule that the record names; `declared` under the present one."""
    if record.verdict.rule != former.RULE:
        return declared
    return {name: side for name, side in declared.items() if name not in SINCE} | dict.fromkeys(former.JUDGED, "above")
