"""By hand and by law: L2UL, its adversarial examples and what holds the weights."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import only, same, whole
from tests.worlds import CPU, World, without_retain
from unrecall.data.batches import Batch
from unrecall.errors import NotSupported
from unrecall.methods.base import Strength
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.l2ul import L2UL, Adversaries, adversaries, anchors, importance, other_answers
from unrecall.models.observe import accuracy
from unrecall.models.perturb import Walk
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

FAST = Fit(lr=5e-3, weight_decay=1e-4, epochs=200, batch_size=32, until=0.0, check_every=1)
ALONE = L2UL(per_example=0, lambda_=0.0, fit=FAST)


def crafted(world: World, per_example: int = 5, eps: float = 1.5, seed: int = 0) -> Adversaries:
    job = Job(world.request, world.task, seeded(seed))
    return adversaries(frozen_copy(world.original), job, per_example, Walk(eps, 0.1, 60, "l2"))


def right(model: nn.Module, world: World, split: str) -> float:
    return float(accuracy(model, world.task, world.request[split]).mean())  # type: ignore[index]


# What holds the weights.


def tiny() -> tuple[nn.Module, list[tuple[Tensor, int]]]:
    """z = (3 x_1, 4 x_2): its length is 5 at (1, 1) and at (1, -1)."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    return model, [(torch.tensor([1.0, 1.0]), 0), (torch.tensor([1.0, -1.0]), 1)]


def test_importance_by_hand() -> None:
    """d||z|| / dW = z x^T / ||z||: [[.6, .6], [.8, .8]] and [[.6, -.6], [-.8, .8]]; in one batch they meet signed."""
    model, data = tiny()
    task = Classification(bounds=(-1.0, 1.0))
    together = importance(model, task, data, batch_size=2)["weight"]
    assert torch.allclose(together, torch.tensor([[0.6, 0.0], [0.0, 0.8]]))
    apart = importance(model, task, data, batch_size=1)["weight"]
    assert torch.allclose(apart, torch.tensor([[0.6, 0.6], [0.8, 0.8]]))
    assert torch.allclose(anchors(model, task, data, 2)["weight"], torch.tensor([[0.25, 1.0], [1.0, 0.0]]))
    assert torch.allclose(anchors(model, task, data, 1)["weight"], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_a_short_batch_counts_by_its_size() -> None:
    """Batches of two and one: 2/3 [[.6, 0], [0, .8]] + 1/3 [[.6, .6], [.8, .8]]."""
    model, data = tiny()
    found = importance(model, Classification(bounds=(-1.0, 1.0)), [*data, data[0]], 2)["weight"]
    assert torch.allclose(found, torch.tensor([[0.6, 0.2], [0.8 / 3, 0.8]]))


def test_importance_is_that_of_eval_mode(samples_world: World) -> None:
    """By hand over batches of 8, in order, from a model that was given in train mode, and is given back in it."""
    w = samples_world
    given = copy.deepcopy(w.original).train()
    before = copy.deepcopy(given.state_dict())
    found = importance(given, w.task, w.request.forget, 8)
    assert given.training
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items()), "statistics too"

    def by_hand(model: nn.Module) -> dict[str, Tensor]:
        inputs, total = whole(w.request.forget, w.task)["inputs"], dict[str, Tensor]()
        for part in inputs.split(8):
            model.zero_grad()
            model(part).square().sum(1).sqrt().mean().backward()
            for name, p in model.named_parameters():
                assert p.grad is not None
                total[name] = total.get(name, torch.zeros_like(p)) + len(part) / len(inputs) * p.grad.abs()
        return total

    expected, training = (by_hand(one(copy.deepcopy(w.original))) for one in (nn.Module.eval, nn.Module.train))
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=1e-3, atol=1e-6), name
    assert not torch.allclose(found["0.weight"], training["0.weight"], rtol=0.1), "by each batch's own statistics"


def test_anchors_lie_between_0_and_1(samples_world: World, text_world: World) -> None:
    """And a tensor whose weights matter alike, not at all say, is held whole."""
    for w in (samples_world, text_world):
        found = anchors(w.original, w.task, w.request.forget, 8)
        assert found.keys() == dict(w.original.named_parameters()).keys()
        for value in found.values():
            assert (float(value.min()), float(value.max())) == (0.0, 1.0)
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "not": nn.Linear(2, 2)})
    task = _First(bounds=(-1.0, 1.0))
    held = anchors(model, task, tiny()[1], 2)
    assert torch.equal(held["not.weight"], torch.ones(2, 2))


class _First(Classification):
    """Classification by one of a model's two layers."""

    def rows(self, model: nn.Module, batch: Batch) -> Any:
        used: Any = model
        return super().rows(used["used"], batch)


# The adversarial examples.


def test_adversaries_hit_and_stay(class_world: World) -> None:
    """Within the ball and the bounds, and nearly all where they were sent; none is sent home."""
    w, n = class_world, 5
    made = crafted(w, n)
    assert len(made.examples) == len(made.targets) == n * len(w.request.forget)
    moved = whole(made.examples, w.task)
    clean = whole(w.request.forget, w.task)
    wished = torch.cat(list(made.targets))
    far = (moved["inputs"] - clean["inputs"].repeat_interleave(n, 0)).flatten(1).norm(dim=1)
    assert float(far.max()) <= 1.5 + 1e-5
    assert 0 <= float(moved["inputs"].min()) <= float(moved["inputs"].max()) <= 1
    assert bool((wished != clean["targets"].repeat_interleave(n)).all())
    assert set(wished.tolist()) == {1, 2, 3}
    with torch.no_grad():
        assert w.original(moved["inputs"]).argmax(1).eq(wished).float().mean() > 0.95
        assert w.original(clean["inputs"]).argmax(1).eq(0).float().mean() > 0.95
    assert not moved["inputs"][:n].diff(dim=0).flatten(1).norm(dim=1).lt(1e-3).any(), "each from a start of its own"


def test_adversaries_by_their_seed(class_world: World) -> None:
    first, again, other = (whole(crafted(class_world, 2, seed=s).examples, class_world.task) for s in (0, 0, 1))
    assert torch.equal(first["inputs"], again["inputs"])
    assert not torch.equal(first["inputs"], other["inputs"])


def test_parts_share_all_examples_among_them() -> None:
    """Ten examples in four streams; what each batch says of its index finds the target again."""
    made = Adversaries([(torch.full((1,), float(i)), 0) for i in range(10)], [torch.tensor([i]) for i in range(10)])
    parts = made.parts(4)
    assert [len(part) for part in parts.values()] == [3, 3, 2, 2]
    drawn: Batches = {name: whole(part, Classification()) for name, part in parts.items()}
    batch, targets = made.batch(drawn)
    assert sorted(targets.tolist()) == list(range(10))
    assert torch.equal(batch["inputs"].flatten(), targets.float())
    assert torch.equal(batch["index"], targets)
    assert len(made.parts(99)) == 10
    assert Adversaries((), ()).parts(8) == {}


def test_a_step_draws_eight_batches_beside_one(class_world: World) -> None:
    """40 forget examples, 20 copies each: 4 steps a pass with the defaults, as 800 examples take in batches of 256."""
    w = class_world
    method = L2UL(steps=1)
    _, phase = only(method, w)
    assert [name.split()[0] for name in phase.streams] == ["adversarial"] * 8 + ["forget"]
    session = Session(device="cpu")
    fit = replace(method.fit, epochs=1, until=None)
    replace(method, fit=fit).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    assert session.efforts[-1].steps == 4
    assert session.efforts[-1].passes == 800 + 32 + 8 + 32 + 8


# The loss.


@pytest.mark.parametrize("goal", ["misclassify", "relabel"])
def test_loss_by_hand(class_world: World, goal: Any) -> None:
    w = class_world
    method = L2UL(goal=goal, per_example=3, eps=1.0, steps=3, lambda_=0.7)
    student, phase = only(method, w, seed=4)
    start = copy.deepcopy(student)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(1)))
    given: Batches = {name: whole(data, w.task) for name, data in phase.streams.items()}
    found = phase.loss(student, given).item()
    generator = seeded(4)
    clean = whole(w.request.forget, w.task)
    expected = -F.cross_entropy(student(clean["inputs"]), clean["targets"])
    if goal == "relabel":
        labels = torch.cat(other_answers(w.original, w.task, w.request.forget, generator))
        assert not labels.eq(0).any()
        expected = F.cross_entropy(student(clean["inputs"]), labels)
    made = adversaries(frozen_copy(w.original), Job(w.request, w.task, generator), 3, Walk(1.0, 0.1, 3, "l2"))
    moved, wished = whole(made.examples, w.task)["inputs"], torch.cat(list(made.targets))
    expected = 40 / 160 * expected + 120 / 160 * F.cross_entropy(student(moved), wished)
    held = anchors(start, w.task, w.request.forget, method.fit.batch_size)
    for name, p in student.named_parameters():
        expected = expected + 0.35 * (held[name] * (p - dict(start.named_parameters())[name]) ** 2).sum()
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_without_copies_and_penalty_it_is_ascent(samples_world: World, text_world: World) -> None:
    for w in (samples_world, text_world):
        fit = Fit(lr=0.01, epochs=3, batch_size=8)
        bare = replace(ALONE, fit=fit).unlearn(w.original, Job(w.request, w.task, seeded(2), CPU))
        assert same(bare, GradAscent(fit=fit).unlearn(w.original, Job(w.request, w.task, seeded(2), CPU)))
        assert not same(bare, w.original)


def test_the_penalty_holds_weights_back(samples_world: World) -> None:
    w, moved = samples_world, []
    for lambda_ in (0.0, 1.0, 20.0):
        method = L2UL(per_example=0, lambda_=lambda_, fit=Fit(lr=5e-3, epochs=30, batch_size=32))
        result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        pairs = zip(result.parameters(), w.original.parameters(), strict=True)
        moved.append(sum(float((a - b).detach().square().sum()) for a, b in pairs))
    assert moved[0] > 1.1 * moved[1] > 1.1**2 * moved[2]


# What it does.


def test_all_of_forget_goes_wrong_and_retain_is_kept_better_than_by_ascent(class_world: World) -> None:
    """A ball of radius 1 fits inputs of 16 entries; 4 would hold nearly all there are."""
    w = class_world
    kept = []
    for method in (ALONE, L2UL(eps=1.0, fit=FAST)):
        session = Session(device="cpu")
        result = method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), session))
        assert right(result, w, "forget") == 0
        assert session.efforts[-1].steps < 100, "it stops there"
        kept.append(right(result, w, "retain"))
    assert kept[1] > kept[0] + 0.05


def test_relabelled_examples_get_their_labels(samples_world: World) -> None:
    w = samples_world
    method = L2UL(goal="relabel", per_example=0, lambda_=0.0, fit=Fit(lr=0.02, epochs=60, batch_size=32))
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(7), CPU))
    labels = torch.cat(other_answers(w.original, w.task, w.request.forget, seeded(7)))
    told = result(whole(w.request.forget, w.task)["inputs"]).argmax(1)
    assert told.eq(labels).float().mean() > 0.9
    assert right(result, w, "forget") < 0.1


def test_refuses_what_has_no_continuous_inputs(text_world: World) -> None:
    w = text_world
    with pytest.raises(NotSupported, match="L2UL: expected a task with continuous inputs, got CausalLM"):
        L2UL().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    result = L2UL(per_example=0, fit=replace(FAST, epochs=2)).unlearn(
        w.original, Job(w.request, w.task, seeded(0), CPU)
    )
    assert not same(result, w.original)


def test_refuses_what_has_no_classes_of_its_own(samples_world: World) -> None:
    class Pairs(Classification):
        rows_depend_on_batch = True

    w = samples_world
    for method in (L2UL(), L2UL(per_example=0, goal="relabel")):
        with pytest.raises(NotSupported, match="L2UL: expected rows that depend on their own example alone"):
            method.unlearn(w.original, Job(w.request, Pairs(), seeded(0), CPU))


def test_strength_is_the_rate() -> None:
    assert L2UL.strength == Strength(("fit.lr",))
    assert L2UL().scaled(2.0) == replace(L2UL(), fit=replace(L2UL().fit, lr=2e-3))
