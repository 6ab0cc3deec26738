"""Attacks that bring the forgotten back: their laws, and a positive and a negative control for each."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks.running import attacked, draw_of, setting_of
from tests.worlds import CPU, World
from unrecall.attacks import UMA, Prototypical, Recalibration, RecoveryAttack, Relearn, RelearnTime
from unrecall.attacks.prototypical import write
from unrecall.attacks.rea_class import ReaClass
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, Selection, iterate
from unrecall.data.request import Request, Split
from unrecall.disk.weights import digest_of
from unrecall.errors import NotSupported
from unrecall.evidence.scores import best
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.harness.audit import finding_of
from unrecall.models.observe import accuracy, mean_loss, observe
from unrecall.nn.functional import margin
from unrecall.nn.hooks import batchnorms
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

ATTACKS: list[RecoveryAttack] = [
    Relearn(steps=(1, 3), learning_rates=(1e-2, 1e-1)),
    Relearn(data="benign", steps=(1, 3), learning_rates=(1e-2,)),
    RelearnTime(fit=Fit(epochs=2)),
    Recalibration(counts=(32, 64)),
    Prototypical(ks=(1, 5)),
    Prototypical(ks=(1, 5), metric="l2"),
    UMA(radii=(1 / 255, 8 / 255), steps=5),
    ReaClass(share=0.1, steps=3, learning_rates=(1e-2,)),
]


def success(attack: RecoveryAttack, model: nn.Module, w: World) -> dict[float, float]:
    """Accuracy on the tested forget examples at each budget, the worst over variants, each while of use."""
    drawn, setting = draw_of(attack, w), setting_of(w)
    trace = best(attack.scores(Subject("model", model), drawn.pool, setting), drawn.places["forget"])
    return {budget: float(shown.mean()) for budget, shown in zip(trace.budgets[1:], trace.shown[1:], strict=True)}


def area(attack: RecoveryAttack, model: nn.Module, w: World) -> float:
    return float(np.mean(list(success(attack, model, w).values())))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def head(model: nn.Module) -> nn.Linear:
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[-1], nn.Linear)
    return model[-1]


def digests(examples: Examples) -> set[str]:
    return {digest(item) for item in iterate(examples)}


@pytest.fixture
def silenced(class_world: World) -> nn.Module:
    """A copy of the original that only looks forgetful: the forgotten class's logit is pushed down."""
    w, model = class_world, copy.deepcopy(class_world.original)
    seen = observe(model, w.task, w.request.forget)
    with torch.no_grad():
        logits = head(model)(torch.from_numpy(seen.features))
        head(model).bias[0] -= margin(logits, torch.from_numpy(seen.target)).max() + 0.1
    assert accuracy(model, w.task, w.request.forget).max() == 0
    return model


@pytest.fixture
def drifted(class_world: World) -> nn.Module:
    """A copy of the original whose running statistics, and nothing else, have moved."""
    model = copy.deepcopy(class_world.original)
    for norm in batchnorms(model):
        assert norm.running_mean is not None
        norm.running_mean += 1.5 * torch.randn(norm.running_mean.shape, generator=seeded(1))
    assert accuracy(model, class_world.task, class_world.request.forget).mean() < 0.5
    return model


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_conformance(attack: RecoveryAttack, class_world: World) -> None:
    w = class_world
    model = copy.deepcopy(w.original)
    model[0].train()  # type: ignore[index]
    before, modes = state(model), [m.training for m in model.modules()]
    pool = draw_of(attack, w).pool
    first, second = attacked(attack, model, w), attacked(attack, model, w)
    assert same(before, state(model))
    assert modes == [m.training for m in model.modules()]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert first
    for one, again in zip(first, second, strict=True):
        assert (one.budget, one.variant) == (again.budget, again.variant)
        assert same(state(one.model), state(again.model))
        assert [len(examples) for examples in one.tested] == [len(examples) for examples in pool.tested]
        if not isinstance(attack, UMA):
            assert [digests(examples) for examples in one.tested] == [digests(examples) for examples in pool.tested]
    for variant in {one.variant for one in first if not isinstance(attack, Prototypical)}:
        budgets = [one.budget for one in first if one.variant == variant]
        assert budgets == sorted(set(budgets))


def test_prototypical_writes_only_forgotten_rows(class_world: World) -> None:
    w = class_world
    (none,) = attacked(Prototypical(ks=(5,), alpha=0.0), w.original, w)
    assert same(state(none.model), state(w.original))
    (full,) = attacked(Prototypical(ks=(1,), alpha=1.0), w.original, w)
    order = torch.randperm(len(w.request.forget), generator=seeded(0)).tolist()
    feature = torch.from_numpy(observe(w.original, w.task, [w.request.forget[order[0]]]).features[0])
    assert torch.allclose(head(full.model).weight[0], feature / feature.norm(), atol=1e-6)
    assert head(full.model).bias[0] == 0
    (half,) = attacked(Prototypical(ks=(1,), alpha=0.5), w.original, w)
    middle = (head(w.original).weight[0] + head(full.model).weight[0]) / 2
    assert torch.allclose(head(half.model).weight[0], middle, atol=1e-6)
    for one in (full, half):
        changed = {
            name for name, value in one.model.state_dict().items() if not torch.equal(value, state(w.original)[name])
        }
        assert changed == {"6.weight", "6.bias"}
        assert torch.equal(head(one.model).weight[1:], head(w.original).weight[1:])
        assert torch.equal(head(one.model).bias[1:], head(w.original).bias[1:])


@pytest.mark.parametrize("bias", [True, False])
def test_prototypical_l2_is_the_distance_to_the_mean(bias: bool) -> None:
    features = torch.rand(7, 5, generator=seeded(0))
    row = Prototypical(metric="l2").prototype(features)
    linear = nn.Linear(5, 3, bias=bias)
    write(linear, {1: row}, 1.0)
    other = torch.rand(4, 5, generator=seeded(1))
    mean = features.mean(0)
    expected = other.square().sum(1) - (other - mean).square().sum(1)
    assert torch.allclose(linear(other)[:, 1], expected, atol=1e-5)


def test_prototypical_chooses_the_largest_harmless_alpha(class_world: World) -> None:
    w = class_world
    before = accuracy(w.original, w.task, w.request.retain).mean()
    for drop in (0.0, 0.01, 0.2):
        (one,) = attacked(Prototypical(ks=(5,), retain_drop=drop), w.original, w)
        chosen = float(one.variant.removeprefix("alpha="))
        allowed = []
        for alpha in [i / 10 for i in range(11)]:
            (tried,) = attacked(Prototypical(ks=(5,), alpha=alpha), w.original, w)
            if before - accuracy(tried.model, w.task, w.request.retain).mean() <= drop + 1e-9:
                allowed.append(alpha)
        assert chosen == max(allowed)


def test_prototypical_is_never_scored_on_what_it_holds(class_world: World) -> None:
    w = class_world
    pool = draw_of(Prototypical(ks=(1, 5, 10)), w).pool
    assert len(pool.taught) == 10
    assert len(pool.tested[0]) == len(w.request.forget) - 10
    assert not digests(pool.taught) & (digests(pool.tested[0]) | digests(pool.tested[1]))
    few = Request(w.request.forget, w.request.retain, w.request.holdout, w.request.test, kind="class", masked=(0, 1))
    with pytest.raises(NotSupported, match="got 0"):
        attacked(Prototypical(), w.original, replace(w, request=few))


def test_controls_of_prototypical(class_world: World, silenced: nn.Module) -> None:
    w = class_world
    assert area(Prototypical(), w.original, w) > 0.95
    assert area(Prototypical(), silenced, w) > 0.9
    assert max(area(Prototypical(), m, w) for m in w.retrained) < 0.2


def test_relearn_pools_are_disjoint(samples_world: World) -> None:
    w = samples_world
    attack = Relearn(share=0.3)
    pool = draw_of(attack, w, seed=5).pool
    assert len(pool.taught) == attack.teaches(20, w.request) == 6
    assert not digests(pool.taught) & digests(pool.tested[0])
    assert digests(pool.taught) | digests(pool.tested[0]) == digests(w.request.forget)
    again = draw_of(attack, w, seed=5).pool
    assert digests(pool.tested[0]) == digests(again.tested[0])
    benign = Relearn(data="benign")
    assert benign.teaches(20, w.request) == 0
    pool = draw_of(benign, w, seed=5).pool
    assert not digests(pool.taught)
    assert digests(pool.tested[0]) == digests(w.request.forget)


def test_relearn_starts_each_learning_rate_afresh(samples_world: World) -> None:
    w = samples_world
    both = attacked(Relearn(steps=(2, 4), learning_rates=(1e-1, 1e-2)), w.original, w)
    alone = attacked(Relearn(steps=(2, 4), learning_rates=(1e-2,)), w.original, w)
    assert [one.variant for one in both] == ["lr=0.1"] * 2 + ["lr=0.01"] * 2
    assert [one.budget for one in both] == [2, 4, 2, 4]
    assert all(same(state(x.model), state(y.model)) for x, y in zip(both[2:], alone, strict=True))


def test_relearn_survives_a_learning_rate_that_diverges(samples_world: World) -> None:
    w = samples_world
    found = attacked(Relearn(steps=(1, 30), learning_rates=(1e30, 1e-2)), w.original, w)
    assert [(one.budget, one.variant) for one in found][-2:] == [(1, "lr=0.01"), (30, "lr=0.01")]
    assert (30, "lr=1e+30") not in [(one.budget, one.variant) for one in found]


def test_relearn_can_freeze_batchnorm(samples_world: World) -> None:
    w = samples_world
    for policy, stays in (("train", False), ("frozen", True)):
        recipe = Fit(batch_size=32, batchnorm=policy)  # type: ignore[arg-type]
        (one,) = attacked(Relearn(steps=(3,), learning_rates=(1e-2,), fit=recipe), w.original, w)
        before, after = batchnorms(w.original)[0].running_mean, batchnorms(one.model)[0].running_mean
        assert torch.equal(before, after) == stays  # type: ignore[arg-type]


def test_controls_of_relearning(class_world: World, silenced: nn.Module, drifted: nn.Module) -> None:
    w = class_world
    harmful = Relearn(learning_rates=(1e-2, 1e-1))
    retrained = max(area(harmful, m, w) for m in w.retrained)
    assert area(harmful, w.original, w) > 0.95
    assert area(harmful, silenced, w) > retrained
    benign = Relearn(data="benign", steps=(8, 32), learning_rates=(1e-3, 1e-2), fit=Fit(batch_size=32))
    assert max(success(benign, drifted, w).values()) > 0.9
    assert max(area(benign, m, w) for m in w.retrained) == 0


def test_relearn_time_stops_at_the_threshold(class_world: World) -> None:
    w = class_world
    goal = 1.05 * mean_loss(w.original, w.task, w.request.forget)
    losses = []
    for one in RelearnTime().recover(w.retrained[0], draw_of(RelearnTime(), w).pool, setting_of(w)):
        losses.append(mean_loss(one.model, w.task, w.request.forget))
        assert one.budget == len(losses)
    assert losses[-1] <= goal < min(losses[:-1])
    assert len(attacked(RelearnTime(fit=Fit(epochs=2)), w.retrained[0], w)) == 2


def test_one_example_is_too_few_for_batchnorm(samples_world: World) -> None:
    w = samples_world
    alone = replace(w, request=replace(w.request, forget=Selection(w.request.forget, [0])))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    with pytest.raises(NotSupported, match="two examples or more where BatchNorm trains, got one"):
        attacked(RelearnTime(), model, alone)
    assert attacked(RelearnTime(fit=Fit(epochs=1, batchnorm="frozen")), model, alone)


def test_controls_of_relearn_time(class_world: World) -> None:
    w = class_world
    assert len(attacked(RelearnTime(), w.original, w)) == 1
    assert min(len(attacked(RelearnTime(), m, w)) for m in w.retrained) > 3


def test_recalibration_measures_the_statistics_of_the_chosen_inputs(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original)
    model.insert(6, nn.Dropout(0.5))  # type: ignore[operator]
    (one,) = attacked(Recalibration(counts=(64,)), model, w)
    order = torch.randperm(len(w.request.retain), generator=seeded(0)).tolist()[:64]
    inputs = w.task.collate([w.request.retain[i] for i in order])["inputs"]
    with torch.no_grad():
        entered = model[0](inputs)  # type: ignore[index]
    (norm,), (before,) = batchnorms(one.model), batchnorms(model)
    assert torch.allclose(norm.running_mean, entered.mean((0, 2, 3)), atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, entered.var((0, 2, 3)), atol=1e-5)  # type: ignore[arg-type]
    assert norm.momentum == before.momentum
    assert not any(m.training for m in one.model.modules())
    assert [x.budget for x in attacked(Recalibration(counts=(32, 500, 900)), model, w)] == [32, len(w.request.retain)]


def test_a_batch_of_one_is_none(samples_world: World) -> None:
    w = samples_world
    (one,), (several,) = (attacked(Recalibration((5,), batch_size=size), w.original, w) for size in (1, 2))
    assert bool(batchnorms(one.model)[0].running_var.isfinite().all())  # type: ignore[union-attr]
    assert digest_of(one.model) == digest_of(several.model), "two inputs and three"
    with pytest.raises(NotSupported, match="expected 2 inputs or more, got 1"):
        attacked(Recalibration(counts=(1,)), w.original, w)


def test_recalibration_needs_statistics(samples_world: World) -> None:
    w = samples_world
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(NotSupported, match="BatchNorm"):
        attacked(Recalibration(), plain, w)


def test_controls_of_recalibration(class_world: World, samples_world: World, drifted: nn.Module) -> None:
    assert min(success(Recalibration(), drifted, class_world).values()) > 0.9
    for w in (class_world, samples_world):
        for model in w.retrained:
            before = float(accuracy(model, w.task, w.request.forget).mean())
            assert area(Recalibration(), model, w) == pytest.approx(before, abs=0.1)


@pytest.mark.parametrize(("arm", "split"), [(0, "forget"), (1, "holdout")])
def test_uma_stays_in_the_ball_and_keeps_the_labels(samples_world: World, arm: int, split: Split) -> None:
    w = samples_world
    clean = w.task.collate(list(iterate(w.request[split])))
    for one in attacked(UMA(), w.retrained[0], w):
        moved = w.task.collate(list(iterate(one.tested[arm])))
        distance = (moved["inputs"] - clean["inputs"]).abs().max()
        assert 0 < distance <= one.budget + 1e-6
        assert 0 <= float(moved["inputs"].min()) <= float(moved["inputs"].max()) <= 1
        assert torch.equal(moved["targets"], clean["targets"])
        assert same(state(one.model), state(w.retrained[0]))


def test_controls_of_uma(class_world: World) -> None:
    w = class_world
    shy = copy.deepcopy(w.original)
    with torch.no_grad():
        head(shy).bias[0] -= 4
    attack = UMA(radii=(8 / 255, 16 / 255))
    assert area(attack, w.original, w) > 0.95
    assert area(attack, shy, w) > float(accuracy(shy, w.task, w.request.forget).mean()) + 0.1
    assert max(area(attack, m, w) for m in w.retrained) < 0.1


def test_prototypes_are_written_into_a_head_of_16_bits_too(class_world: World) -> None:
    """Features come as float32: the head answers them in that, and holds the rows in its own format."""
    w = class_world
    half = copy.deepcopy(w.original).bfloat16()
    task = replace(w.task, forward=lambda model, inputs: model(inputs.bfloat16()))  # type: ignore[type-var]
    setting = Setting(Models(half, copy.deepcopy(half)), w.request, task, session=CPU)
    rows = finding_of(Prototypical(ks=(2,)), setting).measurements
    assert any(row.unlearned.value is not None for row in rows)
