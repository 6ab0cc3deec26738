"""Finding a method's strength on what a user really has, before any audit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from unrecall.data.examples import Absent, Examples, Part
from unrecall.data.request import Request
from unrecall.errors import Diverged, NotSupported
from unrecall.methods.base import Method
from unrecall.models.observe import observe, one_size
from unrecall.record.schema import Trial, Tuning
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed
from unrecall.training.job import Job
from unrecall.training.randomness import draw_seed, seeded

M = TypeVar("M", bound=Method)

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


class Tuned(NamedTuple):
    """The method at the strength that was chosen, and what was tried."""

    method: Method
    tuning: Tuning


def tune(method: Method, model: nn.Module, job: Job, *, trials: int = 8, retain_drop: float = 0.02) -> Tuned:
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
    task, session, request = job.task, job.session, job.request.with_validation()
    strength = method.core().strength
    if strength is None or request.validation is None:
        raise NotSupported(f"tune: expected a method with a strength, got {type(method).__name__}, without one.")
    judged, limit, sets = judging(task, request)
    seed = draw_seed(job.generator)
    order = torch.randperm(len(request.retain), generator=seeded(seed)).tolist()
    cut = max(1, len(order) // 10)
    kept, used = Part(request.retain, sorted(order[:cut])), Part(request.retain, sorted(order[cut:]))
    narrowed = replace(request, retain=used, holdout=request.validation, test=kept, validation=None)
    before = float(observe(model, task, kept).correct.mean())
    tried: dict[float, Trial] = {}
    size = one_size(judged, sets)

    def gap_of(changed: nn.Module) -> float:
        means = [float(observe(changed, judged, one, size).confidence.mean()) for one in sets]
        return means[0] - means[1] if request.kind == "samples" else float(np.max(means)) - limit

    def attempt(factor: float) -> Trial:
        ruined = Trial(strength=factor, gap=-1.0, retain_drop=1.0, kept=False)
        try:
            changed = method.scaled(factor).unlearn(model, Job(narrowed, task, seeded(seed), session))
        except Diverged:
            return ruined
        gap = gap_of(changed)
        drop = before - float(observe(changed, task, kept).correct.mean())
        if not math.isfinite(gap):
            return ruined
        return Trial(strength=factor, gap=gap, retain_drop=drop, kept=drop <= retain_drop)

    weak, strong, factor = strength.low, strength.high, 1.0
    bracket = [False, False]
    for i in range(trials):
        session.say(f"tuning {type(method).__name__}: trial {i + 1} of {trials}, strength x {factor:.4g}")
        trial = tried[factor] = attempt(factor)
        enough = trial.gap <= 0 or not trial.kept
        weak, strong = (weak, factor) if enough else (factor, strong)
        bracket[enough] = True
        factor = math.sqrt(weak * strong) if all(bracket) else min(strong, max(weak, factor * (0.25 if enough else 4)))
        if factor in tried:
            break
    best = choose(list(tried.values()), request.kind)
    met = best.kept and (request.kind == "samples" or best.gap <= 0)
    tuning = Tuning(
        parameter=" and ".join(strength.parameters),
        chosen=best.strength,
        untouched=gap_of(model),
        criterion=CRITERION[request.kind].format(limit) + SPARING.format(retain_drop) + ("" if met else UNMET),
        trials=[tried[key] for key in sorted(tried)],
    )
    return Tuned(method.scaled(best.strength), tuning)


def judging(task: Task, request: Request) -> tuple[Task, float, tuple[Examples, ...]]:
    """The task by which forgetting is judged, the confidence that may be left, and where it is looked at."""
    forget, validation = request.forget, request.validation or Absent("")
    if request.kind == "samples":
        return task, 0.0, (forget, validation)
    if not isinstance(task, Classed):
        raise NotSupported(
            f"tune: expected a task whose examples have a class each, got {type(task).__name__}; for a {request.kind} "
            "nothing else says when it is forgotten. Set the strength by hand."
        )
    judged = task.classified()
    limit = 1 / len(task.classes) if task.rows_depend_on_batch else FORGOTTEN
    sets = {"class": (forget,), "concept": (forget, validation), "backdoor": (validation,)}
    return judged, limit, sets[request.kind]


def choose(trials: list[Trial], kind: str) -> Trial:
    """The trial that meets the criterion best; the least damaging one where all damage retain too much."""
    kept = [trial for trial in trials if trial.kept]
    if not kept:
        return min(trials, key=lambda trial: (trial.retain_drop, trial.strength))
    if kind != "samples":
        forgot = [trial for trial in kept if trial.gap <= 0]
        return min(forgot, key=lambda t: t.strength) if forgot else min(kept, key=lambda t: t.gap)
    gaps = np.array([abs(trial.gap) for trial in kept])
    return kept[int(gaps.argmin())]
