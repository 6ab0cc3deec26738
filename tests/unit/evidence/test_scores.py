"""Scores as files and back, and the best of an attacker's choices at each budget, by hand."""

from pathlib import Path

import numpy as np
import pytest

from unrecall.disk.cache import ARRAYS
from unrecall.evidence.pool import ArmIndices
from unrecall.evidence.scores import Point, Scores, best

PLACE = ArmIndices(0, np.array([0, 1]), np.array([4, 7]))


def scores_of(*points: tuple[float, str, list[float]]) -> Scores:
    return Scores.of(
        [Point(budget, variant, (np.array(shown),), (float(i),)) for i, (budget, variant, shown) in enumerate(points)]
    )


def test_points_are_laid_out_by_tested_set() -> None:
    first = Point(0.0, "before", (np.array([0.1, 0.2]), np.array([0.3])), (1.0, 2.0))
    second = Point(5.0, "a", (np.array([0.4, 0.5]), np.array([0.6])), (3.0, 4.0))
    scores = Scores.of([first, second])
    assert scores.budgets.tolist() == [0, 5]
    assert scores.variants == ("before", "a")
    assert [shown.tolist() for shown in scores.shown] == [[[0.1, 0.2], [0.4, 0.5]], [[0.3], [0.6]]]
    assert [losses.tolist() for losses in scores.losses] == [[1, 3], [2, 4]]


def test_an_arm_is_found_by_its_place() -> None:
    shown = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    scores = Scores(np.array([0.0, 1.0]), ("", ""), (np.zeros((2, 1)), shown), (np.zeros(2), np.zeros(2)))
    assert scores.at(ArmIndices(1, np.array([2, 0]), np.array([9, 3]))).tolist() == [[2, 0], [5, 3]]


@pytest.mark.parametrize("beside", [(), (np.arange(12.0).reshape(3, 2, 2), np.ones((3, 2, 1)))])
def test_scores_come_back_from_their_file(beside: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    scores = Scores(
        np.array([0.0, 2.0]),
        ("before", "lr 0.1"),
        (np.array([[0.0, 1.0], [0.5, 0.25]]), np.array([[1.0], [0.0]])),
        (np.array([0.5, np.nan]), np.array([1.5, 2.5])),
        beside,
    )
    ARRAYS.write(tmp_path / "scores.npz", scores.arrays())
    back = Scores.from_arrays(ARRAYS.read(tmp_path / "scores.npz"))
    assert back.variants == scores.variants
    assert back.budgets.tolist() == scores.budgets.tolist()
    for name in ("shown", "losses", "beside"):
        assert len(getattr(back, name)) == len(getattr(scores, name))
        for array, expected in zip(getattr(back, name), getattr(scores, name), strict=True):
            np.testing.assert_array_equal(array, expected)


def test_the_worst_variant_counts_at_each_budget() -> None:
    trace = best(
        scores_of((1.0, "a", [0.0, 1.0]), (2.0, "a", [0.0, 0.0]), (1.0, "b", [0.0, 0.0]), (2.0, "b", [1.0, 1.0])), PLACE
    )
    assert trace.budgets == [1.0, 2.0]
    assert trace.variants == ["a", "b"]
    assert [shown.mean() for shown in trace.shown] == [0.5, 1.0]
    assert trace.losses == [0.0, 3.0], "the loss at the chosen point"


def test_of_equally_good_choices_the_first_counts() -> None:
    trace = best(scores_of((1.0, "a", [1.0, 0.0]), (1.0, "b", [0.0, 1.0])), PLACE)
    assert (trace.variants, [shown.tolist() for shown in trace.shown]) == (["a"], [[1, 0]])


def test_who_spends_more_may_keep_what_less_brought_where_something_was_spent() -> None:
    """0.9 before the attack is no result of it: only the budgets above 0 carry over to larger ones."""
    points = (0.0, "before", [0.9, 0.9]), (1.0, "a", [0.5, 0.5]), (2.0, "b", [0.25, 0.25]), (3.0, "a", [0.25, 0.75])
    assert [shown.mean() for shown in best(scores_of(*points), PLACE).shown] == [0.9, 0.5, 0.25, 0.5]
    cumulative = best(scores_of(*points), PLACE, cumulative=True)
    assert [shown.tolist() for shown in cumulative.shown] == [[0.9, 0.9], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    assert cumulative.variants == ["before", "a", "a", "a"]
    assert cumulative.budgets == [0, 1, 2, 3]
    assert cumulative.losses == [0, 1, 1, 1]


def test_what_was_reached_leaves_out_what_was_there_before() -> None:
    trace = best(scores_of((0.0, "before", [1.0, 1.0]), (1.0, "a", [0.0, 1.0])), PLACE)
    assert [shown.tolist() for shown in trace.reached] == [[0, 1]]
    alone = best(scores_of((0.0, "before", [1.0, 0.0])), PLACE)
    assert [shown.tolist() for shown in alone.reached] == [[1, 0]], "the attack broke off at once"


def test_only_the_arm_s_own_examples_count() -> None:
    """The choice that brings most of the others, at position 1, isn't the best for this arm."""
    scores = scores_of((1.0, "a", [0.0, 1.0, 0.5]), (1.0, "b", [0.5, 0.0, 0.5]))
    assert best(scores, ArmIndices(0, np.array([0, 2]), np.array([0, 1]))).variants == ["b"]
    assert best(scores, ArmIndices(0, np.array([1]), np.array([0]))).variants == ["a"]
