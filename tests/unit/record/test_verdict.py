"""The rule does what docs/verdict.md promises: a retrained model fails at most one time in twenty."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from unrecall.metrics.gap import average_gap
from unrecall.record import former
from unrecall.record.schema import AttackReport, Estimate, Label, Measurement, Side, ThreatModel
from unrecall.record.verdict import ALPHA, FORMER, RULE, SHARE, SKEW, WITHOUT_CONTROLS, Reason, judge, smallest_share
from unrecall.scenarios.paper_tables import CIFAR10, SMALL_CIFAR5

GAP = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_failure")


def row(
    value: float | None,
    references: list[float],
    leak: Side | None = "above",
    margin: float = 0.1,
    n: int = 100,
    name: str = "a",
    judged: bool = True,
    original: float | None = None,
    group: str = "g",
) -> Measurement:
    """A row whose original lies far off on the side where the forgotten shows, unless one is given."""
    none, far = Estimate(value=None), {"above": 9.0, "below": -9.0, None: 1.0}[leak]
    return Measurement(
        name=name, title=name.upper(), group=group, unlearned=Estimate(value=value, n=n), null=none,
        original=Estimate(value=far if original is None else original, n=n),
        references=[Estimate(value=r, n=n) for r in references], leak=leak, margin=margin, judged=judged,
    )  # fmt: skip


TIGHT = [0.50, 0.51, 0.49, 0.50, 0.50]


@pytest.mark.parametrize(
    ("value", "leak", "expected"),
    [
        (0.50, "above", "like retrained"), (0.90, "above", "leaks"), (0.10, "above", "over-forgets"),
        (0.90, "below", "over-forgets"), (0.10, "below", "leaks"),
        (0.90, None, "like retrained"), (0.10, None, "over-forgets"), (0.50, None, "like retrained"),
    ],
)  # fmt: skip
def test_labels_on_both_sides(value: float, leak: Side | None, expected: Label) -> None:
    (found,), verdict = judge([row(value, TIGHT, leak)])
    assert found.verdict == expected == verdict.label
    assert verdict.counts == {label: int(label == expected) for label in verdict.counts}
    assert verdict.line.lower().startswith(expected)
    assert (verdict.alpha, verdict.judged) == (ALPHA, 1)


def retained(name: str, value: float, reference: float, original: float = 1.0) -> Measurement:
    """A row of use, and what the original shows of it."""
    made = row(value, [reference] * 5, leak=None, name=name)
    return made.model_copy(update={"original": Estimate(value=original, n=100), "reference": reference})


def test_a_ruined_model_is_not_like_models_that_never_learned() -> None:
    rows = [retained("retain_accuracy", 0.41, 0.41), retained("test_accuracy", 0.4, 0.4), row(0.5, TIGHT)]
    found, verdict = judge(rows)
    assert [m.verdict for m in found] == ["inconclusive", "inconclusive", "like retrained"]
    assert verdict.label == "inconclusive"
    assert "know too little of retain" in verdict.line
    assert "retrained models know too little of retain" in found[0].note
    assert judge(found) == (found, verdict), "a record judged again is judged alike"
    worse = judge([retained("retain_accuracy", 0.2, 0.41), row(0.9, TIGHT)])
    assert [m.verdict for m in worse[0]] == ["over-forgets", "leaks"], "what is worse than them is worse"


def report(name: str, holds: bool | None) -> AttackReport:
    """An attack's report, with its positive control."""
    threat = ThreatModel(access="", data="", budget="")
    return AttackReport(name=name, title=name, threat=threat, positive_holds=holds)


@pytest.mark.parametrize(("value", "label"), [(0.9, "leaks"), (0.1, "over-forgets"), (0.5, "inconclusive")])
def test_an_attack_whose_control_failed_may_find_something_but_finding_nothing_says_nothing(
    value: float, label: Label
) -> None:
    rows = [row(value, TIGHT, name="relearn_mean"), retained("test_accuracy", 0.9, 0.9)]
    found, verdict = judge(rows, [report("relearn", False)])
    assert (found[0].verdict, found[1].verdict, verdict.label) == (label, "like retrained", label)
    assert (
        (Reason.CONTROL_FAILED in found[0].note) is (Reason.CONTROL_FAILED in verdict.line) is (label == "inconclusive")
    )
    assert "seen 4 times in 5" not in verdict.line
    assert judge(found, [report("relearn", False)]) == (found, verdict)
    for reports in ([report("relearn", True)], [report("relearn", None)], [report("other", False)], []):
        assert judge(rows, reports) == judge(rows)
    if label == "inconclusive":
        assert judge(rows)[1].label == "like retrained"
        assert "seen 4 times in 5" in judge(rows)[1].line


def test_another_attack_of_that_group_can_vouch_where_ones_control_failed() -> None:
    rows = [row(0.5, TIGHT, name=name, group="recovery") for name in ("relearn_mean", "recalibration_mean")]
    found, verdict = judge(rows, [report("relearn", False), report("recalibration", True)])
    assert [m.verdict for m in found] == ["inconclusive", "like retrained"]
    assert verdict.label == "like retrained"
    assert verdict.line.startswith("Like retrained: 1 of 2 judged measurements fall where retrained models do")
    assert f"The others can't tell: {Reason.CONTROL_FAILED} (RELEARN_MEAN)." in verdict.line
    assert verdict.line.endswith("(RECALIBRATION_MEAN).")
    _, apart = judge([rows[0], rows[1].model_copy(update={"group": "privacy"})], [report("relearn", False)])
    assert apart.label == "inconclusive", "nothing else of that group vouches"


def test_a_row_of_privacy_that_finds_the_original_is_its_own_control() -> None:
    rows = [row(0.5, TIGHT, name="loss_left", group="privacy")]
    found, verdict = judge(rows, [report("loss", False)])
    assert (found[0].verdict, verdict.label) == ("like retrained", "like retrained")
    assert (found, verdict) == judge(rows)


def test_a_row_belongs_to_the_attack_with_the_longest_name() -> None:
    rows = [row(0.5, TIGHT, name=name, group="recovery") for name in ("relearn_mean", "relearn_time", "relearned")]
    found, _ = judge(rows, [report("relearn", True), report("relearn_time", False)])
    assert [m.verdict for m in found] == ["like retrained", "inconclusive", "like retrained"]


def test_models_that_retain_nearly_as_much_are_a_measure() -> None:
    found, verdict = judge([retained("retain_accuracy", 0.95, 0.95), retained("test_accuracy", 0.3, 0.3)])
    assert [m.verdict for m in found] == ["like retrained"] * 2
    assert verdict.label == "like retrained"


def test_use_is_kept_where_a_loss_beyond_the_margin_is_ruled_out() -> None:
    """Spreads of 0.01: a value may stand for 0.0234 less, which a margin of 0.02 does not allow."""
    for value, label in ((0.9, "like retrained"), (0.86, "like retrained")):
        (found,), _ = judge([retained("test_accuracy", value, 0.9)])
        assert found.verdict == label
    (found,), verdict = judge([retained("test_accuracy", 0.9, 0.9).model_copy(update={"margin": 0.02})])
    assert found.verdict == "inconclusive"
    assert "a loss worth naming could go unseen (TEST_ACCURACY)" in verdict.line


def test_bounds_by_hand() -> None:
    """K = 3, mean 0.5, s = 0.1: 0.5 +- 2.2 t_2(0.95) 0.1 sqrt(4/3) in one family of any size; t_2(0.975) in two.

    t_2(0.95) = 2.920, t_2(0.975) = 4.303.
    """
    for groups, quantile in ((("g",), 2.91999), (("g", "recovery"), 2.91999), (("g", "privacy"), 4.30265)):
        found, _ = judge([row(0.5, [0.4, 0.5, 0.6], name=group, group=group) for group in groups])
        half = 2.2 * quantile * 0.1 * np.sqrt(4 / 3)
        assert found[0].bound_low == pytest.approx(0.5 - half, abs=1e-4)
        assert found[0].bound_high == pytest.approx(0.5 + half, abs=1e-4)


def test_a_row_with_a_prior_has_its_intervals_spread_among_its_references() -> None:
    """K = 5, errors of 0.2, a prior of 4: s^2 = (4 * 0.04 + 4 s_r^2) / 8, 8 degrees; two-sided; n = 16."""
    values = [0.5 + 0.1 * np.sqrt(5 / 2) * x for x in (-1, 0, 0, 0, 1)]
    made = row(0.5, [], n=16).model_copy(
        update={"prior": 4, "references": [Estimate(value=v, low=v - 0.392, high=v + 0.392, n=16) for v in values]}
    )
    assert np.std(values, ddof=1) == pytest.approx(0.1 * np.sqrt(5) / 2)
    (found,), _ = judge([made])
    spread = np.sqrt((4 * 0.04 + 4 * 0.0125) / 8)
    half = (1 + (SKEW - 1) / 4) * scipy_stats.t.ppf(0.975, 8) * spread * np.sqrt(6 / 5)
    assert (found.bound_low, found.bound_high) == pytest.approx((0.5 - half, 0.5 + half))


def test_no_row_varies_less_than_its_family() -> None:
    """Deviations of 0 and 0.1, over examples alike: the first's is taken for 0.1 / sqrt(2)."""
    spread = [0.5 + 0.1 * np.sqrt(2) * x for x in (-1, 0, 0, 0, 1)]
    rows = [row(0.5, [0.5] * 5), row(0.5, spread, name="b")]
    (first, second), _ = judge(rows)
    half = SKEW * scipy_stats.t.ppf(0.95, 4) * 0.1 * np.sqrt(6 / 5)
    assert second.bound_high == pytest.approx(0.5 + half)
    assert first.bound_high == pytest.approx(0.5 + half / np.sqrt(2))
    alone, _ = judge([rows[0], row(0.5, spread, name="b", group="privacy")])
    assert alone[0].bound_high == pytest.approx(0.5 + SKEW * scipy_stats.t.ppf(0.975, 4) / 100 * np.sqrt(6 / 5))


def test_a_row_in_other_units_does_not_widen_the_bounds_of_all() -> None:
    """By former rules steps, which differ by more than a share ever can, counted as a half: sqrt(1 / 2) of a half."""
    share, steps = row(0.5, [0.5] * 5), row(80.0, [70.0, 90.0, 80.0, 75.0, 85.0], name="steps")
    (first, _), _ = judge([share, steps])
    assert first.bound_high == judge([share])[0][0].bound_high
    (before, _), _ = judge([share, steps], rule=FORMER[0])
    half = SKEW * scipy_stats.t.ppf(0.95, 4) * np.sqrt(1 / 2) * 0.5 * np.sqrt(6 / 5)
    assert before.bound_high == pytest.approx(0.5 + half)


def test_a_ratio_without_intervals_does_not_widen_them_either() -> None:
    """Residual knowledge of few examples: .4 to 2.6, which former rules took for shares that differ by all they can."""
    share = row(0.42, [0.02, 0.04, 0.06, 0.02, 0.05], original=0.76)
    ratio = row(6.8, [1.1, 0.6, 0.9, 0.4, 2.6], name="b", original=10.0)
    (alone,), _ = judge([share])
    labels = {rule: judge([share, ratio], rule=rule)[0][0] for rule in (RULE, *FORMER)}
    assert labels[RULE].bound_high == alone.bound_high
    assert [row.verdict for row in labels.values()] == ["leaks", "inconclusive", "inconclusive"]
    assert labels[RULE].verdict == alone.verdict


def test_like_retrained_means_that_half_of_the_gap_is_ruled_out() -> None:
    """Bounds 0.5 +- 0.0514, and 0.0234 beyond a value: half of the gap must be more than what it may stand for."""
    near = scipy_stats.t.ppf(0.95, 4) * 0.01 * np.sqrt(6 / 5)
    assert SHARE * 0.06 > near > SHARE * 0.06 - 0.01
    for original, value, expected in (
        (0.56, 0.5, "like retrained"),
        (0.56, 0.51, "inconclusive"),
        (0.9, 0.51, "like retrained"),
    ):
        (found,), verdict = judge([row(value, TIGHT, original=original, margin=0.01)])
        assert found.verdict == expected == verdict.label
    assert (
        "half of what the original shows beyond retrained models could be left (A)"
        in judge([row(0.51, TIGHT, original=0.56, margin=0.01)])[1].line
    )


def test_where_the_original_is_among_retrained_models_the_row_can_not_tell() -> None:
    for original, margin, why in (
        (0.54, 0.01, Reason.MODELS_DIFFER),
        (0.54, 0.1, Reason.NOTHING_TO_SEE),
        (0.3, 0.01, Reason.NOTHING_TO_SEE),
    ):
        (found,), verdict = judge([row(0.5, TIGHT, original=original, margin=margin)])
        assert found.verdict == "inconclusive" == verdict.label
        assert why in found.note
        assert why in verdict.line
    (found,), _ = judge([row(0.9, TIGHT, original=0.5)])
    assert found.verdict == "leaks", "what no retrained model shows is a leak, whatever the original shows"


def test_rows_that_have_nothing_to_tell_do_not_keep_others_from_telling() -> None:
    told, blind = row(0.5, TIGHT), row(0.5, TIGHT, original=0.5, name="b")
    unsure = row(0.5, [0.3, 0.7, 0.5, 0.4, 0.6], original=0.9, margin=0.1, name="c")
    assert judge([told, blind])[1].label == "like retrained"
    assert "1 of 2 judged measurements fall where retrained models do" in judge([told, blind])[1].line
    assert f"The others can't tell: {Reason.NOTHING_TO_SEE} (B)." in judge([told, blind])[1].line
    assert judge([blind])[1].label == "inconclusive", "nothing could have been seen"
    assert judge([told, unsure])[1].label == "like retrained", "another row of its group tells"
    elsewhere = unsure.model_copy(update={"group": "inside"})
    verdict = judge([told, elsewhere])[1]
    assert verdict.label == "inconclusive"
    assert f"{Reason.MODELS_DIFFER} (C)" in verdict.line


@pytest.mark.parametrize(("shown", "blocks"), [(0.69, False), (0.71, True), (0.9, True)])
def test_a_row_that_can_not_tell_speaks_up_where_it_shows_half_of_what_only_the_original_shows(
    shown: float, blocks: bool
) -> None:
    """Retrained models show 0.5 on average, the original 0.9; half is at 0.7. The former rule looked at no share."""
    unsure = row(shown, [0.3, 0.7, 0.5, 0.4, 0.6], original=0.9, margin=0.1, name="c")
    verdict = judge([row(0.5, TIGHT), unsure])[1]
    assert verdict.label == ("inconclusive" if blocks else "like retrained")
    assert f"{Reason.MODELS_DIFFER} (C)" in verdict.line
    before = judge([row(0.5, TIGHT), unsure], rule=WITHOUT_CONTROLS)[1]
    assert (before.label, before.rule) == ("like retrained", WITHOUT_CONTROLS)


def test_too_few_records_are_the_reason_and_how_many_would_do_is_said() -> None:
    """Four records, deviations and errors of a half, the original at 1: bounds that shrink as 1 / sqrt(n)."""
    values = [-0.5, 0.5, -0.5, 0.5]
    made = row(0.0, [], n=4, original=1.0, group="privacy").model_copy(
        update={"prior": 4, "references": [Estimate(value=v, low=v - 0.98, high=v + 0.98, n=4) for v in values]}
    )
    (found,), verdict = judge([made])
    assert Reason.FEW_RECORDS in found.note
    assert Reason.FEW_RECORDS in verdict.line
    spread = np.sqrt((4 * 0.25 + 3 * np.var(values, ddof=1)) / 7) * np.sqrt(5 / 4)
    half = (1 + (SKEW - 1) / 2) * scipy_stats.t.ppf(0.975, 7) * spread
    needed = int(np.ceil(4 * (half + 0.84 * spread) ** 2))
    assert f"Not even the original would be seen 4 times in 5; about {needed} records would do." in verdict.line


def test_why_a_figure_of_few_records_is_missing_stands_in_the_sentence() -> None:
    missing = row(None, TIGHT, name="b").model_copy(update={"prior": 8, "note": "needs two of holdout"})
    blind = row(0.5, TIGHT, original=0.5)
    assert judge([blind, missing])[1].line.endswith(" B: needs two of holdout.")
    assert "B" not in judge([row(0.5, TIGHT), missing])[1].line, "where others tell, it isn't said"


def test_the_smallest_share_that_would_be_seen() -> None:
    """Bounds of half a width h and a deviation of 0.01 sqrt(6/5), over a gap of 0.5: (h + 0.84 of that) / 0.5."""
    (found,), verdict = judge([row(0.5, TIGHT, original=1.0)])
    share = (SKEW * scipy_stats.t.ppf(0.95, 4) + 0.84) * 0.01 * np.sqrt(6 / 5) / 0.5
    assert smallest_share(found) == pytest.approx(share)
    assert f"{100 * share:.0f} % left would be seen 4 times in 5 (A)" in verdict.line
    assert smallest_share(judge([row(0.5, TIGHT, original=0.501)])[0][0]) is None


def test_equal_references_still_have_one_example_of_spread() -> None:
    (found,), _ = judge([row(0.5, [0.5] * 5, n=20)])
    half = SKEW * scipy_stats.t.ppf(0.95, 4) / 20 * np.sqrt(6 / 5)
    assert found.bound_high == pytest.approx(0.5 + half)
    assert judge([row(0.55, [0.5] * 5, n=20)])[1].label != "leaks"


def test_few_or_unlike_references_are_inconclusive_but_never_excuse_a_value_far_outside() -> None:
    assert judge([row(0.5, [0.3, 0.7, 0.5], original=1.0)])[1].label == "inconclusive"
    assert judge([row(0.5, [0.49, 0.51], original=0.7)])[1].label == "inconclusive"
    assert judge([row(0.5, [0.5])])[1].label == "inconclusive"
    assert judge([row(5.0, [0.3, 0.7, 0.5], leak="above")])[1].label == "leaks"
    (found,), verdict = judge([row(0.5, [0.5])])
    assert found.verdict == "inconclusive"
    assert "at least 2 are needed" in found.note
    assert "nothing could be judged, with fewer than 2 retrained models." in verdict.line
    assert "nothing could be judged, for want of retrained models." in judge([row(0.5, [])])[1].line
    assert "nothing could be judged, for want of values." in judge([row(None, TIGHT)])[1].line
    assert judge([])[1].label == "inconclusive"


def test_what_is_not_judged_or_not_known_stays_out() -> None:
    rows = [row(0.5, TIGHT), row(9.0, TIGHT, name="b", judged=False), row(None, TIGHT, name="c")]
    found, verdict = judge(rows)
    assert [m.verdict for m in found] == ["like retrained", "not judged", "not judged"]
    assert (verdict.label, verdict.judged) == ("like retrained", 1)


def test_the_worst_label_names_the_whole() -> None:
    like, over, leak = row(0.5, TIGHT), row(0.0, TIGHT, name="b"), row(1.0, TIGHT, name="c")
    assert judge([like, over, leak])[1].label == "leaks"
    assert judge([like, over])[1].label == "over-forgets"
    unsure = row(0.5, [0.3, 0.7, 0.5], name="d", original=0.9, group="inside")
    assert judge([like, unsure])[1].label == "inconclusive"
    assert "on 1 of 3 judged measurements (C)" in judge([like, over, leak])[1].line


def test_judging_again_changes_nothing() -> None:
    found, verdict = judge([row(0.5, TIGHT), row(1.0, TIGHT, name="b"), row(0.5, [0.5], name="c")])
    assert judge(found) == (found, verdict)


def shares(rng: np.random.Generator, k: int) -> np.ndarray:
    """Five correlated shares of few examples, some near 1: what accuracies and AUCs of K + 1 retrained models are."""
    skill = rng.normal(0, 0.4, (k + 1, 1))
    logits = np.array([0.0, 1.0, 2.0, 4.0, 4.0]) + skill + rng.normal(0, 0.2, (k + 1, 5))
    return rng.binomial([25, 50, 100, 200, 25], 1 / (1 + np.exp(-logits))) / [25, 50, 100, 200, 25]


def normals(rng: np.random.Generator, k: int) -> np.ndarray:
    """Five correlated normal measurements, one almost constant."""
    common = rng.normal(size=(k + 1, 1))
    return 0.5 + np.array([0.05, 0.1, 0.01, 0.2, 1e-6]) * (0.7 * common + 0.7 * rng.normal(size=(k + 1, 5)))


@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize("draw", [normals, shares])
def test_a_retrained_model_judged_against_retrained_ones_rarely_fails(draw: object, k: int) -> None:
    rng, repetitions, failures = np.random.default_rng(k), 1000, 0
    sizes = (25, 50, 100, 200, 25)
    rows = [row(0.0, [0.0] * k, name=str(i), n=n) for i, n in enumerate(sizes)]
    for _ in range(repetitions):
        values = draw(rng, k)  # type: ignore[operator]
        drawn = [filled(m, values[:, i]) for i, m in enumerate(rows)]
        failures += judge(drawn)[1].label in ("leaks", "over-forgets")
    error = 3 * np.sqrt(ALPHA * (1 - ALPHA) / repetitions)
    assert failures / repetitions <= ALPHA + error, failures / repetitions


def skewed(rng: np.random.Generator, k: int) -> np.ndarray:
    """Exponential spreads: one run in a while is far off."""
    return 0.5 + 0.05 * rng.exponential(size=(k + 1, 5))


def heavy(rng: np.random.Generator, k: int) -> np.ndarray:
    """Heavy tails, Student's t with 4 degrees."""
    return 0.5 + 0.05 * rng.standard_t(4, size=(k + 1, 5))


@pytest.mark.parametrize(("draw", "sign", "before"), [(skewed, 1, 0.1), (skewed, -1, 0.1), (heavy, 1, 0.06)])
def test_skewed_spreads_fail_a_retrained_model_no_more_often(draw: object, sign: int, before: float) -> None:
    """Nor do heavy tails; under the former rule, one retrained model in six failed."""
    rng, failures = np.random.default_rng(0), np.zeros(2)
    rows = [row(0.0, [0.0] * 5, name=str(i), n=10**6) for i in range(5)]
    for _ in range(1000):
        values = sign * draw(rng, 5)  # type: ignore[operator]
        drawn = [filled(m, values[:, i]) for i, m in enumerate(rows)]
        failures += [rule(drawn)[1].label in ("leaks", "over-forgets") for rule in (judge, former.judge)]
    assert failures[0] / 1000 <= ALPHA
    assert failures[1] / 1000 > before


def filled(measurement: Measurement, values: np.ndarray) -> Measurement:
    """The measurement with the first value as the subject's and the others as the references'."""
    first, *others = (Estimate.model_construct(value=float(v), n=measurement.unlearned.n, note="") for v in values)
    return measurement.model_copy(update={"unlearned": first, "references": others})


def test_the_rule_has_power() -> None:
    """With 5 references, a value 6 standard deviations off on 3 of 5 measurements is called a leak nearly always."""
    rng, caught = np.random.default_rng(0), 0
    rows = [row(0.0, [0.0] * 5, name=str(i), n=10**6) for i in range(5)]
    for _ in range(200):
        values = 0.5 + 0.05 * rng.normal(size=(6, 5))
        values[0, :3] += 0.5
        caught += judge([filled(m, values[:, i]) for i, m in enumerate(rows)])[1].label == "leaks"
    assert caught >= 190


# The gaps that the paper prints in Table 1. ODD: rows whose MIA gap it took against another retrained value.
PRINTED = {
    "cifar10": {"original": 8.34, "finetune": 8.22, "ngd": 6.27, "grad_ascent": 21.25, "neggrad_plus": 2.71,
                "eu_k": 7.74, "cf_k": 8.16, "scrub": 4.84, "ssd": 20.65, "rurk": 2.65},
    "small-cifar5": {"original": 7.82, "finetune": 18.89, "ngd": 6.92, "grad_ascent": 18.29, "neggrad_plus": 10.55,
                     "eu_k": 14.82, "cf_k": 7.10, "scrub": 3.97, "ssd": 6.29, "rurk": 2.60},
}  # fmt: skip
ODD = {
    "cifar10": {"grad_ascent": 21.58},
    "small-cifar5": {"finetune": 26.47, "grad_ascent": 25.88, "neggrad_plus": 18.14, "eu_k": 12.24, "cf_k": 4.52,
                     "ssd": 13.87},
}  # fmt: skip
TABLES = {"cifar10": CIFAR10, "small-cifar5": SMALL_CIFAR5}


@pytest.mark.parametrize(("table", "method"), [(t, m) for t in PRINTED for m in PRINTED[t]])
def test_average_gap_reproduces_the_papers_rows(table: str, method: str) -> None:
    values, odd = TABLES[table], ODD[table].get(method)
    found = 100 * average_gap(values[method], values["retrained"], GAP)
    assert found == pytest.approx(PRINTED[table][method] if odd is None else odd, abs=0.02)
    assert found == pytest.approx(100 * values[method]["average_gap"], abs=1e-3), "what stands beside measured gaps"
    assert odd is None or abs(found - PRINTED[table][method]) > 0.2, "an odd row is one that print got wrong"
