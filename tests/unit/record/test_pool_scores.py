"""What is taken from scores before they are tested, and which scores are refused."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.record.test_never_trained import pool
from unrecall.record.pool_scores import PoolScores


def test_scores_are_adjusted_by_least_squares_over_both_arms() -> None:
    hard = np.arange(8.0)
    scores = pool(0.0, 0.0, n=4, m=4, attacks=1, covariates=np.zeros((8, 0)))
    raw = np.array([[0.0, 1, 2, 3, 4, 5, 6, 7]])
    with_hardness = replace(scores, covariates=hard[:, None], kinds=("cheap",))
    assert with_hardness.columns.shape == (8, 1)
    assert np.allclose(with_hardness.adjusted(raw), 0)
    assert np.allclose(scores.adjusted(raw), raw - 3.5)


@pytest.mark.parametrize(("n", "columns"), [(70, [0, 1, 2, 3, 4]), (60, [3, 4]), (30, [4]), (10, [4])])
def test_texts_lose_their_words_first_and_then_squares(n: int, columns: list[int]) -> None:
    """Fewer columns than a tenth of the units, the constant among them; what stands in no such group stays."""
    values = np.random.default_rng(0).normal(size=(n, 5))
    scores = pool(0, 0, n=n // 2, m=n // 2, covariates=values, kinds=("words",) * 3 + ("square", "cheap"))
    assert np.array_equal(scores.columns, values[:, columns])


def test_too_many_covariates_lose_distances_first_and_then_classes() -> None:
    rng = np.random.default_rng(0)
    kinds = ("class",) * 9 + ("distance",) * 3 + ("cheap",) * 2
    wide = pool(0, 0, n=100, m=60, covariates=rng.normal(size=(160, 14)), kinds=kinds)
    assert wide.columns.shape[1] == 14
    assert pool(0, 0, n=60, m=70, covariates=rng.normal(size=(130, 14)), kinds=kinds).columns.shape[1] == 11
    assert pool(0, 0, n=40, m=60, covariates=rng.normal(size=(100, 14)), kinds=kinds).columns.shape[1] == 2


def test_more_attacks_than_rows_of_scores_are_refused() -> None:
    scores = pool(0.3, 1.0)
    with pytest.raises(ValueError, match="3 attacks"):
        PoolScores.from_arrays(scores.arrays(), ["a", "b", "c"], [])
