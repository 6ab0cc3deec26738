"""The exact test, by counting all labellings by hand."""

from itertools import combinations

import numpy as np
import pytest

from unrecall.record.exchange import Labels, exchange


def of(forget: list[int], half: list[int] | None = None) -> Labels:
    return Labels(np.array(forget, bool), np.array(half or [0] * len(forget)))


def test_three_against_three_perfectly_apart_is_one_labelling_in_twenty() -> None:
    test = exchange(np.array([[6.0, 5, 4, 3, 2, 1]]), of([1, 1, 1, 0, 0, 0]), seed=0)
    assert (test.leak, test.strange, test.draws, test.smallest) == (1 / 20, 1.0, 20, 1 / 20)
    # ranks 4, 5, 6 sum to 15 where 10.5 is due; the variance of a sum of 3 of 6 ranks is 3 * 3 * 7 / 12
    assert test.z[0] == pytest.approx(4.5 / np.sqrt(5.25))


def test_the_other_side_counts_as_much() -> None:
    test = exchange(np.array([[1.0, 2, 3, 4, 5, 6]]), of([1, 1, 1, 0, 0, 0]), seed=0)
    assert (test.leak, test.strange) == (1.0, 1 / 20)


def test_ties_share_their_rank_and_the_variance_is_that_of_the_shared_ranks() -> None:
    test = exchange(np.array([[1.0, 1, 0, 0]]), of([1, 1, 0, 0]), seed=0)
    # midranks 3.5, 3.5, 1.5, 1.5: centred +-1; variance of a sum of 2 of 4 is 4 * 2 * 2 / (4 * 3)
    assert test.z[0] == pytest.approx(2 / np.sqrt(4 / 3))
    assert test.leak == 1 / 6


def test_labels_change_places_within_halves_alone() -> None:
    labels = of([1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1])
    assert labels.possible == 9
    assert exchange(np.array([[3.0, 1, 2, 30, 10, 20]]), labels, seed=0).leak == 1 / 9


@pytest.mark.parametrize("attacks", [1, 3])
def test_whichever_labelling_is_the_true_one_p_is_at_most_t_with_probability_t(attacks: int) -> None:
    scores = np.random.default_rng(1).normal(size=(attacks, 7))
    ps = []
    for chosen in combinations(range(7), 3):
        forget = np.zeros(7, bool)
        forget[list(chosen)] = True
        ps.append(exchange(scores, Labels(forget, np.zeros(7, int)), seed=0).leak)
    for t in np.arange(1, 36) / 35:
        assert np.mean(np.array(ps) <= t + 1e-12) <= t + 1e-12


def test_drawn_labellings_say_what_all_of_them_do() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(2, 16))
    labels = of([1] * 6 + [0] * 10)
    scores[:, :6] += 0.7
    assert labels.possible == 8008
    whole, drawn = exchange(scores, labels, 0, draws=9_999), exchange(scores, labels, 0, draws=4_000)
    assert whole.draws == 8008
    assert drawn.draws == 4_000
    assert drawn.smallest == 1 / 4_001
    assert drawn.leak == pytest.approx(whole.leak, abs=0.02)


def test_step_down_by_hand() -> None:
    labels = of([1, 1, 1, 0, 0, 0])
    scores = np.array([[6.0, 5, 4, 3, 2, 1], [5, 3, 6, 4, 1, 2]])
    test = exchange(scores, labels, seed=0)
    alone = exchange(scores[1:], labels, seed=0)
    assert test.leaks[0] == test.leak  # the strongest is compared with the maximum over both
    assert test.leaks[1] == max(test.leaks[0], alone.leak)  # the rest with what is left


def test_one_person_among_twenty_is_ranked_by_its_scores() -> None:
    scores = np.array([[5.0, *range(-19, 0)], [0.0, *range(1, 20)]])
    test = exchange(scores, of([1] + [0] * 19), seed=0, ranked=False)
    assert test.leak == 1 / 20
    assert exchange(scores[1:], of([1] + [0] * 19), seed=0, ranked=False).leak == 1.0


def test_scores_that_are_all_equal_tell_nothing() -> None:
    test = exchange(np.ones((2, 6)), of([1, 1, 1, 0, 0, 0]), seed=0)
    assert (test.leak, test.strange, list(test.z)) == (1.0, 1.0, [0.0, 0.0])


def test_an_attack_that_peeks_breaks_it() -> None:
    rng, alarms = np.random.default_rng(5), 0
    for seed in range(20):
        forget = rng.permutation([True] * 10 + [False] * 10)
        peeking = rng.normal(size=(1, 20)) + 3 * forget
        alarms += exchange(peeking, Labels(forget, np.zeros(20, int)), seed, 499).leak <= 0.04
    assert alarms == 20
