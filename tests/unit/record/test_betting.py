"""Bets by hand, and their false alarms by simulation."""

import math

import numpy as np
import pytest

from unrecall.errors import BadInput
from unrecall.record.betting import MOST, bet, bet_on_scores, random_gaps, rank_bet, seed_of, wealth


def test_wealth_by_hand() -> None:
    """Stakes 0, 1/2, 2/3: 1, then 1 x 1.5, then 1.5 x (1 - 2/3)."""
    assert wealth([1, 1, -1]) == pytest.approx([1, 1.5, 0.5])
    assert wealth([1, 0, 1]) == pytest.approx([1, 1, 1 + 1 / 3])  # a tie moves no money, but counts
    assert wealth([-1, -1, -1]) == pytest.approx([1, 1.5, 2.5])  # both sides are bet on


def test_wealth_takes_signs_alone() -> None:
    with pytest.raises(BadInput, match="expected signs that are -1, 0 or 1"):
        wealth([0.5])


def test_wealth_is_one_on_average_over_all_signs() -> None:
    """The e-value's property, exactly: the mean over the 2^5 equally likely sequences is 1."""
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    assert wealth(signs)[:, -1].mean() == pytest.approx(1)


def test_pairs_are_as_many_as_the_smaller_arm_and_ties_are_none() -> None:
    generator = np.random.default_rng(0)
    assert sorted(random_gaps([3, 3, 3], [1, 2, 0], generator)) == [1, 2, 3]
    assert random_gaps([1, 1, 1], [1], generator).tolist() == [0]
    assert random_gaps([0], [1, 1], generator).tolist() == [-1]


def test_all_wins_give_the_product_by_hand_in_any_order() -> None:
    bets = bet_on_scores([5, 6, 7, 8], [1, 2, 3, 4], seed=3)
    assert bets.wealth == pytest.approx([1, 1.5, 1.5 * 5 / 3, 1.5 * 5 / 3 * 7 / 4])
    assert bets.e_value == pytest.approx(4.375)


def test_pairs_made_by_coins_are_bet_on_as_they_are() -> None:
    """Orders of +, +, -: wealth 0.5, 1 x 0.5 x (1 + 0/3) = 0.5, 1 x 0.5 x 1 = 0.5."""
    assert bet([0.2, 3.0, -1.0], seed=0).e_value == pytest.approx(0.5)
    with pytest.raises(BadInput, match="at least one pair, got none"):
        bet([], seed=0)


def test_halves_stay_apart() -> None:
    """Half 1 scores higher by 100 in both arms: within halves forget always loses, across them it would win some."""
    bets = bet_on_scores([0, 100], [1, 101], 0, ([0, 1], [0, 1]))
    assert bets.wealth == pytest.approx([1, 1.5])
    with pytest.raises(BadInput, match="expected halves to name one for each score"):
        bet_on_scores([0, 100], [1, 101], 0, ([0], [0, 1]))


def test_each_half_is_paired_within_itself_in_its_order() -> None:
    """As by masks; a half without holdout pairs nothing."""
    rng = np.random.default_rng(5)
    arms, of = rng.normal(size=(2, 30)), rng.integers(0, 9, (2, 30))
    of[1][of[1] == 3] = 4
    generator, gaps = np.random.default_rng(1), []
    for which in np.unique(of[0]):
        own, other = (generator.permutation(arm[half == which]) for arm, half in zip(arms, of, strict=True))
        count = min(len(own), len(other))
        gaps.append(own[:count] - other[:count])
    expected = generator.permutation(np.concatenate(gaps))
    assert random_gaps(*arms, np.random.default_rng(1), (of[0], of[1])).tolist() == expected.tolist()


def test_a_single_record_is_ranked() -> None:
    """Among 3 others, ranks pay 1, .707, .577, .5 over their mean, .696."""
    mean = (1 + 1 / math.sqrt(2) + 1 / math.sqrt(3) + 0.5) / 4
    assert rank_bet(9, [1, 2, 3]).e_value == pytest.approx(1 / mean)
    assert rank_bet(0, [1, 2, 3]).e_value == pytest.approx(0.5 / mean)
    assert rank_bet(3, [1, 2, 3]).e_value == pytest.approx(1 / math.sqrt(2) / mean)  # a tie counts against it
    assert bet_on_scores([9], [1, 2, 3], seed=0).e_value == pytest.approx(1 / mean)
    assert sum(rank_bet(k + 0.5, [1, 2, 3]).e_value for k in range(4)) == pytest.approx(4)


def test_no_e_value_is_beyond_all_bounds() -> None:
    assert bet([1.0] * 2000, seed=0).e_value == pytest.approx(MOST)


def test_scores_that_are_none_are_refused() -> None:
    for forget, holdout in (([math.nan, 1.0], [1.0]), ([1.0], []), ([], [1.0])):
        with pytest.raises(BadInput, match=r"^bet: expected"):
            bet_on_scores(forget, holdout, seed=0)


def test_a_seed_hangs_on_every_part() -> None:
    assert seed_of("a", "b") == seed_of("a", "b") != seed_of("ab") != seed_of("b", "a")


def test_retrained_models_are_found_in_at_most_one_of_twenty() -> None:
    """2,000 requests whose arms are alike; what remembers half a standard deviation is found."""
    generator = np.random.default_rng(1)
    alike = [bet_on_scores(*generator.normal(size=(2, 60)), seed, orders=10).e_value for seed in range(2000)]
    assert np.mean(np.array(alike) >= 20) <= 0.05
    assert np.mean(alike) <= 1.15
    leaking = [bet_on_scores(generator.normal(1, 1, 60), generator.normal(size=60), s).e_value for s in range(50)]
    assert np.mean(np.array(leaking) >= 20) >= 0.9
