"""The rule that verdicts followed until November 2026, so that records of that time can be checked."""

from collections.abc import Sequence

from unrecall.record.schema import Label, Measurement, Verdict
from unrecall.record.stats import prediction_interval
from unrecall.record.verdict import less_retained, reference_values

ALPHA = 0.05
RULE = "prediction-interval-1"
"""The id of this rule."""
JUDGED = ("loss_auc",)
"""What this rule judged and the present one doesn't."""
IN_DOUBT = "retrained models know too little of retain to be a measure of use"
ORDER: tuple[Label, ...] = ("leaks", "over-forgets", "inconclusive", "like retrained")


def judge(measurements: Sequence[Measurement], alpha: float = ALPHA) -> tuple[list[Measurement], Verdict]:
    """Labels each judged measurement and the whole audit.

    Another retrained model would fall between the bounds

        mean(r) +- t_{K-1, 1 - a/2} s(r) sqrt(1 + 1/K),    a = alpha / number of judged measurements,

    with s(r) never less than one example's worth, 1/n. Outside them the unlearned model leaks or over-forgets, by side;
    inside, it is like retrained if the bounds are no wider than the margin on either side, and inconclusive otherwise.
    By the union bound, a retrained model judged against retrained ones fails with probability at most `alpha`.
    Where retrained models know too little of retain (`less_retained`), what would be like them on use is inconclusive.
    """
    decided = [m for m in measurements if m.judged and m.unlearned.value is not None and len(reference_values(m)) >= 2]
    level = 1 - alpha / max(1, len(decided))
    names = {m.name for m in decided}
    lacking = less_retained(measurements) is not None
    labelled = [_in_doubt(labelled) if lacking else labelled for labelled in (_label(m, level) for m in measurements)]
    most = max((len(reference_values(m)) for m in measurements if m.judged), default=0)
    return labelled, _whole([m for m in labelled if m.name in names], alpha, most)


def _label(m: Measurement, level: float) -> Measurement:
    """The measurement with its label, and the bounds that it follows from where there are two references or more."""
    value = m.unlearned.value
    if not m.judged or value is None:
        return m.model_copy(update={"verdict": "not judged", "bound_low": None, "bound_high": None})
    bounds = prediction_interval(reference_values(m), level, 1 / max(1, m.unlearned.n))
    if bounds is None:
        few = f"{len(reference_values(m))} retrained models: at least 2 are needed to know how far they differ."
        return m.model_copy(update={"verdict": "inconclusive", "note": m.note or few})
    low, high = bounds
    label: Label
    if low <= value <= high:
        label = "like retrained" if (high - low) / 2 <= m.margin else "inconclusive"
    elif m.leak is None:
        label = "over-forgets" if value < low else "like retrained"
    else:
        label = "leaks" if (value > high) == (m.leak == "above") else "over-forgets"
    return m.model_copy(update={"verdict": label, "bound_low": low, "bound_high": high})


def _in_doubt(m: Measurement) -> Measurement:
    """A row of use, which leaks on no side, that is like retrained models which are no measure of use."""
    if m.leak is not None or m.verdict != "like retrained":
        return m
    return m.model_copy(update={"verdict": "inconclusive", "note": m.note or IN_DOUBT})


def _whole(judged: Sequence[Measurement], alpha: float, references: int) -> Verdict:
    counts: dict[str, int] = {label: sum(m.verdict == label for m in judged) for label in ORDER}
    if not judged:
        few = {0: "for want of retrained models", 1: "with fewer than 2 retrained models"}
        reason = few.get(references, "for want of values")
        line = f"Inconclusive: nothing could be judged, {reason}. See the warnings."
        return Verdict(rule=RULE, label="inconclusive", line=line, counts=counts, alpha=alpha, judged=0)
    label = next(label for label in ORDER if counts[label])
    named = "; ".join(m.title for m in judged if m.verdict == label)
    share = f"{counts[label]} of {len(judged)} judged measurements"
    line = {
        "leaks": f"Leaks: it shows more of the forgotten than retrained models do, on {share} ({named}).",
        "over-forgets": f"Over-forgets: it knows less than retrained models do, on {share} ({named}).",
        "inconclusive": f"Inconclusive: the retrained models {_why(judged)} on {share} ({named}).",
        "like retrained": f"Like retrained: all {len(judged)} judged measurements fall where retrained models do.",
    }[label]
    return Verdict(rule=RULE, label=label, line=line, counts=counts, alpha=alpha, judged=len(judged))


def _why(judged: Sequence[Measurement]) -> str:
    """What is the matter with retrained models where the verdict is inconclusive."""
    doubted = {IN_DOUBT in m.note for m in judged if m.verdict == "inconclusive"}
    too_little = "know too little of retain to judge use by"
    return {True: too_little, False: "differ too much among themselves"}[all(doubted)] + (
        f", or {too_little}," if doubted == {True, False} else ""
    )
