"""What recovery attacks come to: how much of the tested forget examples comes back over the attacker's budget."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from unrecall.attacks.base import RecoveryAttack
from unrecall.attacks.relearn_time import RelearnTime
from unrecall.errors import NotSupported
from unrecall.evidence.scores import Trace, best
from unrecall.harness.controls import (
    Control,
    DisguisedCopy,
    brings_back,
    shows,
    shows_less,
    with_negative,
    with_positive,
)
from unrecall.harness.evaluation import Evaluation, draw_for, one_sided, score, score_disguise
from unrecall.harness.finding import Figures, Finding, is_judged, line, report_of
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import NO_USE, Curve, Estimate, Measurement


class RecoveryTraces(NamedTuple):
    """What an attack brought back: of each model by role, and of what is drawn beside them."""

    attack: RecoveryAttack
    by_role: Mapping[str, Trace]
    beside: Mapping[str, Trace]


def figures_of(traces: RecoveryTraces) -> Figures:
    """The mean and the worst over the budget, and the curve, for every model."""
    means = {role: stats.mean(np.mean(trace.reached, axis=0), share=True) for role, trace in traces.by_role.items()}
    worst = {
        role: max((stats.mean(shown, share=True) for shown in trace.reached), key=lambda e: e.value or 0)
        for role, trace in traces.by_role.items()
    }
    return Figures({"mean": means, "worst": worst}, [_curve(traces)])


def recovery_curve(evaluation: Evaluation) -> Finding:
    """Those figures, beside the controls."""
    traces, frame = best_traces(evaluation), report_of(evaluation.attack)
    figures = figures_of(traces)
    means, worst = figures.rows["mean"], figures.rows["worst"]
    name, judged = frame.name, is_judged(evaluation.attack, "mean")
    rows = [
        Row(f"{name}_mean", f"{frame.title}, mean over the budget", "recovery", "above", judged).measured(means),
        Row(f"{name}_worst", f"{frame.title}, worst over the budget", "recovery", "above").measured(worst),
    ]
    return _finding(evaluation, traces, rows, figures.curves, sooner=False)


def relearning_time(evaluation: Evaluation) -> Finding:
    """Epochs until the loss on forget is back at the original's; one more than the search allows where it never is."""
    attack, traces = evaluation.attack, best_traces(evaluation)
    if not isinstance(attack, RelearnTime):
        raise NotSupported(f"{type(attack).__name__}: expected an attack that says how close is close enough.")
    goal, never = attack.factor * traces.by_role["original"].losses[0], attack.fit.epochs + 1
    times = {
        role: next((budget for budget, loss in zip(trace.budgets, trace.losses, strict=True) if loss <= goal), never)
        for role, trace in traces.by_role.items()
    }
    estimates = {
        role: Estimate(value=time, n=1, note=f"more than {attack.fit.epochs}" if time == never else "")
        for role, time in times.items()
    }
    row = Row("relearn_time", "Re-learn time", "recovery", "below", margin=2, unit="epochs").measured(estimates)
    return _finding(evaluation, traces, [row], [_curve(traces)], sooner=True)


def best_traces(evaluation: Evaluation) -> RecoveryTraces:
    """The attacker's best at each budget on the tested forget examples, and what is drawn beside it."""
    attack, setting, place = evaluation.attack, evaluation.setting, evaluation.places["forget"]
    if not isinstance(attack, RecoveryAttack):
        raise NotSupported(f"{type(attack).__name__}: expected an attack that brings something back.")
    trace = partial(best, cumulative=attack.cumulative)
    by_role = {role: trace(scores, place) for role, scores in evaluation.scores.items()}
    beside: dict[str, Trace] = {}
    if attack.shows_holdout and "holdout" in evaluation.places:
        beside["unlearned on holdout"] = trace(evaluation.scores["unlearned"], evaluation.places["holdout"])
    if (contrast := attack.contrast()) is not None:
        name, weaker = contrast
        unlearned = next(subject for subject in setting.subjects if subject.role == "unlearned")
        scores = score(weaker, unlearned, setting, draw_for(weaker, setting))
        beside[f"unlearned on {name}"] = best(scores, place, cumulative=weaker.cumulative)
    return RecoveryTraces(attack, by_role, beside)


def _curve(traces: RecoveryTraces) -> Curve:
    """What is shown over the budget."""
    attack = traces.attack
    return Curve(
        name="recovery",
        title=f"{report_of(attack).title}: {attack.measure} on forgotten examples",
        x_label=attack.axis,
        y_label=attack.measure,
        series=[line(role, trace.budgets, trace.shown) for role, trace in {**traces.by_role, **traces.beside}.items()],
    )


def _finding(
    evaluation: Evaluation, traces: RecoveryTraces, rows: list[Measurement], curves: list[Curve], *, sooner: bool
) -> Finding:
    """The rows beside the curve over the budget, and the controls; `sooner`: a lower first figure shows more."""
    frame = report_of(traces.attack)
    variants = sorted({*traces.by_role["unlearned"].variants[1:]} - {""})
    best_choices = f"The attacker's best choices against the unlearned model: {', '.join(variants)}."
    curves = [curve.model_copy(update={"note": best_choices if variants else ""}) for curve in curves]
    sound = [scores for role, scores in evaluation.scores.items() if role.startswith("retrained")]
    sound = sound or [evaluation.scores["original"]]
    ruined = evaluation.scores["unlearned"].only_ruins and not any(scores.only_ruins for scores in sound)
    note = NO_USE if ruined else ""
    report = with_positive(frame.model_copy(update={"curves": curves, "note": note}), _positive(evaluation, traces))
    others = [trace.shown[0] for role, trace in traces.by_role.items() if role.startswith("retrained")]
    as_much = shows_less(rows[0], traces.by_role["original"].shown[0], np.array(others), sooner=sooner)
    if as_much is not None:
        report = with_negative(report, as_much)
    return Finding(report=report, measurements=rows)


def _positive(evaluation: Evaluation, traces: RecoveryTraces) -> Control:
    """The attack must bring back what a copy of the original hides, or show what the original knows without one."""
    attack, place, setting = traces.attack, evaluation.places["forget"], evaluation.setting
    hidden, original = score_disguise(attack, setting), traces.by_role["original"]
    if hidden is not None:
        shown, variants = hidden.scores.at(place), hidden.scores.variants
        spent = {variant: i for i, variant in enumerate(variants) if hidden.scores.budgets[i] > 0}
        hides = hidden.hides[place.indices]
        return brings_back(DisguisedCopy(hides, original.shown[0], shown[0], shown, [*spent.values()] or [0]))
    others = [np.mean(traces.by_role[role].reached, axis=0) for role in setting.models.references()]
    elsewhere, holdout = evaluation.places.get("holdout"), np.empty(0)
    if elsewhere is not None and not one_sided(attack, setting.request):
        trace = best(evaluation.scores["original"], elsewhere, cumulative=attack.cumulative)
        holdout = np.mean(trace.reached, axis=0)
    return shows(np.mean(original.reached, axis=0), np.array(others), holdout)
