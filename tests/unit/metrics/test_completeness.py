"""Completeness of forgetting by hand, and at both ends."""

import math

import numpy as np
import pytest

from tests.worlds import CPU, World
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics.completeness import CEILING, FLOOR, bounded_score, completeness, measure


def test_the_bounded_score_by_hand() -> None:
    """Of p = 1/2, and of the ends: sure of the label, and not at all."""
    losses = np.array([math.log(2), 0.0, 100.0])
    expected = [-math.log(0.01 - math.log(0.5 + FLOOR)), -math.log(0.01 - math.log(1 + FLOOR))]
    expected += [-math.log(0.01 - math.log(FLOOR))]
    np.testing.assert_allclose(bounded_score(losses, CEILING), expected)


def test_with_no_way_between_the_models_it_is_gumbels_distribution() -> None:
    """Where original and others agree, every point says the same: 1 - exp(-exp(-(x - mean) / b - 0.5772))."""
    others = np.array([[0.5, 1.5]])
    scores = bounded_score(others[0], CEILING)
    b = math.sqrt(6) * scores.std() / math.pi
    own = np.array([1.0, 1.0])
    expected = 1 - np.exp(-np.exp(-(bounded_score(own, CEILING) - scores) / b - np.euler_gamma))
    np.testing.assert_allclose(completeness(own, others[0], others, CEILING), expected)


def test_what_is_less_sure_is_more_complete() -> None:
    original, others = np.full(6, 0.01), np.array([[1.0, 1.2, 0.9, 1.1, 0.8, 1.3], [1.1, 0.9, 1.0, 1.2, 1.0, 0.8]])
    as_original, between, as_others, beyond = (
        completeness(own, original, others, CEILING).mean()
        for own in (original, np.full(6, 0.2), others.mean(0), np.full(6, 5.0))
    )
    assert as_original < between < as_others < beyond
    assert as_original < 0.5
    assert beyond > 0.99


def test_an_audit_gives_it_of_every_model(samples_world: World) -> None:
    w = samples_world
    models = Models(w.original, w.retrained[0], w.retrained[1:])
    (row,) = measure(Setting(models, w.request, w.task, 0, CPU)).measurements
    assert row.unlearned.value is not None and row.original.value is not None
    assert row.original.value < row.unlearned.value
    assert not row.judged
    (alone,) = measure(Setting(Models(w.original, w.original), w.request, w.task, 0, CPU)).measurements
    assert alone.unlearned.value is None
    assert alone.note == "needs a retrained model besides the one that is measured"


@pytest.mark.parametrize("loss", [0.0, 1e4])
def test_the_ends_of_confidence_give_numbers(loss: float) -> None:
    values = completeness(np.full(3, loss), np.zeros(3), np.zeros((1, 3)), CEILING)
    assert np.isfinite(values).all()
