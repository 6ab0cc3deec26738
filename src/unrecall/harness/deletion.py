"""Has the requests of an adversary honoured by the defender's own method, and measures who is harmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from unrecall.attacks.base import Attack
from unrecall.attacks.deletion import DeletionAttack
from unrecall.data.request import Request
from unrecall.disk.cache import Cache
from unrecall.errors import BadInput, Diverged, MissingReference, NotSupported
from unrecall.evidence.setting import Defender, Setting
from unrecall.harness.finding import Finding, absent, report_of, show
from unrecall.harness.requests import Ground, Making, Outcome, Siege
from unrecall.models.observe import observe
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import AttackReport, Curve, Estimate, Measurement, Series
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed

LEFT = "requested examples still answered right"
NONE = Estimate(value=None, note="not applicable")


def deleted(attack: DeletionAttack, setting: Setting) -> Finding:
    """What the adversary's requests do to the victim's unseen examples, beside random requests of the same sizes.

    Without the defender's method there is nothing to attack.
    """
    owner, task = type(attack).__name__, setting.task
    try:
        if setting.defender is None:
            raise MissingReference(
                f"{owner}: expected the defender's method, got a model alone. Use `unrecall run`, or pass "
                "audit(..., defender=...)."
            )
        if not isinstance(task, Classed):
            raise NotSupported(f"{owner}: expected examples that have a class each, got a task that knows no classes.")
        classified, before = task.classified(), setting.evidence["original"].signals
        if classified is not task:
            original = setting.models.original
            before = {split: observe(original, classified, setting.request[split]) for split in before}
        ground = Ground(attack, setting, classified, before)
        ground.check()
        return _laid_out(report_of(attack), _besieged(ground, setting.defender), task.classes)
    except (NotSupported, MissingReference, Diverged) as reason:
        return absent(attack, str(reason), "success", "harm")


def check_requests(attacks: Sequence[Attack], request: Request, task: Task) -> None:
    """BadInput, before anything is trained, where a victim is to be forgotten anyway or is no class of the task."""
    names = task.classes if isinstance(task, Classed) else ()
    for attack in attacks:
        if not isinstance(attack, DeletionAttack):
            continue
        owner = type(attack).__name__
        if attack.victim in request.masked:
            raise BadInput(
                f"{owner}: expected a victim that is not the class to be forgotten, got {attack.victim} for both. "
                "Choose another victim, or another request."
            )
        trained = len(request.forget) + len(request.retain)
        if max(attack.sizes) >= trained:
            raise BadInput(
                f"{owner}: expected sizes below {trained}, the training examples, got {max(attack.sizes)}. Ask for "
                "fewer."
            )
        for name in ("victim", "wished", "own"):
            if names and getattr(attack, name) >= len(names):
                raise BadInput(
                    f"{owner}: expected {name} to be a class of the data, got {getattr(attack, name)}. Known: "
                    f"0..{len(names) - 1}."
                )


def _besieged(ground: Ground, defender: Defender) -> Siege:
    """Has every request honoured, each a model of its own; what is known from an earlier run is read."""
    attack, setting, order = ground.attack, ground.setting, ground.order()
    draws = [ground.drawn(i) for i in range(attack.controls)]
    sizes = sorted(set(attack.sizes))

    own = Cache(setting.session.folder)

    def honoured(asked: Request) -> Outcome:
        made = Making("defender", lambda: defender.unlearn(asked, setting.seed), defender.name)
        return ground.outcome(made, asked, own)

    def rehearsed(asked: Request) -> Outcome:
        made = Making("surrogate", lambda: attack.rehearse(setting.models.original, asked.forget, setting.job()))
        return ground.outcome(made, asked, setting.cache)

    def trained(asked: Request, retrain: Callable[[Request, int], nn.Module], i: int) -> Outcome:
        return ground.outcome(Making(f"retrained {i}", lambda: retrain(asked, i)), asked, own)

    chosen = [ground.asking(order[:n]) for n in sizes]
    blind = [[ground.asking(draw[:n]) for draw in draws] for n in sizes]
    retrain, surrogate = defender.retrain, [rehearsed(one) for one in chosen]
    picked = int(np.argmax([attack.harmed(ground.known, one.known).mean() for one in surrogate]))
    mine = order[: sizes[picked]]
    others = ground.alike(mine)
    return Siege(
        ground=ground,
        sizes=sizes,
        picked=picked,
        asked=ground.indices(mine),
        chosen=[honoured(one) for one in chosen],
        random=[[honoured(one) for one in group] for group in blind],
        surrogate=surrogate,
        random_surrogate=[rehearsed(one) for one in blind[picked]],
        alike=[honoured(ground.asking(others))] if others else [],
        losses=[float(ground.losses[which].mean()) for which in (mine, others) if which],
        retrained=[] if retrain is None else [trained(chosen[picked], retrain, i) for i in range(attack.retrain)],
    )


def _laid_out(frame: AttackReport, siege: Siege, classes: Sequence[str]) -> Finding:
    """The picked request in numbers, all of them as curves, and whether the controls hold."""
    attack, ground, at = siege.ground.attack, siege.ground, siege.picked
    after, random = siege.chosen[at], siege.random[at]
    victim, wished = _called(attack.victim, classes), _called(attack.wished, classes)
    share = f"unseen {victim} newly {f'answered {wished}' if attack.wished >= 0 else 'wrong'}"
    adverse, blind, own = siege.harm([after]), siege.harm(random), siege.harm([siege.surrogate[at]])
    each = "each: " + ", ".join(show(float(siege.harm([one]).mean())) for one in random) + f"; {_left(random)}"
    alike, hard = Estimate(value=None, note="too few others to ask for"), ""
    if siege.alike:
        alike = stats.mean(siege.harm(siege.alike), share=True)
        hard = f"mean loss {siege.losses[1]:.2g} in place of {siege.losses[0]:.2g}; {_left(siege.alike)}"
    rows = [
        _row("success", share, stats.mean(adverse)),
        _row("random", f"{share}, after random requests", stats.mean(blind, share=True), note=each),
        _row("excess", f"{share}, beyond random requests", _beyond(adverse, blind)),
        _row("alike", f"{share}, after a request for others as hard", alike, note=hard),
        _row("surrogate", f"{share}, by the adversary's surrogate", stats.mean(own)),
        _row("transfer", "harm by the defender, as a share of the surrogate's", stats.ratio(adverse, own)),
    ]
    if attack.retrain:
        missing = Estimate(value=None, note="the scenario can't train models")
        again = stats.mean(siege.harm(siege.retrained), share=True) if siege.retrained else missing
        rows.append(_row("retrained", f"{share}, retrained without the request", again))
    if attack.wished >= 0:
        now, then = (stats.mean((one == attack.wished)[ground.victims]) for one in (after.answers, ground.answers))
        rows.append(_row("answered", f"unseen {victim} answered {wished}", now, then))
    for name, title, which in (
        ("accuracy", f"accuracy on unseen {victim}", ground.victims),
        ("others", "accuracy on unseen examples of other classes", ~ground.victims),
    ):
        now, then = (stats.mean((one == ground.truth)[which]) for one in (after.answers, ground.answers))
        rows.append(_row(name, title, now, then))
    before = stats.mean(ground.right[siege.asked])
    rows.append(_row("left", LEFT, stats.mean(after.left), before))
    named = [
        m.model_copy(update={"name": f"{frame.name}_{m.name}", "title": f"{frame.title}: {m.title}"}) for m in rows
    ]
    frame = frame.model_copy(
        update={"curves": _curves(frame, siege, share, victim), "note": _said(siege, share, classes)}
    )
    return Finding(_controlled(frame, siege), named)


def _row(name: str, title: str, after: Estimate, before: Estimate = NONE, note: str = "") -> Measurement:
    return Row(name, title, "harm").measured({"unlearned": after, "original": before, "null": NONE}, note)


def _beyond(harm: np.ndarray, blind: np.ndarray) -> Estimate:
    """Their mean difference; -1 is possible as well as 0 and 1, so that the interval is Student's where any differ."""
    each = harm - blind
    return stats.ratio(each, np.ones(len(each))) if np.ptp(each) else stats.mean(each)


def _left(outcomes: Sequence[Outcome]) -> str:
    return f"{LEFT}: {show(float(np.mean([one.left.mean() for one in outcomes])))}"


def _called(c: int, classes: Sequence[str]) -> str:
    """A class by its name, where it has one."""
    return classes[c] if 0 <= c < len(classes) else f"class {c}"


def _curves(frame: AttackReport, siege: Siege, share: str, victim: str) -> list[Curve]:
    """Harm and accuracy over the number of examples asked for, none of them first."""
    ground, sizes = siege.ground, [float(n) for n in siege.sizes]
    singles = [[one] for one in siege.chosen]
    nothing = np.zeros(int(ground.victims.sum()))

    def harm(role: str, groups: Sequence[Sequence[Outcome]]) -> Series:
        return _line(role, [0.0, *sizes], [nothing, *(siege.harm(group) for group in groups)])

    def accuracy(role: str, groups: Sequence[Sequence[Outcome]], which: np.ndarray) -> Series:
        answers = [[ground.answers], *([one.answers for one in group] for group in groups)]
        right = [np.mean([(one == ground.truth)[which] for one in group], axis=0) for group in answers]
        return _line(role, [0.0, *sizes], right)

    harms = [
        harm("unlearned", singles),
        harm("random requests", siege.random),
        harm("surrogate", [[one] for one in siege.surrogate]),
    ]
    if siege.retrained:
        harms.append(_line("retrained", [sizes[siege.picked]], [siege.harm(siege.retrained)]))
    accuracies = [
        accuracy("unlearned", singles, ground.victims),
        accuracy("unlearned, other classes", singles, ~ground.victims),
        accuracy("random requests", siege.random, ground.victims),
    ]
    x, title = "examples asked for", f"{frame.title}: accuracy on unseen {victim}, and on other classes"
    return [
        Curve(name="harm", title=f"{frame.title}: {share}", x_label=x, y_label="share", series=harms),
        Curve(name="accuracy", title=title, x_label=x, y_label="accuracy", series=accuracies),
    ]


def _line(role: str, x: list[float], values: Sequence[np.ndarray]) -> Series:
    each = [stats.mean(value, share=True) for value in values]
    return Series(
        role=role, x=x, y=[one.value for one in each], low=[one.low for one in each], high=[one.high for one in each]
    )


def _said(siege: Siege, share: str, classes: Sequence[str]) -> str:
    """What was asked for, what came of it, and which class paid, for people."""
    ground, at = siege.ground, siege.picked
    after = siege.chosen[at].answers
    asked = Counter(ground.classes[siege.asked].tolist()).most_common()
    listed = ", ".join(f"{count} {_called(c, classes)}" for c, count in asked)
    harm, blind = (float(siege.harm(group).mean()) for group in ([siege.chosen[at]], siege.random[at]))
    change = {
        int(c): float(np.mean((after == c)[ground.truth == c]) - np.mean((ground.answers == c)[ground.truth == c]))
        for c in np.unique(ground.truth)
    }
    paid = sorted((c for c in change if change[c] < 0), key=lambda c: change[c])[:3]
    most = ", ".join(f"{_called(c, classes)} {change[c]:+.2f}" for c in paid) or "none"
    return (
        f"Honouring a request for {len(siege.asked)} training examples ({listed}): {show(harm)} of {share}, and "
        f"{show(blind)} after random requests of that size. Classes that paid most, in accuracy: {most}."
    )


def _controlled(frame: AttackReport, siege: Siege) -> AttackReport:
    """It must beat random requests against its own surrogate; all controls must harm at most half as much as it does.

    Where it does no more than random requests there is no harm to hold the controls against.
    """
    at = siege.picked
    own, blind_own = siege.harm([siege.surrogate[at]]), siege.harm(siege.random_surrogate)
    adverse, blind = siege.harm([siege.chosen[at]]), siege.harm(siege.random[at])
    rehearsed, beyond = _beyond(own, blind_own), _beyond(adverse, blind)
    harms = beyond.low is not None and beyond.low > 0
    groups = {"one for others as hard": siege.alike, "retraining without it": siege.retrained}
    controls = {"random requests": blind.mean()} | {
        name: siege.harm(group).mean() for name, group in groups.items() if group
    }
    return frame.model_copy(
        update={
            "positive_control": f"harms more than random requests where the defender is the surrogate itself: "
            f"{show(float(own.mean()))} against {show(float(blind_own.mean()))}",
            "positive_holds": rehearsed.low is not None and rehearsed.low > 0,
            "negative_control": f"these harm at most half as much as its {show(float(adverse.mean()))}: "
            + ", ".join(f"{name} {show(float(harm))}" for name, harm in controls.items())
            + ("" if harms else " (no test: it harms no more than random requests do)"),
            "negative_holds": bool(max(controls.values()) <= 0.5 * adverse.mean()) if harms else None,
        }
    )
