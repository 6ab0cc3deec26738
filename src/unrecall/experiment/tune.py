"""Finding a method's strength on what a user really has, before any audit."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from unrecall.data.examples import Examples, Part
from unrecall.data.request import Kind, Request
from unrecall.errors import Diverged, NotSupported
from unrecall.methods.base import Method, Strength
from unrecall.models.observe import observe, one_size
from unrecall.record.schema import Trial, Tuning
from unrecall.tasks.base import Task, check_inputs
from unrecall.tasks.protocols import classed
from unrecall.training.job import Job
from unrecall.training.randomness import draw_seed, seeded

CRITERION = {
    "samples": "mean confidence on forget minus on validation, nearest to 0",
    "class": "the weakest strength whose mean confidence on forget is at most {0:.3g}",
    "concept": "the weakest strength whose mean confidence on forget and on validation is at most {0:.3g} each",
    "backdoor": "the weakest strength whose mean confidence in what the attacker wishes, on validation, is at most "
    "{0:.3g}",
}
SPARING = ", with at most {0:.0%} of accuracy lost on retain examples that unlearning did not see"
UNMET = "; none that was tried does that, so this is what comes nearest"
FORGOTTEN = 0.05
"""The confidence that a classifier may have left: a retrained one was taught by every example that it isn't this."""


def tune(method: Method, model: nn.Module, job: Job, *, trials: int = 8, retain_drop: float = 0.02) -> Tuning:
    """Searches the factor on the method's strength; sees forget, validation and a tenth of retain, and nothing else.

    A model retrained without forget would treat forget like validation, so for samples the gap between them should be
    0. A class, a concept or a trigger that was never met has no confidence at all, so there the gap is the confidence
    above what may be left: 0.05 for a classifier, and 1 / classes where prompts stand for the classes, for such a model
    was never taught that this one is wrong. A class is judged on forget; a concept on forget and validation, of which
    the larger counts; a backdoor on validation, where each example carries the trigger, as not each suspected one need.

    The tenth of retain is kept from unlearning, so that damage shows there and isn't repaired. The holdout, the test
    set and retrained models are never touched.

    Doubles or divides the factor until the gap changes sign, then bisects on the logarithm. Raises NotSupported for a
    method without a strength, and for a task without classes where more than samples must go; MissingReference where
    there is no validation set to be had.
    """
    request, strength = job.request.with_validation(), method.innermost().strength
    validation = request.validation
    if strength is None or validation is None:
        raise NotSupported(
            f"tune: expected a method with a strength, got {type(method).__name__}, without one. Leave out --tune."
        )
    goal, seed = goal_of(job.task, request, validation), draw_seed(job.generator)
    check_inputs(job.task, model, request.only("forget", "retain", "validation"))
    search = Search(method, model, job.on(tuning_request(request, validation, seed)), seed, goal, retain_drop)
    tried = search.trials(strength, trials)
    best = choose(tried, request.kind)
    met = best.kept and (request.kind == "samples" or best.gap <= 0)
    return Tuning(
        parameter=" and ".join(strength.parameters),
        chosen=best.strength,
        untouched=goal.gap(model),
        criterion=CRITERION[request.kind].format(goal.limit) + SPARING.format(retain_drop) + ("" if met else UNMET),
        trials=sorted(tried, key=lambda trial: trial.strength),
    )


class Goal(NamedTuple):
    """When a request counts as forgotten.

    `task`: by which confidence is measured. `limit`: the confidence that may be left. `sets`: on which examples.
    """

    kind: Kind
    task: Task
    limit: float
    sets: tuple[Examples, ...]

    def gap(self, model: nn.Module) -> float:
        """How far a model is from the goal: above 0 it has forgotten too little, below 0 more than is asked."""
        size = one_size(self.task, self.sets)
        means = [float(observe(model, self.task, examples, size).confidence.mean()) for examples in self.sets]
        return means[0] - means[1] if self.kind == "samples" else float(np.max(means)) - self.limit


def goal_of(task: Task, request: Request, validation: Examples) -> Goal:
    """The goal of a request; NotSupported where its kind needs classes and the task has none."""
    forget = request.forget
    if request.kind == "samples":
        return Goal(request.kind, task, 0.0, (forget, validation))
    owner = classed("tune", task, f"For a {request.kind} nothing else says when it is forgotten: set the strength.")
    judged = owner.classified()
    limit = 1 / len(owner.classes) if task.rows_depend_on_batch else FORGOTTEN
    sets = {"class": (forget,), "concept": (forget, validation), "backdoor": (validation,)}
    return Goal(request.kind, judged, limit, sets[request.kind])


def tuning_request(request: Request, validation: Examples, seed: int) -> Request:
    """What a trial is given: validation in place of the holdout, and a tenth of retain, not to be seen, as the test."""
    order = torch.randperm(len(request.retain), generator=seeded(seed)).tolist()
    cut = max(1, len(order) // 10)
    unseen, rest = Part(request.retain, sorted(order[:cut])), Part(request.retain, sorted(order[cut:]))
    return request.with_own(retain=rest, holdout=validation, test=unseen, validation=None)


@dataclass(frozen=True)
class Search:
    """A search for a method's strength; every trial starts from the same model and the same seed.

    `job`: the task and the request of each trial. `retain_drop`: how much accuracy on unseen retain examples, which
    are the request's test set, may be lost.
    """

    method: Method
    model: nn.Module
    job: Job
    seed: int
    goal: Goal
    retain_drop: float

    def trials(self, strength: Strength, most: int) -> list[Trial]:
        """The trials of a search in the range of `strength`, in the order in which they were made; at most so many."""
        before = self.accuracy(self.model)
        tried: dict[float, Trial] = {}
        weak, strong, factor = strength.low, strength.high, 1.0
        bracketed = [False, False]
        for i in range(most):
            name = type(self.method).__name__
            self.job.session.say(f"tuning {name}: trial {i + 1} of {most}, strength x {factor:.4g}")
            trial = tried[factor] = self.trial(factor, before)
            enough = trial.gap <= 0 or not trial.kept
            weak, strong = (weak, factor) if enough else (factor, strong)
            bracketed[enough] = True
            step = min(strong, max(weak, factor * (0.25 if enough else 4)))
            factor = math.sqrt(weak * strong) if all(bracketed) else step
            if factor in tried:
                break
        return list(tried.values())

    def trial(self, factor: float, before: float) -> Trial:
        """Unlearns at `factor` times the strength; `before`: the accuracy that is to be kept. A ruin is too strong."""
        ruin = Trial(strength=factor, gap=-1.0, retain_drop=1.0, kept=False)
        try:
            unlearned = self.method.scaled(factor).unlearn(self.model, self.job.seeded(self.seed).quiet())
        except Diverged:
            return ruin
        gap = self.goal.gap(unlearned)
        drop = before - self.accuracy(unlearned)
        if not math.isfinite(gap):
            return ruin
        return Trial(strength=factor, gap=gap, retain_drop=drop, kept=drop <= self.retain_drop)

    def accuracy(self, model: nn.Module) -> float:
        """The share of unseen retain examples that a model predicts right."""
        return float(observe(model, self.job.task, self.job.request.test).correct.mean())


def choose(trials: list[Trial], kind: str) -> Trial:
    """The trial that meets the criterion best; the least damaging one where all damage retain too much."""
    sparing = [trial for trial in trials if trial.kept]
    if not sparing:
        return min(trials, key=lambda trial: (trial.retain_drop, trial.strength))
    if kind == "samples":
        return min(sparing, key=lambda trial: abs(trial.gap))
    forgetting = [trial for trial in sparing if trial.gap <= 0]
    if forgetting:
        return min(forgetting, key=lambda trial: trial.strength)
    return min(sparing, key=lambda trial: trial.gap)
