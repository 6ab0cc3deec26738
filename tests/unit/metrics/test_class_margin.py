"""The margin of a forgotten class under a new head: by what the features tell, whatever the head says."""

import numpy as np

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
