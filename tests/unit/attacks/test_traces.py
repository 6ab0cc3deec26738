"""Unlearning traces: features, folds and sums by hand, what is nobody's business, and both controls."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.attacks.running import setting_of
from tests.worlds import World, facts, train
from unrecall.attacks.traces import Traces, share_above, summed
from unrecall.data.examples import Absent, Selection, iterate
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.evidence.setting import Models
from unrecall.harness.inspection import inspection_finding
from unrecall.models.observe import observe


def test_sums_by_hand() -> None:
    """-1 + 2, 3 - 3; the last is left out."""
    sides = np.array([[-1.0, 2, 3, -3, 9]])
    assert summed(sides, 2).tolist() == [[1, 0]]
    assert share_above(sides).tolist() == [[0, 1, 1, 0, 1]]
    assert share_above(summed(sides, 2)).tolist() == [[1, 0.5]]


def test_what_an_answer_shows(class_world: World) -> None:
    """Four numbers and their squares, of test examples of no forgotten class."""
    w = class_world
    features = Traces()._shown(w.original, setting_of(w))
    kept = [item for item in iterate(w.request.test) if item[1] != 0]  # type: ignore[index]
    signals = observe(w.original, w.task, kept)
    assert features.shape == (len(kept), 8)
    assert features[:, 0] == pytest.approx(-signals.loss)
    assert features[:, 3] == pytest.approx(signals.correct)
    assert features[:, 5] == pytest.approx(np.square(signals.expected))


def test_differences_that_always_point_one_way_are_told() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 3))
    marked = noise.copy()
    marked[:, 1] = 0.5 + np.abs(marked[:, 1])
    marked[:, 2] = 0.0  # which tells nothing, and has no spread
    inspection = Traces(folds=4)._told([marked, marked])
    assert inspection.value.value == 1
    assert inspection.value.n == 40
    assert inspection.x == (1, 2, 4, 8)
    assert inspection.lines["told apart"] == (1, 1, 1, 1)
    assert abs((Traces(folds=4)._told([noise]).value.value or 0) - 0.5) < 0.25
    equal = Traces(folds=4)._told([np.zeros((40, 3))])
    assert equal.value.value == 0.5, "ties count half"


def test_a_mark_is_told_and_a_retrained_model_is_not(class_world: World) -> None:
    """A model that is less sure of everything, beside another retrained one; both controls hold."""
    w = class_world
    marked = copy.deepcopy(w.retrained[0])
    with torch.no_grad():
        for p in marked[-1].parameters():  # type: ignore[index]
            p.mul_(0.5)
    fresh = train(list(w.request.retain), 77)  # type: ignore[call-overload]
    values = {}
    for name, model in (("marked", marked), ("fresh", fresh)):
        finding = inspection_finding(Traces(), setting_of(w, model))
        values[name] = finding.measurements[0].unlearned.value or 0
        assert finding.report.positive_holds, finding.report.positive_control
        assert finding.report.negative_holds, finding.report.negative_control
    assert values["marked"] > 0.85
    assert values["fresh"] < 0.8


def test_texts_are_told_too(text_world: World) -> None:
    w = text_world
    test: Any = [{"prompt": item["paraphrase"], "answer": item["answer"]} for item in facts()]
    setting = replace(setting_of(w), request=replace(w.request, test=test))
    inspection = Traces(folds=2).inspect(w.original, setting)
    assert inspection.value.n == len(test)
    assert inspection.value.value is not None


def test_what_it_cannot_compare_is_refused(class_world: World) -> None:
    w = class_world
    setting = setting_of(w)
    with pytest.raises(MissingReference, match="a retrained model"):
        Traces().inspect(w.original, replace(setting, models=Models(w.original, w.original)))
    with pytest.raises(MissingReference, match="nobody knows"):
        Traces().inspect(w.original, replace(setting, request=replace(w.request, test=Absent("nobody knows"))))
    few = replace(w.request, test=Selection(w.request.test, range(60)))  # the first 20 are of the forgotten class
    count = sum(item[1] != 0 for item in iterate(few.test))  # type: ignore[index]
    with pytest.raises(NotSupported, match=f"50 test examples or more .* got {count}"):
        Traces().inspect(w.original, replace(setting, request=few))
    one = replace(setting, models=Models(w.original, w.original, w.retrained[:1]))
    assert "other than itself" in Traces().inspect(w.retrained[0], one).value.note
    with pytest.raises(BadInput, match="folds"):
        Traces(folds=1)
