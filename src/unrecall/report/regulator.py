"""The two questions that a regulator asks of a model, as far as a record answers them.

Reference: European Data Protection Board, "Opinion 28/2024 on certain data protection aspects related to the processing
of personal data in the context of AI models", 2024: a model is anonymous only if the likelihood that personal data can
be extracted from it, and that they are obtained by queries, is insignificant.
"""

from typing import NamedTuple

from unrecall.record.never_trained_lines import after, p, strength
from unrecall.record.schema import Measurement, Record

EXTRACTED = ("relearn_mean", "recalibration_mean", "prototypical_mean", "quantise_mean", "linear_probe_mean")
QUERIED = ("extraction_strength", "forget_rouge", "loss_auc", "residual_knowledge_sums", "forget_accuracy")
AS_IT_IS = "as_it_is"
"""The one test of the fixed suite that needs no weights: it only asks."""


class Answer(NamedTuple):
    """A question, and what the record says to it."""

    question: str
    answer: str


def answers(record: Record) -> list[Answer]:
    """Both questions; then what was tested, and what can't be concluded."""
    return [
        Answer(
            "Can the forgotten be extracted from the model, by whoever holds it?",
            _said(record, EXTRACTED, asking=False),
        ),
        Answer("Can the forgotten be obtained by queries?", _said(record, QUERIED, asking=True)),
        Answer("What can't be concluded?", _limits(record)),
    ]


def _said(record: Record, names: tuple[str, ...], *, asking: bool) -> str:
    """The measurements of these names, and the strongest test beside records never trained on.

    `asking`: of the tests that only ask the model, or of those that take its weights.
    """
    rows = [m for m in map(record.measurement, names) if m is not None and m.unlearned.value is not None]
    parts = list(map(_row, rows))
    attacks = record.never_trained.attacks if record.never_trained else []
    tested = [test for test in attacks if (test.name == AS_IT_IS) is asking]
    if tested:
        strongest = min(tested, key=strength)
        figure = f"z = {strongest.z:.1f}" if strongest.p is None else f"p = {p(strongest.p)}"
        parts.insert(0, f"beside records never trained on, {after(strongest)}: {figure}")
    text = "; ".join(parts) or "not tested: no attack of this kind gave a value"
    return f"{text[0].upper()}{text[1:]}."


def _row(m: Measurement) -> str:
    beside = "" if m.original.value is None else f", original {m.original.value:.2f}"
    beside += "" if m.reference is None else f", retrained {m.reference:.2f}"
    return f"{m.title}: {m.unlearned.value:.2f}{beside}"


def _limits(record: Record) -> str:
    basis = "against retrained models" if record.verdict.basis == "retrained" else "against records never trained on"
    return (
        f"Judged {basis}: {record.verdict.label}. Not covered are other attacks than those that were run, other "
        "records than these, and knowledge that other texts or pictures share with them."
    )
