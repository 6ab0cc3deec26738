"""One model, one forgotten class: does the model know it better than classes that it never saw?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import nn

from unrecall.data.examples import Examples
from unrecall.data.sizes import OTHERS
from unrecall.errors import BadInput, Fields, at_least, check_fields, kind_of
from unrecall.models.observe import observe
from unrecall.tasks.base import Task

LEVEL = 0.05


class NovelClass(NamedTuple):
    """How well a forgotten class is told apart after a few examples, among classes that the model never saw.

    `margin`: how much nearer its examples lie to their own prototype than to a retained class's, in cosine, [-2, 2].
    `others` [classes]: the same of each unseen class. `p_known`: the probability that a class never trained on has so
    large a margin among them; `p_blurred`: so small a one.
    """

    margin: float
    others: tuple[float, ...]
    p_known: float
    p_blurred: float

    @property
    def line(self) -> str:
        """One sentence."""
        where = f"margin {self.margin:.3f}, that of {len(self.others)} unseen classes {np.mean(self.others):.3f}"
        if self.p_known <= LEVEL:
            return f"Leaks: the class stands apart more than classes never seen do ({where}; p = {self.p_known:.3f})."
        if self.p_blurred <= LEVEL:
            p = f"p = {self.p_blurred:.3f}"
            return f"Stands out: the class is more blurred than classes never seen are ({where}; {p})."
        lacking = f"; {OTHERS} of them can give .05" if len(self.others) < OTHERS else ""
        return f"Can't be told from classes never seen ({where}; p = {self.p_known:.3f}{lacking})."


FIELDS: Fields = {
    "task": (kind_of(Task), "a Task, as ur.tasks.Classification() is"),
    "model": (kind_of(nn.Module), "a model"),
    "seed": (at_least(0), "a whole number from 0 on"),
}
"""What the check of a class is given beside data and counts."""


def novel_class(
    task: Task,
    model: nn.Module,
    retain: Examples,
    forgotten: Examples,
    unseen: Sequence[Examples],
    *,
    shots: int = 5,
    draws: int = 20,
    seed: int = 0,
) -> NovelClass:
    """Ranks a forgotten class among classes that no model was trained on, by how far its features stand apart.

        T(c) = mean over c's other examples of cos(f, mean of k of them) - max over retained classes r of
               cos(f, mean of r); averaged over draws of the k
        p    = (1 + number of unseen classes with T at least (at most) as large) / (M + 1)

    To a model that was never trained on the class it is one more unseen class, so that each place is equally likely,
    where the classes come from one source (people of one collection, characters of one alphabet). 19 of them give
    p = .05. f is an example's features. Ask it of the original first: what can't be told there, in a model that knows
    the class, can't be told of any other.

    Args:
        task: of a classifier; features come from its `Signals`.
        model: the unlearned model.
        retain: what it was trained on and still may know; each of its classes has at least one example.
        forgotten: examples of the forgotten class, `shots` + 1 or more; those it was trained on or others.
        unseen: for each unseen class as many examples (of larger ones the first are read), under any label that the
            model has, for labels aren't read. BadInput where one has too few, or there are fewer than 2.
        shots: k. draws: how often they are drawn anew. seed: of the draws.
    """
    check_fields("novel_class", FIELDS, {**locals()})
    least = min(map(len, (forgotten, *unseen)), default=0)
    _check(shots, draws, len(retain), len(unseen), least)
    taught = observe(model, task, retain)
    features_of_retain = _unit(taught.features)
    means = _unit(np.stack([features_of_retain[taught.target == c].mean(0) for c in np.unique(taught.target)]))
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(least) for _ in range(draws)]

    def margin(examples: Examples) -> float:
        features = _unit(observe(model, task, examples).features)[:least]
        return float(np.mean([_margin(features[order], means, shots) for order in orders]))

    own, others = margin(forgotten), tuple(map(margin, unseen))
    if not np.isfinite([own, *others]).all():
        raise BadInput("novel_class: expected finite features, got NaN or infinity. Look into model and inputs.")
    above, below = sum(other >= own for other in others), sum(other <= own for other in others)
    return NovelClass(own, others, (1 + above) / (1 + len(others)), (1 + below) / (1 + len(others)))


def _check(shots: int, draws: int, retained: int, classes: int, least: int) -> None:
    """BadInput where there is too little to compare, or a count is none."""
    if not (isinstance(shots, int) and isinstance(draws, int) and min(shots, draws) >= 1 and retained):
        raise BadInput(
            f"novel_class: expected shots and draws from 1 on, and retained examples, got shots={shots}, "
            f"draws={draws}, {retained} examples."
        )
    if classes < 2 or least <= shots:
        raise BadInput(
            f"novel_class: expected at least 2 unseen classes, and more than {shots} examples of each and of the "
            f"forgotten one, got {classes} classes and {least} examples. Give more, or lower shots."
        )


def _margin(features: np.ndarray, means: np.ndarray, shots: int) -> float:
    """How much nearer features `[n, d]` lie to the mean of the first `shots` than to any of `means` `[c, d]`."""
    prototype, rest = _unit(features[:shots].mean(0)), features[shots:]
    return float(np.mean(rest @ prototype - (rest @ means.T).max(1)))


def _unit(features: np.ndarray) -> np.ndarray:
    """Each example's features, or a single mean, divided by their length; zeros stay."""
    rows = features.reshape(len(features), -1) if features.ndim > 2 else features
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
