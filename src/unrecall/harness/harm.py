"""What honoured requests did to the victim, in numbers: rows, curves, a sentence and controls."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unrecall.attacks.deletion import DeletionAttack
from unrecall.harness.controls import harm_less, harms, with_negative, with_positive
from unrecall.harness.finding import Finding, line, report_of, show
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import AttackReport, Curve, Estimate, Measurement

STILL_RIGHT = "requested examples still answered right"
NONE = Estimate(value=None, note="not applicable")


class Answers(NamedTuple):
    """What a model answers once a request was honoured.

    `unseen` [unseen]: the class of each unseen example. `known_victims` [known]: of each of the victim's examples
    that the adversary knows. `requested` [requested]: whether each example that was asked for is still answered right.
    """

    unseen: np.ndarray
    known_victims: np.ndarray
    requested: np.ndarray


class TrialOfSize(NamedTuple):
    """What comes of the requests of one size: of the adversary's, by defender and surrogate, and of random ones."""

    size: int
    adverse: Answers
    surrogate: Answers
    random: list[Answers]


@dataclass(frozen=True)
class Outcomes:
    """What came of all requests of one attack. `names`: what people call the classes.

    `truth` [unseen]: the class of each example that nobody trained on. `before`: what the original answers. `picked`:
    the trial whose size the adversary picks, because its surrogate harms the known victims most then. `requested`: the
    class of each example that it asks for. `random_surrogate`: the surrogate after random requests of that size.
    `as_hard`: the defender after a request for as many others of like loss, because what is hard moves a model more,
    whatever it is; none where there are too few. `losses`: the mean loss of the requested and of these others.
    `retrained`: models that never met the requested, where they are wanted and can be had.
    """

    attack: DeletionAttack
    names: Sequence[str]
    truth: np.ndarray
    before: Answers
    trials: list[TrialOfSize]
    picked: int
    requested: list[int]
    losses: tuple[float, float]
    random_surrogate: list[Answers]
    as_hard: list[Answers]
    retrained: list[Answers]

    @property
    def trial(self) -> TrialOfSize:
        """The trial of the picked size."""
        return self.trials[self.picked]

    @property
    def victims(self) -> np.ndarray:
        """Which unseen examples are the victim's."""
        return np.asarray(self.truth == self.attack.victim)

    def harm(self, models: Sequence[Answers]) -> np.ndarray:
        """The share of these models by which each of the victim's unseen examples was harmed `[victims]`."""
        before, victims = self.before.unseen[self.victims], self.victims
        return np.asarray(np.mean([self.attack.harmed(before, answers.unseen[victims]) for answers in models], axis=0))

    def right(self, models: Sequence[Answers], which: np.ndarray) -> np.ndarray:
        """The share of these models that is right on each of some unseen examples."""
        return np.asarray(np.mean([(answers.unseen == self.truth)[which] for answers in models], axis=0))

    def called(self, c: int) -> str:
        """A class by its name; "class 3" where it has none, or a bare number."""
        name = self.names[c] if 0 <= c < len(self.names) else str(c)
        return f"class {name}" if name.isdecimal() else name

    @property
    def victim(self) -> str:
        """What the victim's class is called."""
        return self.called(self.attack.victim)

    @property
    def title(self) -> str:
        """What the attack is called, with the classes that it is about by name."""
        wish = self.attack.answered_as
        end = f"answered as {self.called(wish)}" if wish >= 0 else "answered wrong"
        return f"{self.attack.title} ({self.victim} to be {end})"

    @property
    def share(self) -> str:
        """What harm is the share of, in words."""
        newly = f"answered as {self.called(self.attack.answered_as)}" if self.attack.answered_as >= 0 else "wrong"
        return f"unseen {self.victim} newly {newly}"


def harm_finding(outcomes: Outcomes) -> Finding:
    """The picked request in numbers, all requests as curves, and whether the controls hold."""
    frame = report_of(outcomes.attack).model_copy(update={"title": outcomes.title})
    rows = [
        row.model_copy(update={"name": f"{frame.name}_{row.name}", "title": f"{frame.title}: {row.title}"})
        for row in (*_harm_rows(outcomes), *_answer_rows(outcomes))
    ]
    report = frame.model_copy(update={"curves": _curves(outcomes, frame.title), "note": _sentence(outcomes)})
    return Finding(report=_controlled(outcomes, report), measurements=rows)


def _row(name: str, title: str, *estimates: Estimate, note: str = "") -> Measurement:
    """`estimates`: of the unlearned model, and perhaps of the original."""
    by_role = dict(zip(("unlearned", "original"), (*estimates, NONE), strict=False))
    return Row(name, title, "harm").measured(by_role | {"null": NONE}, note)


def _harm_rows(outcomes: Outcomes) -> Iterator[Measurement]:
    """The harm that the picked request does, beside that of its controls."""
    trial, share = outcomes.trial, outcomes.share
    adverse, by_surrogate = outcomes.harm([trial.adverse]), outcomes.harm([trial.surrogate])
    singly = "each: " + ", ".join(show(float(outcomes.harm([answers]).mean())) for answers in trial.random)
    losses = f"mean loss {outcomes.losses[1]:.2g} in place of {outcomes.losses[0]:.2g}"

    def control(name: str, title: str, models: Sequence[Answers], reason: str = "", detail: str = "") -> Measurement:
        if not models:
            return _row(name, f"{share}, {title}", Estimate(value=None, note=reason))
        right = show(float(np.mean([answers.requested.mean() for answers in models])))
        note = f"{detail}; {STILL_RIGHT}: {right}" if detail else ""
        return _row(name, f"{share}, {title}", stats.mean(outcomes.harm(models), share=True), note=note)

    yield _row("success", share, stats.mean(adverse))
    yield control("random", "after random requests", trial.random, detail=singly)
    yield _row("excess", f"{share}, beyond random requests", _beyond(adverse, outcomes.harm(trial.random)))
    reason = "too few others to ask for"
    yield control("alike", "after a request for others as hard", outcomes.as_hard, reason, losses)
    yield _row("surrogate", f"{share}, by the adversary's surrogate", stats.mean(by_surrogate))
    yield _row("transfer", "harm by the defender, as a share of the surrogate's", stats.ratio(adverse, by_surrogate))
    if outcomes.attack.retrain:
        reason = "the scenario can't train models"
        yield control("retrained", "retrained without the request", outcomes.retrained, reason)


def _answer_rows(outcomes: Outcomes) -> Iterator[Measurement]:
    """What is answered after the picked request, and what was answered before."""
    victims, victim, answered_as = outcomes.victims, outcomes.victim, outcomes.attack.answered_as
    models = (outcomes.trial.adverse, outcomes.before)
    if answered_as >= 0:
        answered = [stats.mean((answers.unseen == answered_as)[victims]) for answers in models]
        yield _row("answered", f"unseen {victim} answered as {outcomes.called(answered_as)}", *answered)
    others = "accuracy on unseen examples of other classes"
    for name, title, which in (("accuracy", f"accuracy on unseen {victim}", victims), ("others", others, ~victims)):
        yield _row(name, title, *(stats.mean(outcomes.right([answers], which)) for answers in models))
    yield _row("left", STILL_RIGHT, *(stats.mean(answers.requested) for answers in models))


def _beyond(harm: np.ndarray, random: np.ndarray) -> Estimate:
    """The harm of the picked request less that of random ones, mean over examples."""
    return stats.difference(harm - random)


def _curves(outcomes: Outcomes, title: str) -> list[Curve]:
    """Harm and accuracy over the number of examples asked for, none of them first."""
    before, victims, x_label = outcomes.before, outcomes.victims, "examples asked for"
    trials = [TrialOfSize(0, before, before, [before]), *outcomes.trials]
    sizes = [float(trial.size) for trial in trials]
    adverse, random = [[trial.adverse] for trial in trials], [trial.random for trial in trials]
    harms = {"unlearned": adverse, "random requests": random, "surrogate": [[trial.surrogate] for trial in trials]}
    harm = [line(role, sizes, [outcomes.harm(models) for models in groups]) for role, groups in harms.items()]
    if outcomes.retrained:
        harm.append(line("retrained", [float(outcomes.trial.size)], [outcomes.harm(outcomes.retrained)]))
    accuracies = {
        "unlearned": (adverse, victims),
        "unlearned, other classes": (adverse, ~victims),
        "random requests": (random, victims),
    }
    accuracy = [
        line(role, sizes, [outcomes.right(models, which) for models in groups])
        for role, (groups, which) in accuracies.items()
    ]
    named = f"{title}: accuracy on unseen {outcomes.victim}, and on other classes"
    return [
        Curve(name="harm", title=f"{title}: {outcomes.share}", x_label=x_label, y_label="share", series=harm),
        Curve(name="accuracy", title=named, x_label=x_label, y_label="accuracy", series=accuracy),
    ]


def _sentence(outcomes: Outcomes) -> str:
    """What was asked for, what came of it, and which classes paid, for people."""
    trial, truth, before = outcomes.trial, outcomes.truth, outcomes.before.unseen
    counts = Counter(outcomes.requested).most_common()
    requested = ", ".join(f"{count} of {outcomes.called(c)}" for c, count in counts)
    adverse, random = (show(float(outcomes.harm(models).mean())) for models in ([trial.adverse], trial.random))
    change = {
        int(c): float(np.mean((trial.adverse.unseen == c)[truth == c]) - np.mean((before == c)[truth == c]))
        for c in np.unique(truth)
    }
    losers = sorted((c for c in change if change[c] < 0), key=lambda c: change[c])[:3]
    lost = ", ".join(f"{outcomes.called(c)} {change[c]:+.2f}" for c in losers) or "none"
    return (
        f"Honouring a request for {len(outcomes.requested)} training examples ({requested}): {adverse} of "
        f"{outcomes.share}, and {random} after random requests of that size. Classes that lost most accuracy: "
        f"{lost}."
    )


def _controlled(outcomes: Outcomes, report: AttackReport) -> AttackReport:
    """The report with both controls."""
    trial, harm = outcomes.trial, outcomes.harm
    models = {
        "random requests": trial.random,
        "one for others as hard": outcomes.as_hard,
        "retraining without it": outcomes.retrained,
    }
    others = {name: np.stack([harm([answers]) for answers in group]) for name, group in models.items() if group}
    surrogate_random = np.stack([harm([answers]) for answers in outcomes.random_surrogate])
    report = with_positive(report, harms(harm([trial.surrogate]), surrogate_random))
    return with_negative(report, harm_less(harm([trial.adverse]), others, others["random requests"]))
