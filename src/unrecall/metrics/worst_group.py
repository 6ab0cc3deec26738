"""The accuracy of the group that a model serves worst."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from unrecall.data.examples import iterate
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric, estimates
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate
from unrecall.tasks.protocols import InGroups

ROW = Row("worst_group_accuracy", "Accuracy on the worst group of test", "utility", margin=0.05)


def by_group(correct: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What was predicted right `[n]`, by the group of each example."""
    place = np.asarray(names)
    return {str(name): correct[place == name] for name in np.unique(place)}


def worst_group(correct: np.ndarray, names: Sequence[str]) -> Estimate:
    """The least accuracy among groups, min_g mean_{i in g} correct_i, in [0, 1].

    The interval goes from the least lower bound to the least upper bound of exact ones, each of 1 - 5 % / groups, so
    that all hold at once in 95 of 100 cases, whichever group is the worst.

    Reference: Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, arXiv 1911.08731.
    The interval is ours.
    """
    groups = by_group(correct, names)
    level = 1 - (1 - stats.LEVEL) / len(groups)
    bounds = [stats.clopper_pearson(float(part.sum()), len(part), level) for part in groups.values()]
    value = min(float(part.mean()) for part in groups.values())
    low, high = (min(column) for column in zip(*bounds, strict=True))
    return Estimate(value=value, low=low, high=high, n=len(correct))


def measure(setting: Setting) -> Measured:
    """Accuracy on the group of the test set that a model serves worst; the note names the unlearned model's."""
    task = cast(InGroups, setting.task)
    names = [task.group(item) for item in iterate(setting.observed.test)]

    def of(evidence: Evidence) -> Estimate:
        return worst_group(evidence.signals["test"].correct, names)

    by_role = estimates(setting, of)
    if by_role["unlearned"].value is None:
        return Measured([ROW.measured(by_role)])
    groups = by_group(setting.evidence["unlearned"].signals["test"].correct, names)
    worst = min(groups, key=lambda name: float(groups[name].mean()))
    return Measured([ROW.measured(by_role, f"worst of {len(groups)} groups: {worst}")])


WORST_GROUP = Metric("worst_group", (ROW,), measure, (InGroups,))
