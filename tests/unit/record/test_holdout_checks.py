"""Checks of the holdout, by hand."""

import numpy as np

from unrecall.record.exchange import Labels
from unrecall.record.holdout_checks import blind_test, dilution, placebo


def labels(n: int, m: int) -> Labels:
    return Labels(np.arange(n + m) < n, np.zeros(n + m, int))


def test_blind_counts_both_sides() -> None:
    # one covariate, three against three, perfectly apart: two labellings of twenty are as far apart
    assert blind_test(np.array([[1.0, 2, 3, 11, 12, 13]]), labels(3, 3), seed=0) == 2 / 20


def test_blind_sees_two_covariates_together_that_say_nothing_alone() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=60) * 10
    apart = np.where(np.arange(60) < 30, 1.0, -1.0)
    p = blind_test(np.stack([common + apart, common - apart + rng.normal(size=60) * 0.1]), labels(30, 30), 0)
    assert p is not None
    assert p <= 0.01


def test_blind_is_silent_without_covariates() -> None:
    assert blind_test(np.zeros((0, 6)), labels(3, 3), 0) is None


def test_placebo_finds_nothing_where_the_holdout_is_of_one_kind() -> None:
    scores = np.random.default_rng(2).normal(size=(3, 60))
    p = placebo(scores, labels(20, 40), seed=1)
    assert p is not None
    assert p > 0.01
    assert placebo(scores[:, :9], labels(2, 7), seed=1) is None


def test_dilution_finds_a_quarter_of_what_is_plain_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(1, 400))
    plain = noise + 8 * (np.arange(400) < 100)
    assert dilution(plain, labels(100, 300), 0) == 1.0
    faint = dilution(noise, labels(100, 300), 0)
    assert faint is not None
    assert faint <= 0.25
    assert dilution(noise, labels(200, 100), 0) is None
