"""Finding a method's strength on what a user really has, before any audit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from unrecall.data.examples import Examples, Selection
from unrecall.data.kinds import Kind
from unrecall.data.request import Request
from unrecall.disk.weights import TooLarge, rounded
from unrecall.errors import Diverged, Fields, NotSupported, at_least, check_fields, kind_of, share_of_one
from unrecall.experiment.goal import NEAR_DROP, VALIDATION_CHANGE, Goal, Guards, goal_of, guards_of
from unrecall.methods.base import Method, Strength, method_of
from unrecall.record.schema import UNMET, Trial, Tuning
from unrecall.tasks.base import check_inputs
from unrecall.tasks.protocols import Recommending, Textual, offers
from unrecall.training.job import Job
from unrecall.training.randomness import draw_seed, seeded

CRITERION = {
    "samples": "mean confidence on forget minus on validation, nearest to 0",
    "class": "the weakest strength whose mean confidence on forget is at most {0:.3g}",
    "concept": "the weakest strength whose mean confidence on forget and on validation is at most {0:.3g} each",
    "backdoor": "the weakest strength whose mean confidence in what the attacker wishes, on validation, is at most "
    "{0:.3g}",
}
SPARING = ", with at most {0:.0%} of {1} lost on {3}, {2:.0%} on those nearest to what must go"
UNCHANGED = ", and {0:.0%} lost or gained on validation"
STOPS = "; training on forget stops as soon as that is reached"
NO_GAP = "the original shows no more of what must go than may be left, so there is nothing to search"
UNHELPED = (
    ", and no strength that was tried lowers it: the model as it was is as near. Try another method, as eu_k or reheat "
    "('unrecall list methods')"
)
CLOSE = 0.1
"""The share of the original's gap that may be left, on either side, where a request for samples counts as forgotten."""
GAP = "the gap to what was never seen"
BEYOND = "confidence in what must go, less what may be left of it,"
"""What a trial's gap is, in words, of samples and of all else."""
TRIALS = 6
"""The most strengths that are tried."""


FIELDS: Fields = {
    "method": (kind_of(Method, str), "a Method, as ur.methods.RURK() is, or its line, as 'rurk:tau=0.05'"),
    "job": (kind_of(Job), "a Job, as ur.Job(request, task) is"),
    "trials": (at_least(1), "a whole number from 1 on"),
    "retain_drop": (share_of_one, "a share from 0 to 1"),
}
"""What tuning is given."""


def tune(
    method: Method | str, model: nn.Module, job: Job, *, trials: int = TRIALS, retain_drop: float = 0.05
) -> Tuning:
    """Searches the factor on the method's strength. It never looks at holdout, test or retrained models.

    *Goal.* For samples the gap is confidence on forget minus that on validation: a retrained model treats both alike,
    so it should be 0. Otherwise it is confidence above a limit, 0.05 for a classifier, and 1 / classes where prompts
    stand for classes, as such a model never learned that one is wrong: on forget for a class; on forget and on
    validation, the larger of both, for a concept; on validation for a backdoor, where each example carries the trigger.
    Of texts, the share of answers that are said whole counts as well. Training stops by itself as soon as the gap is
    closed (`Job.enough`).

    *Damage.* It is looked for on a tenth of retain that unlearning doesn't see; on the retain examples nearest to
    forget; and, for samples, on validation, which a retrained model knows as well as the original does. It is a loss of
    accuracy; of texts, of whole answers. Of recommenders it is a loss of the items' likelihood on retain that
    unlearning does see, for they forget what they aren't taught again; and not on validation, which may be of users who
    leave.

    *Search.* It steps by 4 or 1/4 until one trial is too weak and one too strong, then bisects on the logarithm. Where
    the original shows no gap, it ends at the first strength that does no damage.

    NotSupported for a method without a strength, and for a task without classes where more than samples must go;
    MissingReference where there is no validation set to be had.
    """
    check_fields("tune", FIELDS, {**locals()})
    method, whole = method_of(method), job.request.with_validation()
    goal = goal_of(job.task, whole, whole.validation or ())
    strength, request, seed = start_of(method, model, job)
    guards = guards_of(job.task, model, request, request.holdout, retain_drop)
    untouched = goal.gap(goal.signals(model))
    judge = partial(trial_of, goal, guards)
    search = Search(method, model, job.on(request).until(goal), seed, request.kind, untouched, judge)
    tried = search.trials(strength, int(trials))
    best = choose(tried, request.kind)
    met = best.sparing and best.gap <= search.close and (request.kind != "samples" or best.gap >= -search.close)
    criterion = _criterion(goal, guards, retain_drop) + (f"; {NO_GAP}" if untouched <= 0 else "")
    return Tuning(
        parameter=" and ".join(strength.parameters),
        chosen=best.strength,
        untouched=untouched,
        criterion=criterion + ("" if met else UNMET),
        trials=sorted(tried, key=lambda trial: trial.strength),
    )


def start_of(method: Method, model: nn.Module, job: Job) -> tuple[Strength, Request, int]:
    """What a search starts from: the method's strength, the request of each trial (`tuning_request`), and their seed.

    NotSupported for a method without a strength, and for fewer than 2 retain examples.
    """
    request, strength = job.request.with_validation(), method.innermost().strength
    validation = request.validation
    if strength is None or validation is None:
        raise NotSupported(
            f"tune: expected a method with a strength, got {type(method).__name__}, without one. Leave out --tune and "
            "--against."
        )
    seed = draw_seed(job.generator)
    looked_at = request.only("forget", "retain", "validation")
    check_inputs(job.task, model, looked_at)
    if len(request.retain) < 2:
        raise NotSupported(
            "tune: expected at least 2 retain examples, one of which unlearning doesn't see, got 1. Leave out --tune "
            "and --against."
        )
    part = tuning_request(request, validation, seed)
    part.checked.update(looked_at.checked)  # of the same examples, of which a tenth of retain may lack a class
    return strength, part, seed


def _criterion(goal: Goal, guards: Guards, retain_drop: float) -> str:
    """In words, what a trial must do."""
    textual = offers(goal.task, Textual)
    criterion = CRITERION[goal.kind].format(goal.limit)
    if textual and goal.kind == "samples":
        criterion = f"{criterion}, and no more answers said whole"
    by_heart = offers(goal.task, Recommending)
    measure = "whole answers" if textual else "likelihood" if by_heart else "accuracy"
    retained = "retain examples" if by_heart else "retain examples that unlearning did not see"
    lost = measure if by_heart else f"{measure} (or one example)"
    criterion += SPARING.format(retain_drop, lost, max(retain_drop, NEAR_DROP), retained)
    return criterion + (UNCHANGED.format(max(retain_drop, VALIDATION_CHANGE)) if guards.validation else "") + STOPS


def tuning_request(request: Request, validation: Examples, seed: int) -> Request:
    """What a trial is given: validation in place of the holdout, and a tenth of retain, not to be seen, as the test."""
    order = torch.randperm(len(request.retain), generator=seeded(seed)).tolist()
    cut = max(1, len(order) // 10)
    unseen, rest = Selection(request.retain, sorted(order[:cut])), Selection(request.retain, sorted(order[cut:]))
    return request.with_own(retain=rest, holdout=validation, test=unseen, validation=None)


@dataclass(frozen=True)
class Search:
    """A search for a method's strength; every trial starts from the same model and the same seed.

    `job`: the task and the request of each trial. `kind`: of the request. `untouched`: the gap of the model as it is.
    `judge`: what the trial of a strength is worth, by its unlearned model.
    """

    method: Method
    model: nn.Module
    job: Job
    seed: int
    kind: Kind
    untouched: float
    judge: Callable[[float, nn.Module], Trial]

    @property
    def close(self) -> float:
        """How large a gap may be left: that of a class, a concept or a trigger must be closed."""
        return CLOSE * abs(self.untouched) if self.kind == "samples" else 0.0

    def trials(self, strength: Strength, most: int) -> list[Trial]:
        """The trials of a search in the range of `strength`, in the order in which they were made; at most so many."""
        tried: dict[float, Trial] = {}
        weak, strong, factor = strength.low, strength.high, 1.0
        bracketed = [False, False]
        for i in range(most):
            name = type(self.method).__name__
            self.job.session.say(f"tuning {name}: trial {i + 1} of {most}, strength x {factor:.4g}")
            trial = tried[factor] = self.trial(factor)
            self.job.session.say(f"  {_in_words(trial, self.untouched)}")
            closed = self.kind == "samples" and -self.close <= trial.gap <= 0
            if trial.sparing and (closed or self.untouched <= 0):
                break
            enough = trial.gap <= 0 or not trial.sparing
            weak, strong = (weak, factor) if enough else (factor, strong)
            bracketed[enough] = True
            step = min(strong, max(weak, factor * (0.25 if enough else 4)))
            factor = math.sqrt(weak * strong) if all(bracketed) else step
            if factor in tried:
                break
        return list(tried.values())

    def trial(self, factor: float) -> Trial:
        """Unlearns at `factor` times the strength, and judges what comes of it. A ruin is too strong."""
        ruin = Trial(strength=factor, gap=-1.0, retain_drop=1.0, sparing=False)
        try:
            unlearned = self.method.scaled(factor).unlearn(self.model, self.job.seeded(self.seed).quiet())
            unlearned = rounded(unlearned, self.job.precision)
        except (Diverged, TooLarge):
            return ruin
        trial = self.judge(factor, unlearned)
        return trial if math.isfinite(trial.gap) else ruin


def _in_words(trial: Trial, untouched: float) -> str:
    """A trial in a line: how much of the gap it left, and what it lost."""
    lost = {"retain": trial.retain_drop, "what is nearest": trial.near_drop, "validation": trial.validation_drop}
    losses = ", ".join(f"{value:.3f} on {name}" for name, value in lost.items() if value is not None)
    return f"gap {trial.gap:+.3f}, before {untouched:+.3f}; lost {losses}" + ("" if trial.sparing else ": too much")


def summary(tuning: Tuning, kind: Kind) -> str:
    """What tuning came to for a request of that kind, in a line."""
    chosen = next(trial for trial in tuning.trials if trial.strength == tuning.chosen)
    text = f"tuning chose {tuning.parameter} x {tuning.chosen:.4g} of {len(tuning.trials)} tried"
    if not chosen.sparing:
        return f"{text}, all of which do too much damage"
    what = GAP if kind == "samples" else BEYOND
    what = f"what {tuning.against} brings back of forget" if tuning.against else what
    if tuning.untouched is None:
        return f"{text}: {what} is {chosen.gap:+.3f}"
    helped = any(trial.sparing and trial.gap < tuning.untouched for trial in tuning.trials)
    nats = " nats" if tuning.measure == "loss" else ""
    gap = f"{what} is {chosen.gap:+.3f}{nats}, before it was {tuning.untouched:+.3f}"
    return f"{text}: {gap}" + (f"; {NO_GAP}" if tuning.untouched <= 0 else "" if helped else UNHELPED)


def trial_of(goal: Goal, guards: Guards, factor: float, unlearned: nn.Module) -> Trial:
    """How far a model is from the goal, and what was lost."""
    signals = goal.signals(unlearned)
    retained, near, guard = guards.retained.change(unlearned), guards.near.change(unlearned), guards.validation
    validation = None if guard is None else guard.change_of(signals[-1])
    return Trial(
        strength=factor,
        gap=goal.gap(signals),
        retain_drop=retained.lost,
        near_drop=near.lost,
        validation_drop=None if validation is None else validation.lost,
        sparing=not (retained.excessive or near.excessive or (validation is not None and validation.excessive)),
    )


def choose(trials: list[Trial], kind: str) -> Trial:
    """The trial that meets the criterion best; the least damaging one where all damage retain too much."""
    sparing = [trial for trial in trials if trial.sparing]
    if not sparing:
        return min(trials, key=lambda trial: (trial.retain_drop, trial.strength))
    if kind == "samples":
        return min(sparing, key=lambda trial: abs(trial.gap))
    forgetting = [trial for trial in sparing if trial.gap <= 0]
    if forgetting:
        return min(forgetting, key=lambda trial: trial.strength)
    return min(sparing, key=lambda trial: trial.gap)
