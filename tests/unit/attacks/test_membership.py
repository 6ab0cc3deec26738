"""Membership attacks: against brute force and scikit-learn, and their controls."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import svm

from tests.worlds import CPU, World, blobs, train
from unrecall.attacks import RMIA, SVC, Lira, Loss, MembershipAttack
from unrecall.attacks.lira import logit
from unrecall.data.examples import Selection
from unrecall.data.request import SPLITS, Request
from unrecall.data.signals import Signals
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import finding_of
from unrecall.models.observe import observe
from unrecall.record import stats
from unrecall.tasks import Classification

TASK = Classification()


def signals(losses: Sequence[float]) -> Signals:
    loss = np.array(losses, dtype=float)
    zeros = np.zeros(len(loss))
    return Signals(loss, np.exp(-loss), zeros, zeros[:, None], zeros, zeros, np.arange(len(loss)), -loss, zeros, zeros)


def evidence(subject: Mapping[str, Any], references: Sequence[Mapping[str, Any]], request: Request) -> Evidence:
    every = [{s: signals(one[s]) for s in SPLITS if s in one} for one in (subject, *references)]
    return Evidence(request, every[0], tuple(every[1:]), every[0])


def test_logit_is_stable_at_both_ends() -> None:
    p = np.array([0.1, 0.5, 0.9])
    assert logit(-np.log(p)) == pytest.approx(np.log(p / (1 - p)))
    assert np.isfinite(logit(np.array([0.0, 1e-30, 800.0]))).all()
    assert (np.diff(logit(np.array([800.0, 5.0, 1.0, 1e-3, 0.0]))) > 0).all()


def test_lira_by_hand(samples_world: World) -> None:
    rng = np.random.default_rng(0)
    models = [{"forget": rng.exponential(1, 3), "holdout": rng.exponential(1, 5)} for _ in range(9)]
    few = evidence(models[0], models[1:4], samples_world.request)
    out = {s: np.stack([logit(m[s]) for m in models[1:4]]) for s in ("forget", "holdout")}
    pooled = np.sqrt(np.r_[out["forget"].var(0, ddof=1), out["holdout"].var(0, ddof=1)].mean())
    expected = (logit(models[0]["forget"]) - out["forget"].mean(0)) / pooled
    assert Lira().score(few, "forget") == pytest.approx(expected)
    many = evidence(models[0], models[1:], samples_world.request)
    out_many = np.stack([logit(m["holdout"]) for m in models[1:]])
    expected = (logit(models[0]["holdout"]) - out_many.mean(0)) / out_many.std(0, ddof=1)
    assert Lira().score(many, "holdout") == pytest.approx(expected)


def test_rmia_by_brute_force(samples_world: World) -> None:
    rng = np.random.default_rng(0)
    models = [{"forget": rng.exponential(1, 4), "test": rng.exponential(1, 30)} for _ in range(3)]
    p = [{s: np.exp(-m[s]) for s in m} for m in models]
    attack = RMIA(a=0.4, gamma=1.3)
    for i, score in enumerate(attack.score(evidence(models[0], models[1:], samples_world.request), "forget")):
        prior = (1.4 * (p[1]["forget"][i] + p[2]["forget"][i]) / 2 + 0.6) / 2
        beaten = 0
        for z in range(30):
            other = p[0]["test"][z] / ((p[1]["test"][z] + p[2]["test"][z]) / 2)
            beaten += (p[0]["forget"][i] / prior) / other >= 1.3
        assert score == pytest.approx(beaten / 30)


def test_what_is_missing_is_said(samples_world: World) -> None:
    one = {"forget": [0.1, 0.2], "holdout": [0.3], "test": [0.2], "retain": [0.1]}
    alone, pair = (evidence(one, [one] * k, samples_world.request) for k in (0, 1))
    with pytest.raises(MissingReference, match="at least 2 retrained models besides the subject, got 1"):
        Lira().score(pair, "forget")
    with pytest.raises(MissingReference, match="RMIA"):
        RMIA().score(alone, "forget")
    for attack in (Lira(), RMIA()):
        with pytest.raises(NotSupported, match="retain"):
            attack.score(pair, "retain")


def test_svc_is_scikit_learns(samples_world: World, class_world: World) -> None:
    rng = np.random.default_rng(0)
    one = {s: rng.exponential(scale, n) for s, scale, n in (("retain", 0.1, 50), ("test", 1, 30), ("forget", 0.5, 9))}
    x = {s: np.exp(-one[s])[:, None] for s in one}
    made = svm.SVC(C=3, gamma="auto", class_weight="balanced").fit(np.r_[x["retain"], x["test"]], [1] * 50 + [0] * 30)
    seen = evidence(one, [], samples_world.request)
    assert SVC().score(seen, "forget") == pytest.approx(made.decision_function(x["forget"]))
    assert SVC().failure_rate(seen).value == pytest.approx(np.mean(made.predict(x["forget"]) == 0))
    swapped = svm.SVC(C=3, gamma="auto", class_weight="balanced").fit(
        np.r_[x["retain"], x["forget"][1::2]], [1] * 50 + [0] * 4
    )
    by_class = SVC().score(evidence(one, [], class_world.request), "forget")
    assert by_class[0::2] == pytest.approx(swapped.decision_function(x["forget"][0::2]))


def test_svc_thins_both_sides_alike(samples_world: World) -> None:
    rng = np.random.default_rng(0)
    one = {"retain": rng.exponential(0.1, 900), "test": rng.exponential(1, 300), "forget": [0.05, 2.0]}
    seen = evidence(one, [], samples_world.request)
    assert SVC(most=100).score(seen, "forget") == pytest.approx(SVC(most=100).score(seen, "forget"))
    assert np.array_equal(np.sign(SVC(most=100).score(seen, "forget")), [1, -1])


@pytest.mark.parametrize(("retain", "test"), [(2000, 60), (60, 2000), (6000, 60), (200_000, 60), (500, 500)])
def test_svc_weighs_both_sides_alike(retain: int, test: int, samples_world: World) -> None:
    """Without weights the larger side takes all: nothing is unseen beside much retain, nothing seen beside much test.

    Confidences spread about 0.93 where seen and 0.73 where not, so that the best threshold errs on both sides.
    """
    rng = np.random.default_rng(0)

    def losses(scale: float, n: int) -> np.ndarray:
        return rng.exponential(scale, n)

    sides = {"retain": losses(0.08, retain), "test": losses(0.4, test)}
    seen, unseen = (
        SVC().failure_rate(evidence(sides | {"forget": losses(scale, 400)}, [], samples_world.request)).value or 0.0
        for scale in (0.08, 0.4)
    )
    assert seen < 0.35
    assert unseen > 0.5


@pytest.fixture(scope="module")
def canaries() -> dict[str, Evidence]:
    """Forget and holdout have wrong labels: only a model that was trained on them can know them."""
    wrong = [(x, (y + 1 + i % 3) % 4) for i, (x, y) in enumerate(blobs(60, 4, 7))]
    right, unseen = blobs(160, 4, 1), blobs(120, 4, 2)
    request = Request(wrong[:20], right, wrong[20:], unseen)
    models = {
        "original": train(right + wrong[:20] * 3, 0),
        **{f"retrained {i}": train(right, i + 11) for i in range(3)},
    }
    seen = {role: {s: observe(model, TASK, request[s]) for s in SPLITS} for role, model in models.items()}
    return {
        role: Evidence(request, own, tuple(seen[r] for r in seen if r not in (role, "original")), seen["original"])
        for role, own in seen.items()
    }


@pytest.mark.parametrize("attack", [Loss(), Lira(), RMIA(), SVC()], ids=lambda attack: type(attack).__name__)
def test_controls_of_membership(attack: MembershipAttack, canaries: dict[str, Evidence]) -> None:
    areas = {
        role: stats.auc(attack.score(one, "forget"), attack.score(one, "holdout")) for role, one in canaries.items()
    }
    assert areas["original"].value is not None
    assert areas["original"].value > 0.8
    retrained = [area.value for role, area in areas.items() if role != "original" and area.value is not None]
    assert np.mean(retrained) == pytest.approx(0.5, abs=0.15)


def test_the_papers_svc_calls_memorised_examples_seen(canaries: dict[str, Evidence]) -> None:
    rates = {role: SVC().failure_rate(one).value or 0.0 for role, one in canaries.items()}
    assert rates["original"] < 0.2
    assert min(rate for role, rate in rates.items() if role != "original") > 0.8


def test_svc_needs_two_examples_of_a_class(class_world: World) -> None:
    """One can't be fitted on and scored: it used to count as not seen, the best value that there is."""
    w = class_world
    one = replace(w.request, forget=Selection(w.request.forget, [0]), kind="class")
    setting = Setting(Models(w.original, w.original), one, w.task, session=CPU)
    assert SVC().failure_rate(setting.evidence["unlearned"]).value is None
    (row, *_) = finding_of(SVC(), setting).measurements
    assert row.unlearned.value is None
