"""The margin of a forgotten class under a new head: by what the features tell, whatever the head says."""

import numpy as np
import pytest

from unrecall.data.signals import Signals
from unrecall.evidence.evidence import Evidence
from unrecall.metrics.class_margin import class_margin


def signals(features: np.ndarray, target: np.ndarray) -> Signals:
    n, ones = len(features), np.ones(len(features))
    rows = dict.fromkeys(("log_prob", "expected", "deviation"), ones)
    return Signals(
        loss=ones, confidence=ones, correct=ones, features=features.astype(np.float32), prediction=np.zeros(n, int),
        target=target, example=np.arange(n), **rows,
    )  # fmt: skip


def evidence(apart: float, seed: int = 0) -> Evidence:
    """Two retained classes at +-3 on the first axis, a forgotten one at `apart` on the second; noise 0.5."""
    rng = np.random.default_rng(seed)
    retained = np.repeat([0, 1], 50)
    retain = np.c_[np.where(retained == 0, -3.0, 3.0), np.zeros(100)] + 0.5 * rng.normal(size=(100, 2))
    forget = np.array([0.0, apart]) + 0.5 * rng.normal(size=(40, 2))
    parts = {"retain": signals(retain, retained), "forget": signals(forget, np.full(40, 2))}
    return Evidence(None, parts, (), parts)  # type: ignore[arg-type]


def test_it_grows_with_how_far_the_class_lies_from_others() -> None:
    values = [class_margin(evidence(apart)).value or 0.0 for apart in (0.0, 1.0, 3.0)]
    assert values[0] < values[1] < values[2] < 2
    assert values[2] > 1, "all but separated"


def of_classes(target: np.ndarray) -> Evidence:
    """Two retained classes on the first axis, forgotten ones, whose labels begin with 2, each on an axis of its own."""
    rng = np.random.default_rng(0)
    retained, classes = np.repeat([0, 1], 50), int(target.max()) + 1
    places = 5 * np.eye(classes)
    parts = {
        name: signals(places[labels] + 0.2 * rng.normal(size=(len(labels), classes)), labels)
        for name, labels in (("retain", retained), ("forget", target))
    }
    return Evidence(None, parts, (), parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "target",
    [np.repeat([2, 3], 450), np.tile([2, 3], 20), np.repeat([2, 3], [401, 2]), np.repeat([2, 3, 4], [3, 400, 2])],
    ids=["sorted by class", "alternating", "of unequal size", "three"],
)
def test_every_forgotten_class_is_fitted_and_measured(target: np.ndarray) -> None:
    estimate = class_margin(of_classes(target))
    assert estimate.n == len(target)
    assert estimate.value is not None
    assert estimate.value > 1, "all are separated"


def test_a_class_of_one_example_is_left_out() -> None:
    estimate = class_margin(of_classes(np.repeat([2, 3], [40, 1])))
    assert (estimate.n, estimate.note) == (40, "1 of 41 left out: the head was fitted with no example of their class")
    alone = class_margin(of_classes(np.array([2, 3])))
    assert alone.value is None
    assert alone.note.startswith("2 of 2 left out")


def test_few_examples_give_a_reason() -> None:
    whole = evidence(3.0)
    one = {**whole.signals, "forget": whole.signals["forget"].part(np.array([0]))}
    assert class_margin(Evidence(None, one, (), one)).note.startswith("needs two examples")  # type: ignore[arg-type]


def test_the_examples_measured_are_not_those_fitted() -> None:
    """Labels of noise: fitted and measured on the same examples, a wide head would put them in their class."""
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(60, 100)), np.full(60, 2)
    retain = signals(rng.normal(size=(60, 100)), np.repeat([0, 1], 30))
    noise = {"retain": retain, "forget": signals(features, target)}
    value = class_margin(Evidence(None, noise, (), noise)).value  # type: ignore[arg-type]
    assert value is not None
    assert value < 0
