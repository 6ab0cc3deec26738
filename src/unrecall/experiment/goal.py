"""When a request counts as forgotten, and what may be lost meanwhile: read from what a user has, never from a judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats
from torch import nn

from unrecall.data.examples import Examples, Selection, evenly
from unrecall.data.kinds import Kind
from unrecall.data.request import Request
from unrecall.data.signals import Signals
from unrecall.data.sizes import SAMPLE
from unrecall.errors import BadInput
from unrecall.models.observe import observe, one_size
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Recommending, Textual, classed, offers
from unrecall.training.job import Job

FORGOTTEN = 0.05
"""The confidence that a classifier may have left: a retrained one was taught by every example that it isn't this."""
NEAREST, LOOKED_AT = 3, 200
"""Neighbours in retain of each forgotten example, and the most forgotten examples whose neighbours are looked for."""
NEAR_DROP, VALIDATION_CHANGE = 0.1, 0.1
"""What may be lost on the neighbours, and lost or gained on validation, as shares of examples."""

KNOWN_SHARE, SIGNIFICANCE = 0.5, 0.05
"""Texts count as known from this share of right words on, or, beside unseen texts, up to this p."""


def right(task: Task, signals: Signals) -> np.ndarray:
    """What a model gets right, by example `[n]`: of a text the whole answer or nothing, as it would be written."""
    return (signals.correct > 1 - 1e-6).astype(float) if offers(task, Textual) else signals.correct


def use(task: Task, signals: Signals) -> float:
    """What a model is good for on a set: the mean of what it gets right, over examples.

    Of a recommender, which hardly ever names the one item first, it is the mean log-likelihood of the items, in nats.
    """
    return -float(signals.loss.mean()) if offers(task, Recommending) else float(right(task, signals).mean())


@dataclass(frozen=True)
class Goal:
    """When a request counts as forgotten.

    `task`: by which confidence is measured. `limit`: the confidence that may be left. `sets`: on which examples.
    """

    kind: Kind
    task: Task
    limit: float
    sets: tuple[Examples, ...]

    def signals(self, model: nn.Module) -> list[Signals]:
        """What a model says on each of the sets."""
        size = one_size(self.task, self.sets)
        return [observe(model, self.task, examples, size) for examples in self.sets]

    def gap(self, signals: Sequence[Signals]) -> float:
        """How far a model is from the goal: above 0 it has forgotten too little, below 0 more than is asked.

        Of samples: mean confidence on forget minus that on validation; of texts also the share of answers that it says
        whole, and the larger of the two.
        """
        means = [float(part.confidence.mean()) for part in signals]
        if self.kind != "samples":
            return float(np.max(means)) - self.limit
        if not offers(self.task, Textual):
            return means[0] - means[1]
        whole = [float(right(self.task, part).mean()) for part in signals]
        return max(means[0] - means[1], whole[0] - whole[1])

    def __call__(self, model: nn.Module) -> bool:
        """Whether a model has forgotten enough."""
        return self.gap(self.signals(model)) <= 0


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


def stopping(job: Job) -> Job:
    """The same work, whose training ends as soon as the request is forgotten; MissingReference without validation."""
    request = job.request.with_validation()
    return job.until(goal_of(job.task, request, request.validation or ()))


class Change(NamedTuple):
    """What of a model's `use` was lost on a set, and whether that is too much."""

    lost: float
    excessive: bool


@dataclass(frozen=True)
class Guard:
    """A set on which an unlearned model must be of about as much `use` as the original, `before`.

    `most`: what may be lost of it, or one example where that is more (but of a recommender's likelihood, of which one
    example is no share); with `both_ways`, gained as well.
    """

    task: Task
    examples: Examples
    before: float
    most: float
    both_ways: bool = False

    def change(self, model: nn.Module) -> Change:
        """What the model lost on the set."""
        return self.change_of(observe(model, self.task, self.examples))

    def change_of(self, signals: Signals) -> Change:
        """The same, from what the model says on the set."""
        lost = self.before - use(self.task, signals)
        one_example = 0.0 if offers(self.task, Recommending) else 1 / max(1, len(self.examples))
        allowed = max(self.most, one_example) + 1e-9
        return Change(lost, (abs(lost) if self.both_ways else lost) > allowed)


class Guards(NamedTuple):
    """The sets that are watched: retain that unlearning doesn't see, retain nearest to forget, and validation.

    Of a recommender `retained` is retain that unlearning sees: it learns interactions by heart, so that what it isn't
    taught again it forgets as it should forget forget.
    """

    retained: Guard
    near: Guard
    validation: Guard | None


def guards_of(task: Task, original: nn.Module, request: Request, validation: Examples, drop: float) -> Guards:
    """The guards of a request whose test set is retain that unlearning does not see.

    `drop`: what may be lost there; on the others at least `NEAR_DROP` and `VALIDATION_CHANGE` may be.
    Validation is no guard where it shares what must go, as it does where a user of a recommender leaves.
    """

    def guard(examples: Examples, most: float, *, both_ways: bool = False) -> Guard:
        return Guard(task, examples, use(task, observe(original, task, examples)), most, both_ways)

    near, by_heart = nearest(task, original, request), offers(task, Recommending)
    retained = request.sampled(SAMPLE).retain if by_heart else request.test
    shared = request.kind != "samples" or by_heart
    own = None if shared else guard(validation, max(drop, VALIDATION_CHANGE), both_ways=True)
    return Guards(guard(retained, drop), guard(near, max(drop, NEAR_DROP)), own)


def nearest(task: Task, original: nn.Module, request: Request) -> Selection:
    """The retain examples nearest to what must go, by the cosine of the original's features: three to each."""
    from sklearn.neighbors import NearestNeighbors

    forget = Selection(request.forget, evenly(len(request.forget), LOOKED_AT))
    retain = request.sampled(SAMPLE).retain
    forget_features, retain_features = (_flat(observe(original, task, part).features) for part in (forget, retain))
    index = NearestNeighbors(n_neighbors=min(NEAREST, len(retain_features)), metric="cosine").fit(retain_features)
    return Selection(retain, np.unique(index.kneighbors(forget_features, return_distance=False)).tolist())


def _flat(features: np.ndarray) -> np.ndarray:
    """Features in float64, one row an example; finite, for a broken model's distances say nothing."""
    return np.nan_to_num(features.reshape(len(features), -1).astype(np.float64))


def why_not_memorised(task: Task, original: nn.Module, request: Request) -> str:
    """Why texts that must go can't be said to be in the original; empty where they are, and for other tasks.

    They are where it says one of their answers whole, or is surer of them than of texts that it never saw, by the
    Mann-Whitney test at 5 %; without such texts, where it says half of them word by word.
    """
    if not offers(task, Textual):
        return ""
    signals_of_forget = observe(original, task, request.forget)
    if right(task, signals_of_forget).any():
        return ""
    reason = f"the original says none of {len(signals_of_forget)} answers whole"
    unseen = next((examples for examples in (request.holdout, request.test) if len(examples)), ())
    if not len(unseen):
        share = float(signals_of_forget.correct.mean())
        return "" if share >= KNOWN_SHARE else f"{reason}, and {share:.0%} of them word by word"
    signals_of_unseen = observe(original, task, unseen)
    p = float(stats.mannwhitneyu(signals_of_forget.loss, signals_of_unseen.loss, alternative="less").pvalue)
    mean, others = (float(signals.confidence.mean()) for signals in (signals_of_forget, signals_of_unseen))
    beside = f"its mean probability is {mean:.2g} for them and {others:.2g} for texts that it never saw (p = {p:.2f})"
    return "" if p <= SIGNIFICANCE else f"{reason}, and {beside}"


def check_memorised(task: Task, original: nn.Module, request: Request) -> None:
    """BadInput where the original doesn't know what must be forgotten, as far as it can be asked."""
    if reason := why_not_memorised(task, original, request):
        raise BadInput(
            f"forget: expected what the model was trained on, got texts that it doesn't know: {reason}; "
            f"{task.remark}. Check that it is the right model, and name the template that it was trained with "
            "(--template); or go on with --anyway."
        )
