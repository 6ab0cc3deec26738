"""By hand: how many unlike things a set holds, and which of them are near duplicates."""

import numpy as np
import pytest

from unrecall.models.knowledge_holes.vendi import unlike, vendi


def test_equal_vectors_are_one_thing_and_orthogonal_ones_are_as_many_as_they_are() -> None:
    assert vendi(np.ones((7, 3))) == pytest.approx(1)
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.eye(2)[[0, 0, 1, 1]]) == pytest.approx(2)
    assert vendi(np.empty((0, 3))) == 0


def test_two_vectors_by_hand() -> None:
    """K/n has the eigenvalues (1 + c) / 2 and (1 - c) / 2; lengths don't matter."""
    c = 0.6
    expected = np.exp(-sum(l * np.log(l) for l in ((1 + c) / 2, (1 - c) / 2)))  # noqa: E741
    assert vendi(np.array([[3.0, 0], [c, np.sqrt(1 - c * c)]])) == pytest.approx(expected)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    assert vendi(np.array([[0.0, 0], [1, 0]])) == pytest.approx(2)


def test_near_duplicates_go() -> None:
    """0, 30, 60 and 180 degrees: cos 30 is 0.87, above 0.8; cos 60 is 0.5."""
    angles = np.radians([0, 30, 60, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert unlike(vectors, 0.8) == [0, 2, 3]
    assert unlike(vectors, 1.0) == [0, 1, 2, 3]
    assert unlike(vectors[:0], 0.8) == []
