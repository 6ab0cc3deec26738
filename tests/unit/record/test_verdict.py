"""The rule does what docs/verdict.md promises: a retrained model fails at most one time in twenty."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from unrecall.metrics.gap import average_gap
from unrecall.record.schema import Estimate, Label, Measurement, Side
from unrecall.record.verdict import ALPHA, judge
from unrecall.scenarios.reported import CIFAR10, SMALL_CIFAR5

GAP = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_failure")


def row(
    value: float | None,
    references: list[float],
    leak: Side | None = "above",
    margin: float = 0.1,
    n: int = 100,
    name: str = "a",
    judged: bool = True,
) -> Measurement:
    none = Estimate(value=None)
    return Measurement(
        name=name, title=name.upper(), group="g", unlearned=Estimate(value=value, n=n), original=none, null=none,
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


def test_models_that_retain_nearly_as_much_are_a_measure() -> None:
    found, verdict = judge([retained("retain_accuracy", 0.95, 0.95), retained("test_accuracy", 0.3, 0.3)])
    assert [m.verdict for m in found] == ["like retrained"] * 2
    assert verdict.label == "like retrained"


def test_bounds_by_hand() -> None:
    """K = 3, mean 0.5, s = 0.1: 0.5 +- t_2(0.975) 0.1 sqrt(4/3); with two measurements t_2(0.9875)."""
    for m, level in ((1, 0.975), (2, 0.9875)):
        found, _ = judge([row(0.5, [0.4, 0.5, 0.6], name=str(i)) for i in range(m)])
        half = scipy_stats.t.ppf(level, 2) * 0.1 * np.sqrt(4 / 3)
        assert found[0].bound_low == pytest.approx(0.5 - half)
        assert found[0].bound_high == pytest.approx(0.5 + half)


def test_equal_references_still_have_one_example_of_spread() -> None:
    (found,), _ = judge([row(0.5, [0.5] * 5, n=20)])
    half = scipy_stats.t.ppf(0.975, 4) / 20 * np.sqrt(6 / 5)
    assert found.bound_high == pytest.approx(0.5 + half)
    assert judge([row(0.55, [0.5] * 5, n=20)])[1].label != "leaks"


def test_few_or_unlike_references_are_inconclusive_but_never_excuse_a_value_far_outside() -> None:
    assert judge([row(0.5, [0.3, 0.7, 0.5])])[1].label == "inconclusive"
    assert judge([row(0.5, [0.49, 0.51])])[1].label == "inconclusive"
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
    assert judge([like, row(0.5, [0.3, 0.7, 0.5], name="d")])[1].label == "inconclusive"
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
    rng, repetitions, failures = np.random.default_rng(k), 2000, 0
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


def test_what_skew_costs() -> None:
    """The promise rests on runs that differ about normally; with a strong skew one in six fails, not one in twenty."""
    rng, failures = np.random.default_rng(0), 0
    rows = [row(0.0, [0.0] * 5, name=str(i), n=10**6) for i in range(5)]
    for _ in range(1000):
        values = skewed(rng, 5)
        failures += judge([filled(m, values[:, i]) for i, m in enumerate(rows)])[1].label != "inconclusive"
    assert 0.05 < failures / 1000 < 0.2


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
