"""By hand and by law: importance, and SSD, which edits weights by it."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import same, statistics, whole
from tests.worlds import CPU, World
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput
from unrecall.methods.ssd import SSD
from unrecall.models import importance
from unrecall.tasks import Classification
from unrecall.tasks.base import Task
from unrecall.tasks.pretrained import checkpoint
from unrecall.training.job import Job
from unrecall.training.randomness import seeded

# Importance.


def loop(model: nn.Module, task: Task, examples: Examples) -> dict[str, Tensor]:
    """Mean squared gradient by plain autograd, one example at a time."""
    model = copy.deepcopy(model).eval()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(examples)):
        loss = F.cross_entropy(task.rows(model, task.collate([examples[i]])).logits, torch.tensor([examples[i][1]]))
        for name, g in zip(total, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            total[name] += g.square() / len(examples)
    return total


@pytest.mark.parametrize("chunk", [None, 1, 7, 160])
def test_exact_importance_is_the_loop_of_one(samples_world: World, chunk: int | None) -> None:
    w = samples_world
    model = copy.deepcopy(w.original).train()
    before = copy.deepcopy(model)
    expected = loop(w.original, w.task, w.request.retain)
    found = importance.exact(model, w.task, w.request.retain, chunk)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=1e-5, atol=1e-5 * float(expected[name].max()))
    assert same(model, before)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_exact_importance_of_convolutions_of_all_kinds() -> None:
    """Stride, dilation, padding, groups, bias, and outputs on both sides of the size where convolutions stay."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding="same", groups=2),
            nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1)),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 3, 3, stride=2, bias=False),
            nn.Flatten(),
            nn.LazyLinear(3),
        )
        data = [(torch.rand(2, 12, 9), i % 3) for i in range(5)]
        model(data[0][0][None])
    expected = loop(model, Classification(), data)
    for name, value in importance.exact(model, Classification(), data).items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].max()))


def test_batch_importance_is_its_definition(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original).eval()
    data = whole(w.request.forget, w.task)
    parts = [slice(0, 8), slice(8, 16), slice(16, 20)]
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for part in parts:
        loss = F.cross_entropy(model(data["inputs"][part]), data["targets"][part])
        for name, g in zip(expected, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            expected[name] += g.square() / 3
    found = importance.batch_mean(w.original, w.task, w.request.forget, 8)
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6 * float(expected[name].max()))
    ones = importance.batch_mean(w.original, w.task, w.request.forget, 1)
    exact = importance.exact(w.original, w.task, w.request.forget)
    for name, value in ones.items():
        assert torch.allclose(value, exact[name], rtol=1e-4, atol=1e-5 * float(exact[name].max()))


class Smoothed(Classification):
    """A user's task, whose loss is another than its rows show."""

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["inputs"]), batch["targets"], label_smoothing=0.2, reduction="none")


def test_a_loss_of_the_users_own_is_what_is_differentiated(samples_world: World) -> None:
    w, task = samples_world, Smoothed()
    model = copy.deepcopy(w.original).eval()
    batch = task.collate(list(w.request.forget))  # type: ignore[call-overload]
    expected = torch.autograd.grad(task.losses(model, batch).mean(), list(model.parameters()))
    plain = importance.mean_gradient(model, w.task, w.request.forget)
    own = importance.mean_gradient(model, task, w.request.forget)
    squared = importance.batch_mean(model, task, w.request.forget, len(w.request.forget))
    for (name, value), wanted in zip(own.items(), expected, strict=True):
        assert torch.allclose(value, wanted, atol=1e-6)
        assert torch.allclose(squared[name], wanted.square(), atol=1e-6)
    assert not all(torch.allclose(own[name], plain[name], atol=1e-4) for name in own)


def test_mean_gradient_does_not_depend_on_batches(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original).eval()
    data = whole(w.request.retain, w.task)
    loss = F.cross_entropy(model(data["inputs"]), data["targets"])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for value, wanted in zip(importance.mean_gradient(model, w.task, w.request.retain).values(), expected, strict=True):
        assert torch.allclose(value, wanted, atol=1e-6)


def test_importance_is_of_trainable_weights_alone(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original).requires_grad_(False)
    with pytest.raises(BadInput, match="trainable"):
        importance.exact(model, w.task, w.request.forget)
    model[6].requires_grad_(True)  # type: ignore[index]
    assert list(importance.exact(model, w.task, w.request.forget)) == ["6.weight", "6.bias"]


@dataclass(frozen=True)
class Ragged(Classification):
    """An example of class k has k + 1 rows: how many rows a batch has depends on the data."""

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        n = len(batch["inputs"])
        counted = (torch.arange(3) <= batch["targets"][:, None]).flatten()
        example = torch.arange(n).repeat_interleave(3)[counted]
        return Rows(model(batch["inputs"]).flatten(0, 1)[counted], batch["targets"][example], example, n)

    def view(self, model: nn.Module, batch: Batch) -> View:
        return View(self.rows(model, batch), batch["inputs"].flatten(1))

    def check(self, model: nn.Module, request: Request) -> None:
        """Nothing is looked for: outputs have a dimension more than those of other classifiers."""


def test_importance_where_vmap_can_not_follow() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model, data = nn.Linear(2, 3), [(torch.rand(3, 2), i % 3) for i in range(6)]
    task, expected = Ragged(), torch.zeros(3, 2)
    for item in data:
        loss = task.rows(model, task.collate([item])).losses().mean()
        expected += torch.autograd.grad(loss, model.weight)[0].square() / 6
    assert torch.allclose(importance.exact(model, task, data)["weight"], expected, atol=1e-6)


# SSD.


def line() -> tuple[nn.Linear, Request]:
    """Two weights, no bias: z = (w_0 x, w_1 x). The gradient of CE at target y is (q - onehot_y) x."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[1.0], [-1.0]])
    forget = [(torch.tensor([1.0]), 1)]
    retain = [(torch.tensor([0.1]), 0), (torch.tensor([0.2]), 0), (torch.tensor([0.3]), 0)]
    spare = [(torch.tensor([0.4]), 0)], [(torch.tensor([0.5]), 0)]
    return model, Request(forget, retain, *spare, kind="class", masked=(1,))


@pytest.mark.parametrize(("against", "divisor"), [("all", 4), ("retain", 3)])
def test_ssd_by_hand(against: Any, divisor: int) -> None:
    model, request = line()
    p = torch.sigmoid(torch.tensor(2.0))  # q_0 at x = 1
    mine = p**2  # both weights: q_0 - 0 and q_1 - 1 = -q_0
    theirs = sum((1 - torch.sigmoid(torch.tensor(2 * x))) ** 2 * x**2 for x in (0.1, 0.2, 0.3))
    total = (theirs + (mine if against == "all" else 0)) / divisor
    ratio = mine / total
    for alpha, lam in [(float(ratio) * 0.99, 1.0), (float(ratio) * 0.99, 0.5), (float(ratio) * 1.01, 1.0)]:
        method = SSD(alpha=alpha, dampening=lam, against=against, importance="exact")
        result = method.unlearn(model, Job(request, Classification(), seeded(0), CPU))
        factor = min(lam / float(ratio), 1.0) if alpha < float(ratio) else 1.0
        assert torch.allclose(result.weight, model.weight * factor, rtol=1e-5)  # type: ignore[arg-type]
    assert torch.equal(model.weight, torch.tensor([[1.0], [-1.0]]))


@pytest.mark.parametrize("against", ["all", "retain"])
def test_ssd_squares_gradients_of_batches_unless_told_otherwise(against: Any) -> None:
    model, request = line()
    mine = float(torch.sigmoid(torch.tensor(2.0)))
    first, second, third = (-float(1 - torch.sigmoid(torch.tensor(2 * x))) * x for x in (0.1, 0.2, 0.3))
    last = (third + mine) / 2 if against == "all" else third
    ratio = mine**2 / ((((first + second) / 2) ** 2 + last**2) / 2)
    for alpha, factor in [(ratio * 0.99, 1 / ratio), (ratio * 1.01, 1.0)]:
        method = SSD(alpha=alpha, against=against, batch_size=2)
        result = method.unlearn(model, Job(request, Classification(), seeded(0), CPU))
        assert torch.allclose(result.weight, model.weight * factor, rtol=1e-5)  # type: ignore[arg-type]


def test_ssd_never_enlarges_a_weight_and_keeps_statistics(class_world: World) -> None:
    w = class_world
    for form in ("exact", "batch"):
        method = SSD(alpha=0.01, dampening=0.1, importance=form, batch_size=16)
        result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        before = dict(w.original.named_parameters())
        assert all(bool((p.abs() <= before[name].abs()).all()) for name, p in result.named_parameters())
        assert not same(result, w.original)
        assert all(map(torch.equal, statistics(result), statistics(w.original)))


def test_exact_ssd_can_not_choose_with_a_tenth_to_forget(class_world: World) -> None:
    w = class_world
    assert same(SSD(importance="exact").unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)), w.original)


def test_gradient_checkpointing_that_was_left_on_changes_nothing(text_world: World) -> None:
    """Transformers makes embeddings require gradients by a hook, at which `torch.func` fails; the hook stays there."""
    w = text_world
    model = copy.deepcopy(w.original)
    checkpoint(model)
    hooks = [len(module._forward_hooks) for module in model.modules()]
    assert sum(hooks)
    own, plain = (importance.exact(m, w.task, w.request.forget) for m in (model, w.original))
    assert all(torch.allclose(own[name], plain[name]) for name in plain)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
