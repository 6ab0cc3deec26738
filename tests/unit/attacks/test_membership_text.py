"""Membership attacks on texts: every score by hand, and their controls on models that memorised invented facts."""

import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from tests.unit.attacks.running import job_of, setting_of
from tests.worlds import World
from unrecall.attacks.base import MembershipAttack
from unrecall.attacks.grad_norm import GradNorm
from unrecall.attacks.lira import Lira, logit
from unrecall.attacks.loss import Loss
from unrecall.attacks.min_k import MinK
from unrecall.attacks.min_k_plus_plus import MinKPlusPlus
from unrecall.attacks.reference_model import ReferenceModel
from unrecall.attacks.remind import CLASSES, REMIND, landscape, out_of_fold
from unrecall.attacks.zlib_ratio import ZlibRatio
from unrecall.data.examples import Absent
from unrecall.data.request import Request, Split
from unrecall.data.signals import Signals
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Setting
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import observe
from unrecall.record import stats
from unrecall.tasks import Classification

TEXTS: tuple[Split, ...] = ("forget", "holdout")


def signals(rows: Sequence[Sequence[float]]) -> Signals:
    """Examples of several rows, each row a log-probability."""
    example = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    log_prob = np.concatenate([np.array(one, dtype=float) for one in rows])
    loss = np.array([-np.mean(one) for one in rows])
    none, zeros = np.zeros(len(rows)), np.zeros(len(log_prob))
    return Signals(loss, np.exp(-loss), none, none[:, None], zeros, zeros, example, log_prob, zeros, zeros)


def about(
    request: Request, subject: Mapping[Split, Signals], *references: Mapping[Split, Signals], **extra: np.ndarray
) -> Evidence:
    found: Any = extra
    return Evidence(request, subject, references, subject, found)


# By hand.


@pytest.mark.parametrize(
    ("k", "expected"), [(0.2, [-5.0, -3.5]), (0.5, [-4.0, -1.9]), (1.0, [-2.6, -1.2]), (0.0, [-5, -4])]
)
def test_min_k_by_hand(text_world: World, k: float, expected: list[float]) -> None:
    """Five rows and ten; a share of 0.5 takes two of five, and no share takes none."""
    five = [-1.0, -5.0, -2.0, -3.0, -2.0]
    ten = [-0.5, -4.0, -0.5, -1.0, -0.5, -3.0, -0.5, -1.0, -0.5, -0.5]
    seen = about(text_world.request, {"forget": signals([five, ten])})
    assert MinK(k=k).score(seen, "forget") == pytest.approx(expected)


def test_min_k_of_all_rows_is_the_loss_attack(text_world: World) -> None:
    seen = about(
        text_world.request, {"forget": observe(text_world.original, text_world.task, text_world.request.forget)}
    )
    assert MinK(k=1).score(seen, "forget") == pytest.approx(Loss().score(seen, "forget"), abs=1e-6)


def spoken(*chances: float) -> nn.Module:
    """A model of three words that predicts the same whatever it is shown."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 3))
    model[1].weight.data.zero_()  # type: ignore[operator, union-attr]
    model[1].bias.data = torch.tensor(chances).log()
    return model


def test_min_k_plus_plus_by_hand(samples_world: World) -> None:
    """p = (1/2, 1/4, 1/4): mu = -1.5 ln 2, sigma = 0.5 ln 2; z is 1 for the first word and -1 for the others."""
    words = [(torch.zeros(1, 1, 1), word) for word in range(3)]
    seen = about(samples_world.request, {"forget": observe(spoken(0.5, 0.25, 0.25), Classification(), words)})
    assert seen.signals["forget"].expected == pytest.approx([-1.5 * np.log(2)] * 3)
    assert seen.signals["forget"].deviation == pytest.approx([0.5 * np.log(2)] * 3)
    assert MinKPlusPlus().score(seen, "forget") == pytest.approx([1, -1, -1], abs=1e-5)
    even = about(samples_world.request, {"forget": observe(spoken(1 / 3, 1 / 3, 1 / 3), Classification(), words)})
    assert MinKPlusPlus().score(even, "forget") == pytest.approx([0, 0, 0], abs=0.02), (
        "no word is likelier than another"
    )
    sure = about(samples_world.request, {"forget": observe(spoken(1, 1e-30, 1e-30), Classification(), words[:1])})
    assert MinKPlusPlus().score(sure, "forget") == pytest.approx([0])


def test_min_k_plus_plus_takes_the_lowest_standardised_rows(text_world: World) -> None:
    rows = signals([[-1.0, -5.0, -2.0, -3.0, -2.0]])
    sharp = replace(rows, expected=np.array([-0.5, -5, -1, -2, -2]), deviation=np.array([0.1, 1, 1, 1, 1]))
    seen = about(text_world.request, {"forget": sharp})  # z = -5, 0, -1, -1, 0
    assert MinKPlusPlus().score(seen, "forget") == pytest.approx([-5])
    assert MinKPlusPlus(k=0.6).score(seen, "forget") == pytest.approx([-7 / 3])


def test_zlib_by_hand(text_world: World) -> None:
    w = text_world
    request = replace(
        w.request, forget=[{"prompt": "what", "answer": "aaa " * 40}, {"prompt": "what", "answer": "ann"}]
    )
    sizes = [len(zlib.compress(b"aaa " * 40)), len(zlib.compress(b"ann"))]
    extra = ZlibRatio().extra_signals(w.original, job_of(w, request=request))
    assert extra["forget"].tolist() == sizes
    seen = about(request, {"forget": signals([[-3.0], [-1.0, -2.0]])}, forget=extra["forget"])
    assert ZlibRatio().score(seen, "forget") == pytest.approx([-3 / sizes[0], -1.5 / sizes[1]])


def test_reference_model_by_hand(text_world: World) -> None:
    mine, one, two = ({"forget": signals([[-a], [-b]])} for a, b in ((1, 4), (2, 3), (4, 3)))
    seen = about(text_world.request, mine, one, two)
    assert ReferenceModel().score(seen, "forget") == pytest.approx([2, -1])
    with pytest.raises(MissingReference, match="at least 1 retrained model besides the subject, got none"):
        ReferenceModel().score(about(text_world.request, mine), "forget")
    with pytest.raises(NotSupported, match="retain"):
        ReferenceModel().score(seen, "retain")


def test_lira_takes_the_geometric_mean_of_a_texts_rows(text_world: World) -> None:
    mine, one, two = ({s: signals([[-a, -3 * a], [-2 * a]]) for s in TEXTS} for a in (0.1, 0.5, 0.7))
    phi = [logit(np.array([2 * a, 2 * a])) for a in (0.1, 0.5, 0.7)]
    spread = np.sqrt(np.var(phi[1:], axis=0, ddof=1).mean())
    found = Lira().score(about(text_world.request, mine, one, two), "forget")
    assert found == pytest.approx((phi[0] - (phi[1] + phi[2]) / 2) / spread)


def test_gradient_norm_is_autograds(text_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    w, passes = text_world, []
    model = copy.deepcopy(w.original).train().requires_grad_(False)
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    extra = GradNorm().extra_signals(model, job_of(w))
    assert len(passes) == 2 * 5, (
        "one pass a batch, and two for a few examples of each arm, looked at both ways, and backwards too"
    )
    assert model.training
    for split in TEXTS:
        for item, norm in zip(list(w.request[split]), extra[split], strict=True):  # type: ignore[call-overload]
            loss = w.task.rows(w.original, w.task.collate([item])).losses().sum()
            found = torch.autograd.grad(loss, list(w.original.parameters()))
            assert norm == pytest.approx(float(torch.cat([g.flatten() for g in found]).norm()), rel=1e-4)
    assert np.array_equal(GradNorm().score(about(w.request, {}, **extra), "holdout"), -extra["holdout"])


# What can't be asked.


def test_what_is_missing_is_said(text_world: World, samples_world: World) -> None:
    w = text_world
    subject = {s: signals([[-1.0]]) for s in ("retain", "forget")}
    for attack in (ZlibRatio(), GradNorm(), REMIND()):
        with pytest.raises(NotSupported, match="expected forget or holdout, looked at before, got 'retain'"):
            attack.score(about(w.request, subject), "retain")
    without = replace(w.request, holdout=Absent("holdout: there is none"))
    for other in (GradNorm(), REMIND()):
        with pytest.raises(MissingReference, match="there is none"):
            other.extra_signals(w.original, job_of(w, request=without))
    finding = score_finding(ZlibRatio(), setting_of(replace(w, request=without)))
    assert finding.measurements[0].unlearned.note == "holdout: there is none"
    s = samples_world
    with pytest.raises(NotSupported, match="REMIND: expected a task of texts, got Classification"):
        REMIND().extra_signals(s.original, job_of(s))
    few = dict.fromkeys(CLASSES, np.zeros((1, 15)))
    with pytest.raises(NotSupported, match="at least 2 examples each of retain, holdout, forget, got 1, 1, 1"):
        REMIND().score(about(w.request, subject, **few), "forget")


# REMIND.


def test_landscape_by_hand() -> None:
    """Two copies of one text: one 0.5 away and 2 nats worse, one 0.25 away and 1 nat better; then one not swapped."""
    base, around = np.array([3.0, 1.0]), np.array([[5.0, 2.0], [4.0, 1.5]])
    found = landscape(base, around, np.array([[0.5, 0.25], [1.0, 0.0]]))
    by_hand = {
        "original_loss": (3, 1),
        "mean_neighbour_loss": (3.5, 2.75),
        "max_neighbour_loss": (5, 4),
        "min_neighbour_loss": (2, 1.5),
        "loss_variance": (2.25, 1.25**2),
        "loss_std": (1.5, 1.25),
        "mean_loss_increment": (0.5, 1.5),
        "max_loss_increment": (2, 3),
        "min_loss_increment": (-1, 0),
        "mean_gradient": (4, 1.5),
        "max_gradient": (4, 3),
        "gradient_variance": (0, 2.25),
        "loss_volatility": (1.5 / 3.5, 1.25 / 2.75),
        "local_curvature": ((2 * 2 / 0.25 - 2 / 0.0625) / 2, 3),
        "increment_variance": (2.25, 2.25),
    }
    assert found == pytest.approx(np.array(list(by_hand.values())).T, rel=1e-5, abs=1e-5)


def test_remind_looks_at_the_same_neighbours_of_every_text(text_world: World) -> None:
    w, attack = text_world, REMIND(m=5, k=4)
    model = copy.deepcopy(w.original).train()
    extra = attack.extra_signals(model, job_of(w, seed=3))
    again = attack.extra_signals(w.original, job_of(w, seed=3))
    assert model.training
    assert {split: found.shape for split, found in extra.items()} == {
        "retain": (8, 15),
        "holdout": (8, 15),
        "forget": (10, 15),
    }
    assert all(np.array_equal(found, again[split]) for split, found in extra.items())
    other = attack.extra_signals(w.original, job_of(w, seed=4))
    assert not np.array_equal(other["forget"], extra["forget"])
    loss = observe(w.original, w.task, w.request.forget).loss
    assert extra["forget"][:, 0] == pytest.approx(loss, abs=1e-5)
    still = REMIND(p=0.0, k=2).extra_signals(w.original, job_of(w, seed=3))["forget"]
    assert still[:, 1] == pytest.approx(still[:, 0], abs=1e-5)
    assert not still[:, [6, 7, 8, 9, 10, 11, 13, 14]].any(), "nothing is swapped, so nothing rises"


def clouds(shift: float, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """15 features of three classes, of which forget lies `shift` away; sizes differ."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [n // 2, n, n + 20])
    return rng.normal(size=(len(labels), 15)) + shift * (labels == 2)[:, None], labels


@pytest.mark.parametrize("classifier", ["logistic", "forest"])
def test_remind_tells_classes_apart_only_where_they_differ(text_world: World, classifier: Any) -> None:
    def area(features: np.ndarray, labels: np.ndarray) -> float:
        split = {name: features[labels == i] for i, name in enumerate(CLASSES)}
        seen, attack = about(text_world.request, {}, **split), REMIND(classifier=classifier)
        return stats.auc(attack.score(seen, "forget"), attack.score(seen, "holdout")).value or 0.0

    features, labels = clouds(1.0)
    assert area(features, labels) > 0.95
    seeds = range(1 if classifier == "forest" else 5)
    shuffled = [area(features, np.random.default_rng(seed).permutation(labels)) for seed in seeds]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.1)


def test_no_example_is_scored_by_a_classifier_that_saw_it() -> None:
    """The nearest neighbour knows every example it has seen; one that hasn't can only guess among three classes."""
    features, labels = clouds(0.0)
    found = out_of_fold(features, labels, KNeighborsClassifier(1))
    assert found.sum(1) == pytest.approx(np.ones(len(labels)))
    assert np.mean(found.argmax(1) == labels) < 0.5
    assert np.array_equal(found, out_of_fold(features, labels, KNeighborsClassifier(1)))


def test_every_class_is_cut_to_the_smallest() -> None:
    features, labels = clouds(0.0)
    assert out_of_fold(features, labels, DummyClassifier()) == pytest.approx(np.full((len(labels), 3), 1 / 3))


# Controls.


@pytest.fixture(scope="module")
def text_audit(text_world: World) -> Setting:
    return setting_of(text_world)


@pytest.mark.parametrize(
    "attack",
    [Loss(), ZlibRatio(), MinK(), MinKPlusPlus(), ReferenceModel(), GradNorm(), REMIND()],
    ids=lambda attack: type(attack).__name__,
)
def test_controls(attack: MembershipAttack, text_audit: Setting) -> None:
    finding = score_finding(attack, text_audit)
    area = finding.measurements[0]
    assert area.original.value is not None
    assert area.original.value > 0.8
    assert finding.report.positive_holds
    assert finding.report.negative_holds
    assert area.reference == pytest.approx(0.5, abs=0.2), "18 examples can't say it any better"
