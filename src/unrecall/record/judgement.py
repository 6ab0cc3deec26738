"""Which of the two verdicts stands at the head of a record: beside retrained models where those can judge anything."""

from collections.abc import Mapping, Sequence

from unrecall.record import former, never_trained, verdict
from unrecall.record.never_trained import SHARED, as_verdict, derived
from unrecall.record.schema import AttackReport, Measurement, NeverTrained, Record, Side, Verdict
from unrecall.record.verdict import SINCE, judge

RULES = (verdict.RULE, *verdict.FORMER, never_trained.RULE, never_trained.FORMER, former.RULE)
"""The rules by which a record can be judged here."""


def judge_all(
    measurements: Sequence[Measurement],
    reports: Sequence[AttackReport],
    alone: NeverTrained | None,
    rule: str = never_trained.RULE,
) -> tuple[list[Measurement], Verdict]:
    """The measurements with their labels, and the verdict of the whole audit.

    `reports`: of the attacks, with their controls. `alone`: what was found beside records that were never trained on;
    `rule`: by which its figures were made.
    """
    labelled, whole = judge(measurements, reports)
    return labelled, as_verdict(alone, rule) if alone is not None and not whole.judged else whole


def rejudge(record: Record) -> Record:
    """The record with the labels and the verdict that its numbers have under the present rules, whatever it says.

    Figures beside never-trained records stay those of the rule that made them, which is then the verdict's.
    """
    alone = record.never_trained
    if alone is not None:
        alone = derived(alone, unchanged=record.provenance.unchanged)
    labelled, whole = judge_all(record.measurements, record.attacks, alone, record.verdict.rule)
    return record.model_copy(update={"measurements": labelled, "verdict": whole, "never_trained": alone})


def judged_by_own_rule(record: Record) -> Record | None:
    """The record judged anew by the rule that it names; None where that is unknown here."""
    rule = record.verdict.rule
    if rule not in RULES:
        return None
    if rule == former.RULE:
        labelled, whole = former.judge(record.measurements)
    elif rule in verdict.FORMER:
        labelled, whole = judge(record.measurements, record.attacks, rule=rule)
    else:
        return rejudge(record)
    return record.model_copy(update={"measurements": labelled, "verdict": whole})


def declared_by_own_rule(record: Record, declared: Mapping[str, Side | None]) -> Mapping[str, Side | None]:
    """What was judged, and which side leaks, under the rule that the record names; `declared` under the present one."""
    if record.verdict.rule != former.RULE:
        return declared
    return {name: side for name, side in declared.items() if name not in SINCE} | dict.fromkeys(former.JUDGED, "above")


LITTLE, SMALLEST = 0.1, 0.05
"""The share of what could be forgotten below which nothing was; and the least there must be to forget."""


def forgot_nothing(record: Record) -> str:
    """In a sentence, that the method forgot nothing; empty where it forgot something, or that can't be told.

    By the probability of forget's answers, or accuracy on forget: less than a tenth of what lies between the original
    and what was never seen (retrained models, or else holdout; of answers, and of a class or concept, 0).
    """
    if record.verdict.label == "unchanged":
        return "It forgot nothing: its weights are the original's."
    answers, accuracy = record.measurement("forget_probability"), record.measurement("forget_accuracy")
    m = answers if answers is not None and answers.unlearned.value is not None else accuracy
    if m is None or m.original.value is None or m.unlearned.value is None:
        return ""
    holdout = record.measurement("holdout_accuracy")
    unseen = m.reference
    if unseen is None and (m is answers or record.kind in SHARED):
        unseen = 0.0
    elif unseen is None and holdout is not None:
        unseen = holdout.original.value
    before, after = m.original.value, m.unlearned.value
    if unseen is None or before - unseen < SMALLEST or before - after >= LITTLE * (before - unseen):
        return ""
    it = "Of what must go it" if record.verdict.label == "over-forgets" else "It"
    return f"{it} forgot nothing: {m.title} is {after:.2f}, and was {before:.2f} (never seen: {unseen:.2f})."
