"""Statistics against scipy, scikit-learn, brute force and simulation."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score, roc_curve

from unrecall.record import stats


def scores(seed: int, m: int = 40, n: int = 60, shift: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Rounded, so that ties occur within and between the groups."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, m).round(1), rng.normal(0, 1, n).round(1)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 20), (50, 100)])
def test_clopper_pearson_is_the_beta_quantiles(k: int, n: int) -> None:
    low, high = stats.clopper_pearson(k, n)
    assert low == pytest.approx(0 if k == 0 else scipy_stats.beta.ppf(0.025, k, n - k + 1))
    assert high == pytest.approx(1 if k == n else scipy_stats.beta.ppf(0.975, k + 1, n - k))


def test_student_is_scipys() -> None:
    values = np.array([0.1, 0.4, 0.45, 0.9, 1.3])
    expected = scipy_stats.t.interval(0.95, 4, values.mean(), scipy_stats.sem(values))
    assert stats.student(values) == pytest.approx(expected)


def test_mean_chooses_the_exact_interval_for_shares() -> None:
    share = stats.mean(np.array([1.0, 0.0, 1.0, 1.0]))
    assert (share.value, share.n) == (0.75, 4)
    assert (share.low, share.high) == pytest.approx(stats.clopper_pearson(3, 4))
    other = stats.mean(np.array([0.5, -0.5, 1.5]))
    assert (other.low, other.high) == pytest.approx(stats.student(np.array([0.5, -0.5, 1.5])))
    for alike in (np.array([0.9]), np.full(7, 0.9)):
        assert stats.mean(alike) == stats.Estimate(value=0.9, n=len(alike), note=stats.ALIKE)
    nothing = stats.mean(np.array([]))
    assert nothing.value is None
    assert nothing.note == "no examples"


def test_the_interval_of_a_share_stays_within_0_and_1_and_is_exact_near_them() -> None:
    values = np.array([1.0] * 9 + [0.9])
    assert stats.student(values)[1] > 1
    share = stats.mean(values, share=True)
    assert (share.value, share.low, share.high) == pytest.approx((0.99, *stats.clopper_pearson(9.9, 10)))
    assert stats.mean(1 - values, share=True).low == pytest.approx(1 - share.high)  # type: ignore[operator]
    assert stats.mean(np.array([1.0, 0.0]), share=True) == stats.mean(np.array([1.0, 0.0]))
    middle = np.array([0.3, 0.4, 0.5, 0.6, 0.7] * 4)
    size = 0.25 / (0.0210526 / 20) * (1.959964 / scipy_stats.t.ppf(0.975, 19)) ** 2
    found = stats.mean(middle, share=True)
    assert (found.low, found.high) == pytest.approx(stats.clopper_pearson(size / 2, size), abs=1e-5)


def test_a_mean_that_a_few_examples_decide_has_no_interval() -> None:
    skewed = stats.mean(np.array([0.1] * 20 + [50.0]))
    assert (skewed.low, skewed.high, skewed.note) == (None, None, stats.SKEWED)
    assert skewed.value == pytest.approx(52 / 21)


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_order(seed: int) -> None:
    members, others = scores(seed)
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in members for y in others]
    found = stats.auc(members, others)
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.value == pytest.approx(roc_auc_score(truth, np.r_[members, others]))
    fpr, tpr = stats.roc(members, others)
    assert found.value == pytest.approx(np.trapezoid(tpr, fpr))


def test_auc_interval_has_delongs_variance_by_brute_force() -> None:
    members, others = scores(3)
    order = (members[:, None] > others[None, :]) + 0.5 * (members[:, None] == others[None, :])
    first, second = order.mean(1).var(ddof=1) / len(members), order.mean(0).var(ddof=1) / len(others)
    freedom = (first + second) ** 2 / (first**2 / (len(members) - 1) + second**2 / (len(others) - 1))
    area = order.mean()
    size = area * (1 - area) / (first + second) * (1.959964 / scipy_stats.t.ppf(0.975, freedom)) ** 2
    found = stats.auc(members, others)
    assert (found.low, found.high) == pytest.approx(stats.clopper_pearson(area * size, size), abs=1e-5)


def test_auc_interval_widens_with_the_variance() -> None:
    members, others = scores(3)
    plain, wide = stats.auc(members, others), stats.auc(members, others, inflation=4)
    assert plain.high is not None and plain.low is not None
    assert wide.high is not None and wide.low is not None
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(2, rel=0.1)


RUNS = 400
LEAST = 0.95 - 3 * np.sqrt(0.95 * 0.05 / RUNS)
"""What is least covered in so many runs by an interval that covers 95 %, with a margin of three standard errors."""


def covered(truth: float, draw: Callable[[np.random.Generator], stats.Estimate]) -> float:
    """How often the interval, where there is one, holds the truth, over seeded runs."""
    rng = np.random.default_rng(0)
    intervals = [(e.low, e.high) for e in (draw(rng) for _ in range(RUNS)) if e.low is not None and e.high is not None]
    assert len(intervals) > 0.9 * RUNS
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in intervals]))


@pytest.mark.parametrize("area", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("m", "n"), [(10, 10), (30, 30), (100, 100), (10, 300), (300, 10)])
def test_auc_interval_covers(area: float, m: int, n: int) -> None:
    shift = np.sqrt(2) * scipy_stats.norm.ppf(area)
    assert covered(area, lambda rng: stats.auc(rng.normal(shift, 1, m), rng.normal(0, 1, n))) >= LEAST


@pytest.mark.parametrize("mean", [0.02, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("spread", [0.5, 2, 20])
@pytest.mark.parametrize("n", [10, 30, 100])
def test_the_interval_of_a_mean_of_shares_covers(mean: float, spread: float, n: int) -> None:
    a, b = mean * spread, (1 - mean) * spread
    assert covered(mean, lambda rng: stats.mean(rng.beta(a, b, n), share=True)) >= LEAST


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize(("m", "n"), [(10, 99), (10, 1000), (30, 99), (100, 300), (1000, 1000)])
def test_the_interval_of_a_true_positive_rate_covers(shift: float, m: int, n: int) -> None:
    truth = 1 - float(scipy_stats.norm.cdf(scipy_stats.norm.ppf(0.99) - shift))
    assert covered(truth, lambda rng: stats.tpr_at_fpr(rng.normal(shift, 1, m), rng.normal(0, 1, n))) >= LEAST


@pytest.mark.parametrize("log_spread", [0.5, 1, 2])
@pytest.mark.parametrize("n", [10, 30, 100])
def test_a_skewed_mean_has_an_interval_that_covers_or_none(log_spread: float, n: int) -> None:
    """Of the intervals that are given, where they are given at all (in a fifth of all samples)."""
    rng, truth, given, missed = np.random.default_rng(0), np.exp(log_spread**2 / 2), 0, 0
    for _ in range(RUNS):
        estimate = stats.mean(rng.lognormal(0, log_spread, n))
        if estimate.low is not None and estimate.high is not None:
            given += 1
            missed += not estimate.low <= truth <= estimate.high
    assert given < RUNS / 5 or missed / given <= 0.07 + 3 * np.sqrt(0.05 * 0.95 / given)
    assert missed / RUNS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("n", [10, 30, 100])
def test_a_ratio_of_sums_seldom_has_an_interval_that_misses(share: float, n: int) -> None:
    rng, given, missed = np.random.default_rng(0), 0, 0
    for _ in range(RUNS):
        below = rng.beta(1, 2, n) * (rng.random(n) < share)
        estimate = stats.ratio(rng.binomial(100, below) / 100, below)
        if estimate.low is not None and estimate.high is not None:
            given += 1
            missed += not estimate.low <= 1 <= estimate.high
    assert given < RUNS / 5 or missed / given <= 0.07 + 3 * np.sqrt(0.05 * 0.95 / given)


@pytest.mark.parametrize("upside_down", [False, True])
def test_perfect_separation_is_still_uncertain(upside_down: bool) -> None:
    high, low = np.arange(10, 16), np.arange(8)
    found = stats.auc(low, high) if upside_down else stats.auc(high, low)
    edge = 0.025 ** (1 / 6)
    assert found.value == (0.0 if upside_down else 1.0)
    assert (found.low, found.high) == pytest.approx((0.0, 1 - edge) if upside_down else (edge, 1.0))


def test_auc_of_equal_scores_and_of_nothing() -> None:
    tied = stats.auc(np.zeros(5), np.zeros(7))
    assert (tied.value, tied.low, tied.high, tied.note) == (0.5, 0.0, 1.0, "all scores are equal")
    assert stats.auc(np.zeros(0), np.zeros(7)).value is None
    lonely = stats.auc(np.array([0.5]), np.array([0.0, 1.0]))
    assert (lonely.value, lonely.low, lonely.high) == (0.5, 0.0, 1.0)


def test_roc_is_scikit_learns() -> None:
    members, others = scores(1)
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    fpr, tpr, _ = roc_curve(truth, np.r_[members, others], drop_intermediate=False)
    found = stats.roc(members, others)
    assert np.array_equal(found.fpr, fpr)
    assert np.array_equal(found.tpr, tpr)


@pytest.mark.parametrize(("fpr", "accused"), [(0.01, None), (0.02, 0), (0.1, 5), (0.5, 29)])
def test_tpr_at_fpr_is_the_share_above_an_order_statistic(fpr: float, accused: int | None) -> None:
    members, others = scores(2)
    found = stats.tpr_at_fpr(members, others, fpr)
    if accused is None:
        assert found.value is found.low is None
        assert found.note == "60 others can't resolve a false-positive rate of 0.01: at least 99 are needed"
        return
    assert found.value == float(np.mean(members > sorted(others)[::-1][accused]))
    assert found.low is not None and found.high is not None
    exact = stats.clopper_pearson(round(found.value * 40), 40)
    assert found.low <= exact[0] <= exact[1] <= found.high, "the threshold's own error widens it"


def test_tpr_at_fpr_by_hand() -> None:
    """Of 99 others one may be above: k = 0.01 x 100 = 1; the 1 % quantile lies among the three largest."""
    others, members = np.arange(99.0), np.array([98.5, 97.5, 10.0, 96.5])
    found = stats.tpr_at_fpr(members, others)
    assert found.value == 0.25
    assert found.low == 0.0
    assert found.high == pytest.approx(0.25 + np.hypot(0.75 - 0.25, stats.clopper_pearson(1, 4)[1] - 0.25))


def test_tpr_at_fpr_of_nothing() -> None:
    assert stats.tpr_at_fpr(np.zeros(0), np.zeros(3)).value is None
    assert stats.tpr_at_fpr(np.zeros(3), np.zeros(0)).value is None


def test_prediction_interval_by_hand() -> None:
    found = stats.prediction_interval([0.1, 0.2, 0.3])
    half = 4.302653 * 0.1 * np.sqrt(4 / 3)
    assert found == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    assert stats.prediction_interval([0.2]) is None
    equal = stats.prediction_interval([0.2, 0.2], floor=0.01)
    assert equal == pytest.approx((0.2 - 12.7062 * 0.01 * np.sqrt(1.5), 0.2 + 12.7062 * 0.01 * np.sqrt(1.5)), abs=1e-5)


def test_prediction_interval_covers_one_more() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        found = stats.prediction_interval(rng.normal(0, 1, 3).tolist())
        assert found is not None
        inside += found[0] <= rng.normal() <= found[1]
    assert 0.935 <= inside / 2000 <= 0.965


def test_jackknife_of_a_pair_mean_is_leaving_one_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 4))
    gram = values @ values.T
    np.fill_diagonal(gram, 0)
    found = stats.jackknife(gram.sum(1), np.full(9, 8.0))
    assert found.value == pytest.approx(gram.sum() / 72)
    without = []
    for i in range(9):
        kept = np.delete(np.delete(gram, i, 0), i, 1)
        without.append(kept.sum() / 56)
    error = np.sqrt(8 / 9 * np.square(np.array(without) - np.mean(without)).sum())
    half = scipy_stats.t.ppf(0.975, 8) * error
    assert (found.low, found.high) == (pytest.approx(found.value - half), pytest.approx(found.value + half))


def test_ratio_of_sums_against_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    below = rng.integers(1, 100, 400).astype(float)
    above = 0.7 * below + rng.normal(scale=10, size=400)
    found = stats.ratio(above, below)
    picks = rng.integers(0, 400, (2000, 400))
    spread = np.std(above[picks].sum(1) / below[picks].sum(1))
    assert found.value == pytest.approx(above.sum() / below.sum())
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.1)
    assert stats.ratio(above, np.zeros(400)).value is None
    assert stats.ratio(np.zeros(400), np.ones(400)) == stats.Estimate(value=0.0, n=400, note=stats.ALIKE)
    assert stats.ratio(below, below) == stats.Estimate(value=1.0, n=400, note=stats.ALIKE)
    assert stats.ratio(np.array([3.0]), np.array([2.0])) == stats.Estimate(value=1.5, n=1, note=stats.ALIKE)
    few = stats.ratio(np.r_[above[:29], np.zeros(371)], np.r_[below[:29], np.zeros(371)])
    assert (few.low, few.note) == (None, stats.SKEWED)


def test_variance_components_by_hand() -> None:
    """Two originals, two unlearnings each, evaluated twice: MS_E = .02, MS_U = .04, MS_T = .72."""
    values = np.array([[[0.1, 0.3], [0.3, 0.5]], [[0.7, 0.9], [0.9, 1.1]]])
    training, unlearning, evaluation = stats.variance_components(values)
    assert evaluation == pytest.approx(0.02**0.5)
    assert unlearning == pytest.approx(((0.04 - 0.02) / 2) ** 0.5)
    assert training == pytest.approx(((0.72 - 0.04) / 4) ** 0.5)


def test_a_level_of_one_seed_counts_to_the_level_above() -> None:
    assert stats.variance_components(np.array([[[0.2]], [[0.4]]])) == (pytest.approx(0.02**0.5), None, None)
    assert stats.variance_components(np.array([[[0.2], [0.4]]])) == (None, pytest.approx(0.02**0.5), None)
    assert stats.variance_components(np.array([[[0.5]]])) == (None, None, None)


def test_less_variance_than_nothing_is_nothing() -> None:
    """Means of the unlearnings agree, and evaluations don't: (0 - .02) / 2 is below nothing."""
    assert stats.variance_components(np.array([[[0.2, 0.4], [0.4, 0.2]]])) == (None, 0.0, pytest.approx(0.02**0.5))


def changes(lost: int, gained: int, n: int) -> np.ndarray:
    """What became of n examples, some of which were lost and some gained."""
    return np.r_[np.full(lost, -1.0), np.ones(gained), np.zeros(n - lost - gained)]


@pytest.mark.parametrize(("lost", "n"), [(0, 80), (1, 80), (2, 100), (6, 300)])
def test_what_was_lost_alone_has_the_exact_bound(lost: int, n: int) -> None:
    found = stats.difference(changes(lost, 0, n))
    assert found.value == pytest.approx(-lost / n)
    assert found.low == pytest.approx(-scipy_stats.beta.ppf(0.975, lost + 1, n - lost))
    mirrored = stats.difference(changes(0, lost, n))
    assert (mirrored.low, mirrored.high) == (pytest.approx(-(found.high or 0)), pytest.approx(-(found.low or 0)))


@pytest.mark.parametrize(("n", "lost", "gained"), [
    (8, 0.97, 0.03), (20, 0.05, 0.7), (80, 0.05, 0.0), (100, 0.05, 0.0), (200, 0.05, 0.0), (100, 0.1, 0.05),
    (300, 0.05, 0.02), (150, 0.4, 0.005), (100, 0.3, 0.7),
])  # fmt: skip
def test_a_difference_lies_beyond_either_end_in_at_most_one_of_forty(n: int, lost: float, gained: float) -> None:
    counts = np.random.default_rng(0).multinomial(n, [lost, gained, max(0.0, 1 - lost - gained)], size=2_000)
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    ends = [stats.difference(changes(int(a), int(b), n)) for a, b, _ in kinds]
    true = gained - lost
    below = sum(k for e, k in zip(ends, times, strict=True) if e.high is not None and e.high < true - 1e-9)
    above = sum(k for e, k in zip(ends, times, strict=True) if e.low is not None and e.low > true + 1e-9)
    most = 2_000 * 0.025 + 3.1 * np.sqrt(2_000 * 0.025 * 0.975)
    assert below <= most
    assert above <= most


def test_a_difference_of_parts_of_examples_covers_too() -> None:
    rng, true = np.random.default_rng(0), 0.3 / 3 - 0.4 / 3
    missed = 0
    for _ in range(500):
        kind, size = rng.random(60), rng.beta(1, 2, 60)
        found = stats.difference(np.where(kind < 0.3, size, np.where(kind < 0.7, -size, 0.0)))
        missed += not (found.low is not None and found.high is not None and found.low <= true <= found.high)
    assert missed <= 500 * 0.05 + 3.1 * np.sqrt(500 * 0.05 * 0.95)
    alike = stats.difference(np.full(9, 0.3))
    assert (alike.value, alike.low, alike.note) == (pytest.approx(0.3), None, stats.ALIKE)
    assert stats.difference(np.empty(0)).value is None
