"""Which of the two verdicts stands at the head of a record: beside retrained models where those can judge anything."""

from collections.abc import Sequence

from unrecall.record.never_trained import as_verdict
from unrecall.record.schema import Measurement, NeverTrained, Record, Verdict
from unrecall.record.verdict import judge


def judge_all(
    measurements: Sequence[Measurement], never_trained: NeverTrained | None
) -> tuple[list[Measurement], Verdict]:
    """The measurements with their labels, and the verdict of the whole audit."""
    labelled, verdict = judge(measurements)
    if never_trained is not None and not verdict.judged:
        return labelled, as_verdict(never_trained)
    return labelled, verdict


def judged(record: Record) -> Record:
    """The record with the labels and the verdict that its numbers have under the present rules, whatever it says."""
    labelled, verdict = judge_all(record.measurements, record.never_trained)
    return record.model_copy(update={"measurements": labelled, "verdict": verdict})
