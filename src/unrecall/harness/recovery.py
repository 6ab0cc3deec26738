"""What recovery attacks come to: how much of the tested forget examples comes back over the attacker's budget."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from unrecall.attacks.base import RecoveryAttack
from unrecall.attacks.relearn_time import RelearnTime
from unrecall.errors import NotSupported
from unrecall.evidence.scores import Trace, best
from unrecall.harness.evaluation import Evaluation, draw_for, score, score_hidden
from unrecall.harness.finding import Finding, is_judged, line, report_of, show
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Curve, Estimate, Measurement, Side


class Traces(NamedTuple):
    """What an attack brought back: of each model by role, of a copy of the original that only hides, of controls."""

    attack: RecoveryAttack
    by_role: Mapping[str, Trace]
    hidden: Trace | None
    controls: Mapping[str, Trace]


def over_budget(evaluation: Evaluation) -> Finding:
    """The mean and the worst over the budget, and the curve, for every model."""
    traces, frame = traced(evaluation), report_of(evaluation.attack)
    means = {role: stats.mean(np.mean(trace.reached, axis=0), share=True) for role, trace in traces.by_role.items()}
    worst = {
        role: max((stats.mean(shown, share=True) for shown in trace.reached), key=lambda e: e.value or 0)
        for role, trace in traces.by_role.items()
    }
    name, judged = frame.name, is_judged(evaluation.attack, "mean")
    rows = [
        Row(f"{name}_mean", f"{frame.title}, mean over the budget", "recovery", "above", judged).measured(means),
        Row(f"{name}_worst", f"{frame.title}, worst over the budget", "recovery", "above").measured(worst),
    ]
    return _finding(traces, rows, sooner="above")


def until_shown(evaluation: Evaluation) -> Finding:
    """Epochs until the loss on forget is back at the original's; one more than the search allows where it never is."""
    attack, traces = evaluation.attack, traced(evaluation)
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
    return _finding(traces, [row], sooner="below")


def traced(evaluation: Evaluation) -> Traces:
    """The attacker's best at each budget on the tested forget examples, and the controls beside it."""
    attack, setting, place = evaluation.attack, evaluation.setting, evaluation.places["forget"]
    if not isinstance(attack, RecoveryAttack):
        raise NotSupported(f"{type(attack).__name__}: expected an attack that brings something back.")
    trace = partial(best, cumulative=attack.cumulative)
    by_role = {role: trace(scores, place) for role, scores in evaluation.scores.items()}
    hidden = score_hidden(attack, setting)
    controls: dict[str, Trace] = {}
    if attack.shows_holdout and "holdout" in evaluation.places:
        controls["unlearned on holdout"] = trace(evaluation.scores["unlearned"], evaluation.places["holdout"])
    if (control := attack.control()) is not None:
        name, weaker = control
        unlearned = next(subject for subject in setting.subjects if subject.role == "unlearned")
        scores = score(weaker, unlearned, setting, draw_for(weaker, setting))
        controls[f"unlearned on {name}"] = best(scores, place, cumulative=weaker.cumulative)
    return Traces(attack, by_role, None if hidden is None else trace(hidden, place), controls)


def _finding(traces: Traces, rows: list[Measurement], sooner: Side) -> Finding:
    """The rows beside the curve over the budget, and whether the controls hold by the first of them."""
    attack, frame = traces.attack, report_of(traces.attack)
    variants = sorted({*traces.by_role["unlearned"].variants[1:]} - {""})
    best_choices = f"The attacker's best choices against the unlearned model: {', '.join(variants)}."
    lines = {**traces.by_role, **traces.controls}
    curve = Curve(
        name="recovery",
        title=f"{frame.title}: {attack.measure} on forgotten examples",
        x_label=attack.axis,
        y_label=attack.measure,
        series=[line(role, trace.budgets, trace.shown) for role, trace in lines.items()],
        note=best_choices if variants else "",
    )
    report = frame.model_copy(update={"curves": [curve]} | _controls(rows[0], traces, sooner))
    return Finding(report=report, measurements=rows)


def _controls(row: Measurement, traces: Traces, sooner: Side) -> dict[str, str | bool | None]:
    """The attack must bring back what a copy of the original only hides, and must do less to retrained models.

    Where there is no such copy, the original must show half of what there is.
    """
    original, hidden = traces.by_role["original"], traces.hidden
    there, most = original.shown[0].mean(), max(shown.mean() for shown in (hidden or original).reached)
    positive = f"the original itself shows what it knows: {most:.2f} when attacked"
    holds: bool | None = bool(most >= 0.5)
    if hidden is not None:
        before = hidden.shown[0].mean()
        positive = f"brings back what a copy of the original only hides: {before:.2f} to {most:.2f}"
        holds = bool(most - before >= 0.5 * (there - before)) if there > before + 0.1 else None
    value, low, reference = row.original.value, row.original.low, row.reference
    less: bool | None = None
    if reference is not None and value is not None:
        less = reference > value if sooner == "below" else reference < (value if low is None else low)
    return {
        "positive_control": positive,
        "positive_holds": holds,
        "negative_control": f"retrained models show less than it: {show(reference)} against {show(value)}",
        "negative_holds": less,
    }
