"""The accuracy of the worst group, by hand, and what an audit says of it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.worlds import CPU, World
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics.worst_group import WORST_GROUP, by_group, measure, worst_group
from unrecall.tasks import Grouped

CORRECT = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
NAMES = ["a", "b", "a", "a", "b", "a", "b"]


def test_groups_by_hand() -> None:
    assert {name: part.mean() for name, part in by_group(CORRECT, NAMES).items()} == {
        "a": 0.75,
        "b": pytest.approx(1 / 3),
    }
    estimate = worst_group(CORRECT, NAMES)
    assert (estimate.value, estimate.n) == (pytest.approx(1 / 3), 7)
    low = [float(stats.beta.ppf(0.0125, k, n - k + 1)) for k, n in ((3, 4), (1, 3))]
    high = [float(stats.beta.ppf(0.9875, k + 1, n - k)) for k, n in ((3, 4), (1, 3))]
    assert (estimate.low, estimate.high) == (pytest.approx(min(low)), pytest.approx(min(high)))


def test_of_one_group_it_is_the_accuracy_with_its_interval() -> None:
    estimate = worst_group(CORRECT, ["a"] * 7)
    assert estimate.value == pytest.approx(4 / 7)
    assert estimate.low == pytest.approx(float(stats.beta.ppf(0.025, 4, 4)))


def test_an_audit_names_the_worst_group(grouped_world: World) -> None:
    models = Models(grouped_world.original, grouped_world.retrained[0], grouped_world.retrained[1:])
    setting = Setting(models, grouped_world.request, grouped_world.task, 0, CPU)
    assert WORST_GROUP.suits(setting)
    (row,) = measure(setting).measurements
    correct = setting.evidence["unlearned"].signals["test"].correct
    names = np.array([group for *_, group in grouped_world.request.test])  # type: ignore[attr-defined]
    shares = {name: float(correct[names == name].mean()) for name in ("bright", "dark")}
    assert row.unlearned.value == min(shares.values())
    assert row.note == f"worst of 2 groups: {min(shares, key=lambda name: shares[name])}"
    assert len(row.references) == 2 and row.original.value is not None and not row.judged


def test_without_a_test_set_the_row_says_why(grouped_world: World) -> None:
    whole = grouped_world.request
    request = Request(whole.forget, whole.retain, whole.holdout)
    models = Models(grouped_world.original, grouped_world.retrained[0])
    (row,) = measure(Setting(models, request, grouped_world.task, 0, CPU)).measurements
    assert row.unlearned.value is None and row.note.startswith("no test set was given")


def test_an_example_without_a_group_is_refused(grouped_world: World) -> None:
    data = list(grouped_world.request.retain)  # type: ignore[call-overload]
    for wrong in (data[0][:2], (*data[0][:2], 3)):
        request = replace(grouped_world.request, retain=[wrong, *data[1:]])
        with pytest.raises(BadInput, match=r"retain\[0\]: expected \(input, label, group\) with the group's name, got"):
            Grouped().check(grouped_world.original, request)
