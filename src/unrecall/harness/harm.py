"""What honoured requests did to the victim, in numbers: rows, curves, a sentence and controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unrecall.attacks.deletion import DeletionAttack
from unrecall.harness.finding import Finding, report_of, show
from unrecall.harness.requests import Answered
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Curve, Estimate, Measurement, Series

STILL_RIGHT = "requested examples still answered right"
NONE = Estimate(value=None, note="not applicable")


class Answers(NamedTuple):
    """What a model answers once a request was honoured.

    `unseen` [unseen]: the class of each unseen example. `known` [known]: of each of the victim's examples that the
    adversary knows. `requested` [requested]: whether each example that was asked for is still answered right.
    """

    unseen: np.ndarray
    known: np.ndarray
    requested: np.ndarray


class Trial(NamedTuple):
    """The requests of one size: the adversary's, honoured by the defender and by its own surrogate, and random ones."""

    size: int
    adverse: Answers
    random: list[Answers]
    surrogate: Answers


@dataclass(frozen=True)
class Outcomes:
    """What came of all requests of one attack. `names`: what people call the classes.

    `training`, `unseen`: what the original model answers to the training examples and to those that nobody trained on.
    `picked`: the trial whose size the adversary picks, because it harms the victim's known examples most by its
    surrogate. `requested`: the training examples that it asks for then; `others`: as many others, as hard as these, for
    what is hard moves a model more, whatever it is; none where there are too few. `random_surrogate`: the surrogate's
    models after random requests of that size. `as_hard`: the defender's, after the request for the others.
    `retrained`: models trained without the requested, where they are wanted and can be had.
    """

    attack: DeletionAttack
    names: Sequence[str]
    training: Answered
    unseen: Answered
    trials: list[Trial]
    picked: int
    requested: list[int]
    others: list[int]
    random_surrogate: list[Answers]
    as_hard: list[Answers]
    retrained: list[Answers]

    @property
    def trial(self) -> Trial:
        """The trial of the picked size."""
        return self.trials[self.picked]

    @property
    def victims(self) -> np.ndarray:
        """Which unseen examples are the victim's."""
        return np.asarray(self.unseen.target == self.attack.victim)

    def harm(self, *models: Answers) -> np.ndarray:
        """The share of these models by which each of the victim's unseen examples was harmed `[victims]`."""
        before, victims = self.unseen.prediction[self.victims], self.victims
        return np.asarray(np.mean([self.attack.harmed(before, answers.unseen[victims]) for answers in models], axis=0))

    def right(self, which: np.ndarray, *predictions: np.ndarray) -> np.ndarray:
        """The share of these models' predictions that is right, for each of some unseen examples."""
        return np.asarray(np.mean([(each == self.unseen.target)[which] for each in predictions], axis=0))

    def called(self, c: int) -> str:
        """A class by its name, where it has one."""
        return self.names[c] if 0 <= c < len(self.names) else f"class {c}"

    @property
    def share(self) -> str:
        """What harm is the share of, in words."""
        newly = f"answered {self.called(self.attack.wished)}" if self.attack.wished >= 0 else "wrong"
        return f"unseen {self.called(self.attack.victim)} newly {newly}"


def harm_finding(outcomes: Outcomes) -> Finding:
    """The picked request in numbers, all requests as curves, and whether the controls hold."""
    frame = report_of(outcomes.attack)
    rows = [*_harm_rows(outcomes), *_answer_rows(outcomes)]
    measurements = [
        row.model_copy(update={"name": f"{frame.name}_{row.name}", "title": f"{frame.title}: {row.title}"})
        for row in rows
    ]
    updates = {"curves": _curves(outcomes, frame.title), "note": _sentence(outcomes)} | _controls(outcomes)
    return Finding(frame.model_copy(update=updates), measurements)


def _harm_rows(outcomes: Outcomes) -> list[Measurement]:
    """The harm that the picked request does, beside that of its controls."""
    trial, share = outcomes.trial, outcomes.share
    adverse, random, own = outcomes.harm(trial.adverse), outcomes.harm(*trial.random), outcomes.harm(trial.surrogate)
    singly = ", ".join(show(float(outcomes.harm(answers).mean())) for answers in trial.random)
    as_hard, losses = Estimate(value=None, note="too few others to ask for"), ""
    if outcomes.as_hard:
        as_hard = stats.mean(outcomes.harm(*outcomes.as_hard), share=True)
        asked, others = (outcomes.training.loss[places].mean() for places in (outcomes.requested, outcomes.others))
        losses = f"mean loss {others:.2g} in place of {asked:.2g}; {_still_right(outcomes.as_hard)}"
    rows = [
        _row("success", share, stats.mean(adverse)),
        _row(
            "random",
            f"{share}, after random requests",
            stats.mean(random, share=True),
            note=f"each: {singly}; {_still_right(trial.random)}",
        ),
        _row("excess", f"{share}, beyond random requests", _beyond(adverse, random)),
        _row("alike", f"{share}, after a request for others as hard", as_hard, note=losses),
        _row("surrogate", f"{share}, by the adversary's surrogate", stats.mean(own)),
        _row("transfer", "harm by the defender, as a share of the surrogate's", stats.ratio(adverse, own)),
    ]
    if outcomes.attack.retrain:
        retrained = Estimate(value=None, note="the scenario can't train models")
        if outcomes.retrained:
            retrained = stats.mean(outcomes.harm(*outcomes.retrained), share=True)
        rows.append(_row("retrained", f"{share}, retrained without the request", retrained))
    return rows


def _answer_rows(outcomes: Outcomes) -> list[Measurement]:
    """What is answered after the picked request, and what was answered before."""
    attack, victims, answers = outcomes.attack, outcomes.victims, outcomes.trial.adverse
    after, before = answers.unseen, outcomes.unseen.prediction
    victim, rows = outcomes.called(attack.victim), []
    if attack.wished >= 0:
        now, then = (stats.mean((each == attack.wished)[victims]) for each in (after, before))
        rows.append(_row("answered", f"unseen {victim} answered {outcomes.called(attack.wished)}", now, then))
    for name, title, which in (
        ("accuracy", f"accuracy on unseen {victim}", victims),
        ("others", "accuracy on unseen examples of other classes", ~victims),
    ):
        now, then = (stats.mean(outcomes.right(which, each)) for each in (after, before))
        rows.append(_row(name, title, now, then))
    then = stats.mean(outcomes.training.correct[sorted(outcomes.requested)])
    return [*rows, _row("left", STILL_RIGHT, stats.mean(answers.requested), then)]


def _row(name: str, title: str, after: Estimate, before: Estimate = NONE, note: str = "") -> Measurement:
    return Row(name, title, "harm").measured({"unlearned": after, "original": before, "null": NONE}, note)


def _beyond(harm: np.ndarray, random: np.ndarray) -> Estimate:
    """Their mean difference; -1 is possible as well as 0 and 1, so that the interval is Student's where any differ."""
    difference = harm - random
    return stats.ratio(difference, np.ones(len(difference))) if np.ptp(difference) else stats.mean(difference)


def _still_right(models: Sequence[Answers]) -> str:
    return f"{STILL_RIGHT}: {show(float(np.mean([answers.requested.mean() for answers in models])))}"


def _curves(outcomes: Outcomes, title: str) -> list[Curve]:
    """Harm and accuracy over the number of examples asked for, none of them first."""
    trials, victims, before = outcomes.trials, outcomes.victims, outcomes.unseen.prediction
    sizes = [0.0, *(float(trial.size) for trial in trials)]
    adverse, random = [[trial.adverse] for trial in trials], [trial.random for trial in trials]

    def harm(role: str, groups: Sequence[Sequence[Answers]]) -> Series:
        return _series(role, sizes, [np.zeros(int(victims.sum())), *(outcomes.harm(*group) for group in groups)])

    def accuracy(role: str, groups: Sequence[Sequence[Answers]], which: np.ndarray) -> Series:
        predictions = [[before], *([answers.unseen for answers in group] for group in groups)]
        return _series(role, sizes, [outcomes.right(which, *models) for models in predictions])

    harms = [
        harm("unlearned", adverse),
        harm("random requests", random),
        harm("surrogate", [[trial.surrogate] for trial in trials]),
    ]
    if outcomes.retrained:
        harms.append(_series("retrained", [float(outcomes.trial.size)], [outcomes.harm(*outcomes.retrained)]))
    accuracies = [
        accuracy("unlearned", adverse, victims),
        accuracy("unlearned, other classes", adverse, ~victims),
        accuracy("random requests", random, victims),
    ]
    x, victim = "examples asked for", outcomes.called(outcomes.attack.victim)
    named = f"{title}: accuracy on unseen {victim}, and on other classes"
    return [
        Curve(name="harm", title=f"{title}: {outcomes.share}", x_label=x, y_label="share", series=harms),
        Curve(name="accuracy", title=named, x_label=x, y_label="accuracy", series=accuracies),
    ]


def _series(role: str, x: list[float], values: Sequence[np.ndarray]) -> Series:
    y = [stats.mean(value, share=True) for value in values]
    return Series(role=role, x=x, y=[e.value for e in y], low=[e.low for e in y], high=[e.high for e in y])


def _sentence(outcomes: Outcomes) -> str:
    """What was asked for, what came of it, and which classes paid, for people."""
    trial, target, before = outcomes.trial, outcomes.unseen.target, outcomes.unseen.prediction
    counts = Counter(outcomes.training.target[sorted(outcomes.requested)].tolist()).most_common()
    requested = ", ".join(f"{count} {outcomes.called(c)}" for c, count in counts)
    adverse, random = (float(outcomes.harm(*models).mean()) for models in ([trial.adverse], trial.random))
    change = {
        int(c): float(np.mean((trial.adverse.unseen == c)[target == c]) - np.mean((before == c)[target == c]))
        for c in np.unique(target)
    }
    payers = sorted((c for c in change if change[c] < 0), key=lambda c: change[c])[:3]
    paid = ", ".join(f"{outcomes.called(c)} {change[c]:+.2f}" for c in payers) or "none"
    return (
        f"Honouring a request for {len(outcomes.requested)} training examples ({requested}): {show(adverse)} of "
        f"{outcomes.share}, and {show(random)} after random requests of that size. Classes that paid most, in "
        f"accuracy: {paid}."
    )


def _controls(outcomes: Outcomes) -> dict[str, str | bool | None]:
    """It must beat random requests against its own surrogate; all controls must harm at most half as much as it does.

    Where it does no more than random requests there is no harm to hold the controls against.
    """
    trial, harm = outcomes.trial, outcomes.harm
    own, own_random = harm(trial.surrogate), harm(*outcomes.random_surrogate)
    adverse, random = harm(trial.adverse), harm(*trial.random)
    rehearsed, beyond = _beyond(own, own_random), _beyond(adverse, random)
    harms = beyond.low is not None and beyond.low > 0
    groups = {
        "random requests": trial.random,
        "one for others as hard": outcomes.as_hard,
        "retraining without it": outcomes.retrained,
    }
    controls = {name: float(harm(*models).mean()) for name, models in groups.items() if models}
    return {
        "positive_control": "harms more than random requests where the defender is the surrogate itself: "
        f"{show(float(own.mean()))} against {show(float(own_random.mean()))}",
        "positive_holds": rehearsed.low is not None and rehearsed.low > 0,
        "negative_control": f"these harm at most half as much as its {show(float(adverse.mean()))}: "
        + ", ".join(f"{name} {show(value)}" for name, value in controls.items())
        + ("" if harms else " (no test: it harms no more than random requests do)"),
        "negative_holds": bool(max(controls.values()) <= 0.5 * adverse.mean()) if harms else None,
    }
