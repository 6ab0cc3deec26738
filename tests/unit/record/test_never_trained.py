"""The decision table, row by row, from scores that are made so."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unrecall.record.never_trained import FORMER, as_verdict, judge, not_judged
from unrecall.record.never_trained_lines import SHARES_LEFT
from unrecall.record.pool_scores import PoolScores, Stated
from unrecall.record.schema import NeverTrained

STATED = Stated(control="random split", unchanged=False, seed=7)
N, M = 100, 200


def pool(own: float, original: float, n: int = N, m: int = M, attacks: int = 2, **changes: Any) -> PoolScores:
    """Noise, with forget raised by so much under each model; both models share most of the noise."""
    rng = np.random.default_rng(1)
    forget = np.arange(n + m) < n
    noise = rng.normal(size=(attacks, n + m))
    scores = PoolScores(
        attacks=("as_it_is", "benign_20", "recalibration")[:attacks],
        unlearned=noise + own * forget,
        original=noise + rng.normal(size=noise.shape) * 0.1 + original * forget,
        forget=forget,
        half=np.zeros(n + m, int),
        stratum=np.zeros(n + m, int),
        group=np.arange(n + m),
        covariates=np.zeros((n + m, 0)),
        kinds=(),
        correct={"retain": np.ones((2, 500)), "test": np.ones((2, 500))},
    )
    return replace(scores, **changes)


def verdict_on(scores: PoolScores, stated: Stated = STATED) -> NeverTrained:
    return judge(scores, stated, draws=999)


def test_leaks_names_the_attack_its_p_and_the_share_left() -> None:
    out = verdict_on(pool(1.0, 1.5))
    assert out.label == "leaks"
    assert out.leak is not None
    assert out.leak <= 0.04
    assert "p = 0.001" in out.line
    assert "Of what the original shows of them" in out.line
    assert "at most 4 of 100" in out.line


def test_stands_out_is_the_other_side() -> None:
    out = verdict_on(pool(-1.0, 1.5))
    assert out.label == "stands out"
    assert out.strange is not None
    assert out.strange <= 0.01


def test_nothing_is_found_and_the_originals_memory_was_plain() -> None:
    out = verdict_on(pool(0.0, 3.0))
    assert all(test.z_original > 9.9 for test in out.attacks)
    assert out.label == "no more than 25 %"
    assert "no proof" in out.line
    assert as_verdict(out).basis == "never trained"


def test_a_weaker_memory_allows_half() -> None:
    assert verdict_on(pool(0.0, 0.9)).label == "no more than 50 %"


def test_a_weak_memory_is_inconclusive_and_says_how_many_records_would_do() -> None:
    out = verdict_on(pool(0.0, 0.4))
    assert out.label == "inconclusive"
    assert out.needed is not None
    assert out.needed > N
    assert f"about {out.needed:,} records" in out.line


def test_without_a_trace_in_the_original_nothing_can_be_told() -> None:
    assert verdict_on(pool(0.0, 0.0)).label == "can't be told"


def test_few_records_leak_but_are_never_gone() -> None:
    assert verdict_on(pool(2.0, 3.0, n=10)).label == "leaks"
    out = verdict_on(pool(0.0, 3.0, n=10))
    assert out.label == "inconclusive"
    assert "fewer than 50" in out.line


@pytest.mark.parametrize(("lost", "n", "excluded"), [(0, 80, True), (1, 80, False), (2, 100, False), (2, 200, True)])
def test_a_loss_of_five_points_is_excluded_where_the_exact_bound_excludes_it(lost: int, n: int, excluded: bool) -> None:
    correct = np.ones((2, n))
    correct[0, :lost] = 0
    out = verdict_on(pool(0.0, 3.0, correct={"test": correct}))
    assert ("a loss of 5% of accuracy on test can't be excluded" in out.line) is not excluded
    assert (out.label == "no more than 25 %") is excluded


def test_the_rule_before_has_its_own_interval_of_what_was_lost() -> None:
    correct = np.ones((2, 100))
    correct[0, :2] = 0
    scores = pool(0.0, 3.0, correct={"test": correct})
    before = judge(scores, STATED, 999, FORMER)
    assert before.label == "no more than 25 %"
    assert before.damage[0].difference.low == pytest.approx(-0.0481, abs=1e-4)
    assert as_verdict(before, FORMER).rule == "exchange-3"
    assert as_verdict(before, "older").rule == "exchange-4"
    none = judge(pool(0.0, 3.0), STATED, 999, FORMER).damage[0].difference
    assert none.low == pytest.approx(-(1 - 0.025 ** (1 / 500)))


def test_damage_comes_after_leaks_and_before_all_else() -> None:
    worse = {"test": np.stack([np.arange(500) >= 100, np.ones(500)]).astype(float)}
    assert verdict_on(pool(0.0, 3.0, correct=worse)).label == "damaged"
    assert verdict_on(pool(1.0, 3.0, correct=worse)).label == "leaks"


def test_what_small_sets_can_hide_is_not_called_gone() -> None:
    few = {"test": np.ones((2, 20))}
    out = verdict_on(pool(0.0, 3.0, correct=few))
    assert out.label == "inconclusive"
    assert "can't be excluded" in out.line


def test_an_attack_that_broke_the_model_forbids_to_say_that_anything_is_gone() -> None:
    def after(loss: float) -> NeverTrained:
        losses = {"as_it_is": 0.5, "benign_20": loss}
        attacks = {name: ("Fine-tuning on retain, 20 steps", {}, {"retain": value}) for name, value in losses.items()}
        return verdict_on(pool(0.0, 3.0), replace(STATED, attacks=attacks))

    assert after(6.0).label == "no more than 25 %"  # 10 x 0.5 + 1
    out = after(6.1)
    assert out.label == "inconclusive"
    assert "fine-tuning on retain, 20 steps, broke the model, so it could find nothing: lower --rate" in out.line


@pytest.mark.parametrize(
    ("steps", "label"), [([20], "no more than 25 %"), ([0], "inconclusive"), ([1, 0], "inconclusive")]
)
def test_an_attack_that_changed_nothing_forbids_it_as_well(steps: list[int], label: str) -> None:
    titles = {"as_it_is": ("As it is", {}, {}), "benign_20": ("Fine-tuning on retain, 20 steps", {}, {})}
    out = verdict_on(pool(0.0, 3.0), replace(STATED, attacks=titles, steps={"benign_20": steps}))
    assert out.label == label
    assert ("fine-tuning on retain, 20 steps, diverged or moved no weight" in out.line) == (0 in steps)


def test_records_of_before_say_the_steps_of_relearning_alone_and_keep_their_label() -> None:
    titles = {"as_it_is": ("As it is", {}, {}), "symmetric": ("Teaching it", {}, {})}
    assert verdict_on(pool(0.0, 3.0), replace(STATED, attacks=titles, steps={"symmetric": [0]})).label in SHARES_LEFT


@pytest.mark.parametrize("own", [-3.0, 0.0, 3.0])
def test_an_original_that_knows_the_holdout_better_judges_nothing(own: float) -> None:
    out = verdict_on(pool(own, -3.0))
    assert out.label == "not judged"
    z = out.attacks[0].z_original
    assert z <= -5
    assert out.line == (
        "Not judged: the original itself knows the records that it was never trained on better than the forgotten ones "
        f"(z = {z:.1f}): forget and holdout may be swapped, or the holdout was trained on."
    )
    assert verdict_on(pool(-3.0, -0.2)).label == "stands out"
    assert verdict_on(pool(own, -3.0), replace(STATED, unchanged=True)).label == "unchanged"


def test_unchanged_weights_need_no_statistic() -> None:
    assert verdict_on(pool(0.0, 0.0), replace(STATED, unchanged=True)).label == "unchanged"


def test_a_holdout_that_differs_takes_the_grade_and_the_claim() -> None:
    apart = np.where(np.arange(N + M) < N, 1.0, 0.0) + np.random.default_rng(0).normal(size=N + M)
    out = verdict_on(pool(0.0, 3.0, covariates=apart[:, None], kinds=("cheap",)))
    assert out.blind is not None
    assert out.blind <= 0.05
    assert out.grade == "C"
    assert out.label != "no more than 25 %"


GRADES = [("planted", "A"), ("random split", "B"), ("matched", "C"), ("synthetic", "D")]


@pytest.mark.parametrize(("control", "grade"), GRADES)
def test_grades(control: str, grade: str) -> None:
    assert verdict_on(pool(0.0, 3.0), replace(STATED, control=control)).grade == grade
    assert not_judged("there is none").grade == "E"


def persons(count: int, own: float, seed: int = 0) -> PoolScores:
    """One person of six records against `count` others."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(count + 1), 6)
    scores = rng.normal(size=(2, len(group)))
    scores[:, :6] += own
    return replace(
        pool(0, 0),
        unlearned=scores,
        original=scores + (group == 0) * (2.0 - own),
        forget=group == 0,
        half=0 * group,
        stratum=0 * group,
        group=group,
        covariates=np.zeros((len(group), 0)),
    )


def test_one_person_against_nineteen() -> None:
    out = verdict_on(persons(19, 3.0))
    assert (out.unit, out.forget, out.holdout) == ("group", 1, 19)
    assert (out.leak, out.level, out.strange_level) == (0.05, 0.05, 0.0)
    assert out.label == "leaks"
    assert "person's records" in out.line
    assert verdict_on(persons(19, -3.0)).label == "inconclusive"


def test_one_person_against_too_few_says_so() -> None:
    out = verdict_on(persons(10, 3.0))
    assert out.label == "inconclusive"
    assert "too few" in out.line


def test_a_person_is_a_leak_once_in_twenty_at_most() -> None:
    alarms = sum(verdict_on(persons(19, 0.0, seed)).label == "leaks" for seed in range(200))
    assert alarms <= 20  # 5 % of 200 are 10; more than 20 has probability .002


def test_a_model_that_never_saw_forget_fails_five_times_in_a_hundred_at_most() -> None:
    fails = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(3, 60)) + rng.normal(size=60)
        fails += verdict_on(replace(pool(0, 2, 20, 40, 3), unlearned=scores)).label in ("leaks", "stands out")
    assert fails <= 20


def test_arrays_come_back_as_they_went() -> None:
    scores = pool(0.3, 1.0, covariates=np.random.default_rng(0).normal(size=(N + M, 2)), kinds=("cheap", "cheap"))
    again = PoolScores.from_arrays(scores.arrays(), scores.attacks, scores.kinds)
    assert judge(again, STATED, 499) == judge(scores, STATED, 499)


def crowd(own: int, others: int, count: int, seed: int) -> PoolScores:
    """One person of `own` records among `count` of `others`, of whom the model saw none."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.zeros(own, int), 1 + np.repeat(np.arange(count), others)])
    scores, zero = rng.normal(size=(2, len(group))), np.zeros(len(group), int)
    return replace(
        pool(0, 0), unlearned=scores, original=scores, forget=group == 0, half=zero, stratum=zero, group=group,
        covariates=np.zeros((len(group), 0)),
    )  # fmt: skip


@pytest.mark.parametrize(("own", "others"), [(30, 3), (3, 30), (6, 6)])
def test_a_person_with_more_records_than_others_is_no_surer_a_leak(own: int, others: int) -> None:
    even = crowd(own, others, 24, 0).even()
    assert set(np.bincount(even.group)) == {min(own, others)}
    alarms = sum(verdict_on(crowd(own, others, 24, seed)).label == "leaks" for seed in range(100))
    assert alarms <= 12  # 5 % of 100 are 5; more than 12 has probability .001


def test_planted_wordings_change_places_within_pairs() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    for seed in range(100):
        coins = rng.random(30) < 0.5
        apart = np.where(rng.random(30) < 0.5, 2.0, -2.0)  # one wording is likelier than the other
        forget = np.concatenate([np.ones(30, bool), np.zeros(30, bool)])
        scores = np.concatenate([np.where(coins, apart, -apart), np.where(coins, -apart, apart)])
        noisy = scores + rng.normal(size=(2, 60)) * 0.3
        stratum = np.tile(np.arange(30), 2)
        made = replace(pool(0, 0, n=30, m=30), unlearned=noisy, original=noisy, forget=forget, stratum=stratum)
        alarms += verdict_on(made, replace(STATED, control="planted", seed=seed)).label in ("leaks", "stands out")
    assert alarms <= 12


def test_figures_without_bounds_where_few_records_go() -> None:
    out = verdict_on(pool(2.0, 3.0, n=9))
    assert all(test.rho_low is None and test.bound is None for test in out.attacks)
    assert out.recognised is None


@pytest.mark.parametrize("others", [19, 98, 99])
def test_one_person_among_few_is_judged_by_the_longest_fine_tuning_alone(others: int) -> None:
    size = 2 * (others + 1)
    group, rng = np.repeat(np.arange(others + 1), 2), np.random.default_rng(0)
    shown = rng.normal(size=(3, size)) / 4
    shown[1, group == 0] += 20  # the forgotten person, after fine-tuning
    shown[0, group == 1] += 1000  # somebody else, as the model is
    shown[0, group == 2] -= 1000
    grouped = {"group": group, "forget": group == 0, "half": np.zeros(size, int), "stratum": np.zeros(size, int)}
    base = pool(0.0, 0.0, 2, size - 2, attacks=3)
    scores = replace(base, unlearned=shown, original=shown, covariates=np.zeros((size, 0)), **grouped)
    out = verdict_on(scores)
    assert [test.p is None for test in out.attacks] == [others < 99, False, others < 99]
    assert out.leak == pytest.approx(1 / (others + 1) if others < 99 else out.leak)
    assert out.attacks[1].p == pytest.approx(1 / (others + 1))
    if others < 99:
        assert out.label == "leaks"
        assert "over" not in out.line, "one attack decides"
        assert as_verdict(out).judged == 1
