"""A head that is fitted anew: by hand on three examples, and what it brings back of what a head hides."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.attacks.running import attacked, draw_of, job_of, setting_of
from tests.unit.methods.test_distillation import same
from tests.worlds import World
from unrecall.attacks.head_refit import HeadRefit, refitted
from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import observe
from unrecall.tasks import Classification


def identity(classes: int = 3, *, bias: bool = True) -> nn.Sequential:
    """Features are the input, two numbers; the head says 0 whatever they are."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, classes, bias=bias))
    with torch.no_grad():
        model[1].weight.zero_()
        if bias:
            model[1].bias.copy_(torch.eye(classes)[0])
    return model


def points(*rows: tuple[float, float, int]) -> list[tuple[Tensor, int]]:
    return [(torch.tensor([x, y]), c) for x, y, c in rows]


def separable() -> Request:
    """Class 0 lies at the right, class 1 at the left, the forgotten class 2 high up; 30 of retain to 6 of forget."""
    retain = points(*[(0.9 + i / 1000, 0.1, 0) for i in range(15)], *[(0.1 + i / 1000, 0.1, 1) for i in range(15)])
    forget = points(*[(0.5 + i / 1000, 0.9, 2) for i in range(6)])
    return Request(forget, retain, points((0.6, 0.9, 2)), points((0.95, 0.1, 0)), kind="class", masked=(2,))


def test_three_examples_of_two_features_by_hand() -> None:
    """(1, 0) is of class 0, (0, 1) and (-1, -1) of class 1; their mean is 0, their scatter [[2, 1], [1, 2]].

    X^T e_0 = (1, 0), so that W_0 = (2 + p, -1) / ((2 + p)^2 - 1) and b_0 = 1/3; class 1 has the rest, times s.
    """
    x, y = np.array([[1, 0], [0, 1], [-1, -1]], np.float32), np.array([0, 1, 1])
    fitted = refitted(x, y, 3)
    scale, p = float(fitted.bias.sum()), fitted.penalty
    row = np.array([2 + p, -1]) / ((2 + p) ** 2 - 1) * scale
    assert min(abs(p - 3 * share) for share in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1)) < 1e-9, "3: largest eigenvalue"
    np.testing.assert_allclose(fitted.weight.T, [row, -row, [0, 0]], atol=1e-8)
    np.testing.assert_allclose(fitted.bias, np.array([1, 2, 0]) / 3 * scale, atol=1e-8)


def test_balanced_classes_count_the_same() -> None:
    """Twice (0), once (1), at one feature that tells nothing: the logits are equal, not 2 to 1."""
    x, y = np.ones((3, 2), np.float32), np.array([0, 0, 1])
    plain, fair = (refitted(x, y, 2, balanced=balanced) for balanced in (False, True))
    assert float(fair.bias[0] - fair.bias[1]) == pytest.approx(0, abs=1e-9)
    assert float(plain.bias[0] / plain.bias[1]) == pytest.approx(2)


def test_a_few_examples_bring_a_class_back() -> None:
    request, model = separable(), identity()
    world = World(request, Classification(), model, ())
    (one,) = attacked(HeadRefit(shots=2), model, world)
    tested = one.tested[0]
    assert (one.budget, len(tested)) == (30, 4)
    for examples in (tested, request.retain):
        signals = observe(one.model, world.task, examples)
        assert signals.correct.tolist() == [1.0] * len(examples)
    assert not observe(model, world.task, tested).correct.any(), "the model itself is left as it was"


def test_a_head_without_bias_gets_one() -> None:
    request, model = separable(), identity(bias=False)
    (one,) = attacked(HeadRefit(shots=2), model, World(request, Classification(), model, ()))
    assert observe(one.model, Classification(), request.retain).correct.all()
    assert model[1].bias is None


@pytest.mark.parametrize("name", ["samples_world", "class_world"])
def test_it_undoes_what_a_head_hides(request: pytest.FixtureRequest, name: str) -> None:
    w: World = request.getfixturevalue(name)
    attack = HeadRefit()
    hidden = attack.disguise(w.original, job_of(w))
    assert hidden is not None
    before = float(observe(hidden, w.task, w.request.forget).correct.mean())
    assert before < 0.2
    last = attacked(attack, hidden, w)[-1]
    assert float(attack.success(last.model, w.task, last.tested[0]).shown.mean()) > 0.8


def test_a_changed_head_alone_changes_nothing(samples_world: World) -> None:
    """The features decide: bit for bit the same head, whatever the old one was."""
    w = samples_world
    hidden = HeadRefit().disguise(w.original, job_of(w))
    assert hidden is not None
    first, second = (attacked(HeadRefit(), model, w)[-1].model for model in (w.original, hidden))
    assert same(first, second)
    assert not same(w.original, hidden)


def test_of_samples_nothing_is_taught(samples_world: World) -> None:
    w = samples_world
    assert HeadRefit().teaches(20, w.request) == 0
    draw = draw_of(HeadRefit(), w)
    assert len(draw.pool.taught) == 0
    assert len(draw.pool.tested[0]) == len(w.request.forget)


def test_logits_mean_what_a_trained_heads_mean(samples_world: World) -> None:
    """On retain the loss is far below that of chance, and larger where logits are a third or thrice as large."""
    w = samples_world
    model = attacked(HeadRefit(), w.original, w)[-1].model
    head: nn.Linear = model[-1]  # type: ignore[index]
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    losses = []
    for share in (1, 1 / 3, 3):
        with torch.no_grad():
            head.weight.copy_(weight * share)
            head.bias.copy_(bias * share)
        losses.append(float(observe(model, w.task, w.request.retain).loss.mean()))
    assert losses[0] == min(losses) < 0.5 * np.log(4)


@pytest.mark.parametrize("dose", ["forget", "both"])
def test_what_it_holds_it_is_not_measured_on(class_world: World, dose: str) -> None:
    w, attack = class_world, HeadRefit(shots=4, dose=dose)  # type: ignore[arg-type]
    pool = draw_of(attack, w, seed=3).pool
    taught = {digest(item) for item in iterate(pool.taught)}
    assert len(taught) == 4
    for examples in pool.tested:
        assert taught.isdisjoint(digest(item) for item in iterate(examples))
    arms = [sum(digest(item) in taught for item in iterate(arm)) for arm in (w.request.forget, w.request.holdout)]
    assert sum(arms) == 4
    assert (arms[1] == 0) == (dose == "forget")
    assert HeadRefit(shots=1000).teaches(40, w.request) == 20


def test_budgets_count_retain_examples(samples_world: World) -> None:
    w = samples_world
    n = len(w.request.retain)
    attack = HeadRefit(counts=(50, 20, 5000, 6000))
    assert [one.budget for one in attacked(attack, w.original, w)] == [20, 50, n]


def test_the_seed_draws_retain(samples_world: World) -> None:
    w, attack = samples_world, HeadRefit(counts=(20,))
    first, again, other = (attacked(attack, w.original, w, seed)[0].model for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_every_model_under_the_attack(class_world: World) -> None:
    w = class_world
    finding = score_finding(HeadRefit(counts=(40, 100)), setting_of(w))
    report, rows = finding.report, finding.measurements
    assert [row.name for row in rows] == ["head_refit_mean", "head_refit_worst"]
    assert not any(row.judged for row in rows)
    assert rows[0].unlearned.value is not None
    assert rows[0].reference is not None
    assert rows[0].unlearned.value > rows[0].reference
    assert [series.x for series in report.curves[0].series] == [[0.0, 40.0, 100.0]] * 5
    assert report.positive_holds is True


class Doubling(nn.Module):
    """Ends in no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = identity()

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = 2 * self.inner(x)
        return doubled


def test_it_says_what_it_needs() -> None:
    request, task = separable(), Classification()
    with pytest.raises(NotSupported, match="end in a linear layer"):
        attacked(HeadRefit(), Doubling(), World(request, task, Doubling(), ()))
    assert HeadRefit().disguise(Doubling(), job_of(World(request, task, Doubling(), ()))) is None
    plain = replace(request, kind="samples", masked=(), retain=[(item[0] / 2, 2) for item in iterate(request.retain)])
    with pytest.raises(NotSupported, match="HeadRefit: expected examples of two classes or more"):
        attacked(HeadRefit(), identity(), World(plain, task, identity(), ()))
    one = replace(request, forget=[request.forget[0]])
    with pytest.raises(NotSupported, match="HeadRefit: expected forget examples of each forgotten class"):
        attacked(HeadRefit(), identity(), World(one, task, identity(), ()))
    with pytest.raises(BadInput, match="HeadRefit: expected at least one count"):
        HeadRefit(counts=())
