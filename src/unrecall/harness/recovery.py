"""Attacks that bring the forgotten back, run on every model alike; success is measured here, not by the attack."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack, Success
from unrecall.attacks.relearn_time import RelearnTime
from unrecall.data.request import Request
from unrecall.disk.cache import cache_folder, code_key
from unrecall.disk.files import content_key, read_text, write_text
from unrecall.disk.weights import digest_of
from unrecall.errors import MissingReference, NotSupported
from unrecall.harness.findings import Finding, Models, absent, lay_out, report_of, show
from unrecall.record import stats
from unrecall.record.schema import AttackReport, Curve, Estimate, Measurement, Series, Side
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


def disguised(
    attack: RecoveryAttack,
    original: nn.Module,
    request: Request,
    task: Task,
    seed: int = 0,
    session: Session | None = None,
) -> nn.Module | None:
    """A copy of the original that only looks forgetful, in a way that the attack must be able to undo."""
    return attack.disguise(original, request, task, seeded(seed), session or Session())


class Trace(NamedTuple):
    """One model under a recovery attack: at each budget the worst over variants, example by example."""

    budgets: list[float]
    correct: list[np.ndarray]
    loss: list[float]
    variant: list[str]

    @property
    def reached(self) -> list[np.ndarray]:
        """What was shown at each budget above none; as before the attack where it broke off at once."""
        return self.correct[1:] or self.correct


def trace(points: Iterator[tuple[Attacked, Success]], *, cumulative: bool = False) -> Trace:
    """The best that the attacker reached at each budget, over the attacker's choices.

    `cumulative`: or at a smaller one, where something was spent there.
    """
    best: dict[float, tuple[np.ndarray, float, str]] = {}
    for attacked, seen in points:
        known = best.get(attacked.budget)
        if known is None or seen.shown.mean() > known[0].mean():
            best[attacked.budget] = (seen.shown, seen.loss, attacked.variant)
    budgets = sorted(best)
    for less, more in itertools.pairwise(filter(None, budgets) if cumulative else ()):
        best[more] = max(best[less], best[more], key=lambda reached: reached[0].mean())
    columns = [best[budget] for budget in budgets]
    return Trace(budgets, [c[0] for c in columns], [c[1] for c in columns], [c[2] for c in columns])


def recovery(
    attack: RecoveryAttack, models: Models, request: Request, task: Task, seed: int, session: Session
) -> Finding:
    """Accuracy on the probe over the attacker's budget, for every model, with the same draws."""
    frame = report_of(attack)
    if attack.needs_class and request.kind != "class":
        reason = "works on class requests: it needs a class that the retrained model has never met"
        return absent(frame, reason, "_mean", "recovery")
    traces: dict[str, Trace] = {}
    try:
        task = attack.seen(task)
        for role, model in models.by_role().items():
            session.say(f"  {frame.title}: {role}")
            traces[role] = _attacked(attack, model, models, request, task, seed, session)
        undone = _undone(attack, models, request, task, seed, session)
        if (beside := attack.control(request)) is not None:
            split, control = beside
            traces[f"unlearned on {split}"] = _attacked(control, models.unlearned, models, request, task, seed, session)
    except (NotSupported, MissingReference) as reason:
        return absent(frame, str(reason), "_mean", "recovery")
    curve = Curve(
        name="recovery",
        title=f"{frame.title}: {attack.measure} on forgotten examples",
        x_label=attack.axis,
        y_label=attack.measure,
        series=[_line(role, one) for role, one in traces.items()],
        note=_chosen(traces["unlearned"]),
    )
    asked = {role: one for role, one in traces.items() if " on " not in role}
    means = {role: stats.mean(np.mean(one.reached, axis=0), share=True) for role, one in asked.items()}
    worst = {
        role: max((stats.mean(r, share=True) for r in one.reached), key=lambda e: e.value or 0)
        for role, one in asked.items()
    }
    frame = frame.model_copy(update={"curves": [curve]})
    if isinstance(attack, RelearnTime):
        time = _time(attack, asked)
        return Finding(_controlled(frame, time, undone, traces["original"], sooner="below"), [time])
    area = lay_out(
        f"{frame.name}_mean",
        f"{frame.title}, mean over the budget",
        "recovery",
        means,
        leak="above",
    )
    top = lay_out(f"{frame.name}_worst", f"{frame.title}, worst over the budget", "recovery", worst, leak="above")
    return Finding(_controlled(frame, area, undone, traces["original"], sooner="above"), [area, top])


def _time(attack: RelearnTime, traces: Mapping[str, Trace]) -> Measurement:
    """Epochs until the loss on forget is back at the original's; one more than the search allows where it never is."""
    goal = attack.factor * traces["original"].loss[0]
    never = attack.fit.epochs + 1
    times = {
        role: next((budget for budget, loss in zip(one.budgets, one.loss, strict=True) if loss <= goal), never)
        for role, one in traces.items()
    }
    estimates = {
        role: Estimate(value=time, n=1, note=f"more than {attack.fit.epochs}" if time == never else "")
        for role, time in times.items()
    }
    return lay_out("relearn_time", "Re-learn time", "recovery", estimates, leak="below", margin=2, unit="epochs")


def _attacked(
    attack: RecoveryAttack,
    model: nn.Module,
    models: Models,
    request: Request,
    task: Task,
    seed: int,
    session: Session,
) -> Trace:
    """One model under the attack; kept in the cache, since originals and retrained models meet it again and again."""

    def traced() -> Trace:
        return trace(_points(attack, model, models, request, task, seed, session), cumulative=attack.cumulative)

    if session.folder is None:
        return traced()
    path = _cached("trace", attack, digest_of(model), models, request, task, seed)
    if not path.exists():
        _keep(path, traced())
    return _kept(path)


def _undone(
    attack: RecoveryAttack, models: Models, request: Request, task: Task, seed: int, session: Session
) -> Trace | None:
    """A copy of the original that only hides, under the attack; kept too, for making one takes as long as attacking."""

    def traced() -> Trace | None:
        hidden = disguised(attack, models.original, request, task, seed, session)
        return None if hidden is None else _attacked(attack, hidden, models, request, task, seed, session)

    if session.folder is None:
        return traced()
    path = _cached("undone", attack, "", models, request, task, seed)
    if not path.exists():
        found = traced()
        if found is None:
            return None
        _keep(path, found)
    return _kept(path)


def _points(
    attack: RecoveryAttack, model: nn.Module, models: Models, request: Request, task: Task, seed: int, session: Session
) -> Iterator[tuple[Attacked, Success]]:
    """What the attacker has at each budget, before anything was spent first, and how much of the probe it shows.

    In place of a model that is no longer useful, what the same variant had before: the model as given to begin with.
    """
    probe = attack.probe(request, seeded(seed))
    before = attack.success(model, task, probe)
    yield Attacked(0.0, model, probe, "before"), before
    kept: dict[str, Success] = {}
    for one in attack.recover(model, models.original, request, task, seeded(seed), replace(session, show=False)):
        if one.useful:
            kept[one.variant] = attack.success(one.model, task, one.probe)
        yield one, kept.get(one.variant, before)


def _cached(
    what: str, attack: RecoveryAttack, model: str, models: Models, request: Request, task: Task, seed: int
) -> Path:
    """Where a trace is kept: by everything that decides it."""
    parts = (repr(attack), repr(task), model, digest_of(models.original), request.fingerprint, str(seed), code_key())
    return cache_folder() / f"{what}-{content_key(*parts)}.json"


def _keep(path: Path, one: Trace) -> None:
    write_text(path, json.dumps([one.budgets, [c.tolist() for c in one.correct], one.loss, one.variant]))


def _kept(path: Path) -> Trace:
    budgets, correct, loss, variant = json.loads(read_text(path))
    return Trace(budgets, [np.array(c) for c in correct], loss, variant)


def _controlled(
    frame: AttackReport, row: Measurement, undone: Trace | None, known: Trace, sooner: Side
) -> AttackReport:
    """The attack must bring back what a copy of the original only hides, and must do less to retrained models.

    `undone`: the attack on that copy; where there is none, the original must show half of what there is.
    """
    there, best = known.correct[0].mean(), max(c.mean() for c in (undone or known).reached)
    positive = f"the original itself shows what it knows: {best:.2f} when attacked"
    holds: bool | None = bool(best >= 0.5)
    if undone is not None:
        before = undone.correct[0].mean()
        positive = f"brings back what a copy of the original only hides: {before:.2f} to {best:.2f}"
        holds = bool(best - before >= 0.5 * (there - before)) if there > before + 0.1 else None
    first, mean = row.original, row.reference
    apart: bool | None = None
    if mean is not None and first.value is not None:
        apart = mean > first.value if sooner == "below" else mean < (first.value if first.low is None else first.low)
    return frame.model_copy(
        update={
            "positive_control": positive,
            "positive_holds": holds,
            "negative_control": f"retrained models show less than it: {show(mean)} against {show(first.value)}",
            "negative_holds": apart,
        }
    )


def _line(role: str, one: Trace) -> Series:
    estimates = [stats.mean(correct, share=True) for correct in one.correct]
    return Series(
        role=role,
        x=one.budgets,
        y=[e.value for e in estimates],
        low=[e.low for e in estimates],
        high=[e.high for e in estimates],
    )


def _chosen(one: Trace) -> str:
    choices = sorted({variant for variant in one.variant[1:] if variant})
    return f"The attacker's best choices against the unlearned model: {', '.join(choices)}." if choices else ""
