"""RepSelect: what is left of a gradient by hand, the low-rank change, and how far the budget goes."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, World
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.repselect import LowRankChange, RepSelect, collapsed, farthest
from unrecall.models.importance import mean_gradient
from unrecall.models.observe import accuracy, mean_loss
from unrecall.nn.functional import kl
from unrecall.training.disruption import disruption
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

PLAIN = Fit(lr=0.0)


def unlearned(method: RepSelect, world: World, seed: int = 0) -> nn.Module:
    return method.unlearn(world.original, Job(world.request, world.task, seeded(seed), CPU))


def turned(values: list[float], seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix [8, 12] with these singular values, and its singular vectors."""
    u, v = (torch.linalg.qr(torch.randn(n, len(values), generator=seeded(seed + n)))[0] for n in (8, 12))
    return u @ torch.diag(torch.tensor(values)) @ v.T, u, v


def test_frozen_biases_and_computed_weights_are_left_alone(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    for bias in biases:
        bias.requires_grad_(False)
    result = RepSelect().unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    after = [p for name, p in result.named_parameters() if name.endswith("bias")]
    assert all(torch.equal(a, b) and not b.requires_grad for a, b in zip(biases, after, strict=True))
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)):
        nn.utils.parametrizations.weight_norm(layer)
    with pytest.raises(NotSupported, match="expected linear layers or 2-D convolutions"):
        RepSelect().unlearn(model, Job(w.request, w.task, seeded(0), CPU))


# What is left of a gradient.


def test_main_directions_shrink_by_hand() -> None:
    """q = 2 of 8, S = 6, 2, 1: s = 3, 1. Both sides take 6 to 6 / 9, and leave 2 and 1 alone."""
    matrix, u, v = turned([6.0, 2.0, 1.0])
    left = collapsed(matrix, matrix, components=512)
    expected = u @ torch.diag(torch.tensor([6 / 9, 2.0, 1.0])) @ v.T
    assert torch.allclose(left, expected, atol=1e-4)


def test_of_another_basis_each_side_has_its_own_share() -> None:
    """G lies along the basis's first left and second right direction: s is 3 on the left alone."""
    basis, u, v = turned([6.0, 2.0, 1.0])
    matrix = 5 * torch.outer(u[:, 0], v[:, 1])
    assert torch.allclose(collapsed(matrix, basis, 512), matrix / 3, atol=1e-4)


def test_directions_of_nothing_do_not_count() -> None:
    """A rank of one has one direction, which is left as it is; no gradient stays none; a kernel is a matrix."""
    lone, _, _ = turned([6.0])
    assert torch.allclose(collapsed(lone, lone, 512), lone, atol=1e-5)
    assert torch.equal(collapsed(torch.zeros(4, 5), torch.zeros(4, 5), 512), torch.zeros(4, 5))
    matrix, _, _ = turned([6.0, 2.0, 1.0])
    kernel = matrix.view(8, 3, 2, 2)
    assert torch.allclose(collapsed(kernel, kernel, 512), collapsed(matrix, matrix, 512).view_as(kernel), atol=1e-4)


# The low-rank change.


def test_the_change_starts_at_nothing_and_adds_b_a() -> None:
    weight = torch.randn(4, 2, 3, 3, generator=seeded(0))
    change = LowRankChange(weight, r=2)
    assert torch.equal(change(weight), weight)
    with torch.no_grad():
        change.b.fill_(1.0)
    expected = weight + change.a.sum(0).expand(4, -1).view_as(weight)
    assert torch.allclose(change(weight), expected)


def test_eliciting_lowers_the_loss_of_forget_and_changes_only_its_layers(samples_world: World) -> None:
    w = samples_world
    student = copy.deepcopy(w.retrained[0]).eval()
    method = RepSelect(elicit=Fit(lr=0.05, momentum=0.0, weight_decay=0.0, batch_size=10, epochs=20))
    job = Job(w.request, w.task, seeded(0), CPU)
    elicited = method._elicited(student, ["4.weight"], job)
    assert mean_loss(elicited, w.task, w.request.forget) < 0.7 * mean_loss(student, w.task, w.request.forget)
    before = dict(student.named_parameters())
    moved = {name for name, p in elicited.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"4.weight"}
    assert torch.linalg.matrix_rank(elicited.get_parameter("4.weight") - before["4.weight"], rtol=1e-4) <= 8
    assert all(torch.equal(p, before[name]) for name, p in w.retrained[0].named_parameters())


# How far.


@pytest.mark.parametrize("first", [1e-6, 0.2, 40.0, 1e6])
def test_the_budget_is_spent_to_a_thousandth(first: float) -> None:
    """Of a square the budget 9 is spent at 3, wherever the search starts."""
    found = farthest(lambda distance: distance**2, 9.0, first)
    assert 3 * (1 - 1 / 1000) <= found <= 3


def test_too_much_at_once_is_halved_and_what_is_not_finite_is_too_much() -> None:
    assert farthest(lambda distance: math.nan if distance > 1 else 0.0, 1.0, 64.0) == pytest.approx(1.0, rel=1e-3)
    assert farthest(lambda distance: math.inf, 1.0, 1.0) == 0.0
    with pytest.raises(BadInput, match=r"RepSelect: expected a budget that can be spent, got 5\. Lower it"):
        farthest(lambda distance: 1.0, 5.0, 1.0)


def test_disruption_by_hand(text_world: World) -> None:
    """The mean over an answer's rows, then over retain, of KL from the original; 0 of the original itself."""
    w, other = text_world, text_world.retrained[0]
    measured = disruption(w.original, Job(w.request, w.task, seeded(0), CPU))
    each = []
    for i in range(len(w.request.retain)):
        batch = w.task.collate([w.request.retain[i]])
        with torch.no_grad():
            p, q = (w.task.rows(m, batch).logits.double().log_softmax(1) for m in (w.original, other))
        each.append(float(kl(p, q).mean()))
    assert measured(other) == pytest.approx(sum(each) / len(each), rel=1e-4)
    assert measured(w.original) == pytest.approx(0.0, abs=1e-9)


# The method.


def test_a_step_along_the_collapsed_gradient_that_spends_the_budget(samples_world: World) -> None:
    w = samples_world
    result = unlearned(RepSelect(kl=0.05, elicit=PLAIN), w)
    change = {name: (p - w.original.get_parameter(name)).detach() for name, p in result.named_parameters()}
    assert {name for name, c in change.items() if bool(c.any())} == {"0.weight", "4.weight"}, "all but the head"
    gradients = mean_gradient(w.original.eval(), w.task, w.request.forget)
    steps = {name: collapsed(gradients[name], gradients[name], 512) for name in ("0.weight", "4.weight")}
    shares = [(change[name].flatten() @ s.flatten() / s.norm() ** 2).item() for name, s in steps.items()]
    assert shares[0] == pytest.approx(shares[1], rel=1e-2)
    assert shares[0] > 0, "up the loss of forget"
    for name, s in steps.items():
        assert torch.allclose(change[name], shares[0] * s, atol=1e-2 * float(change[name].abs().max()))
    spent = disruption(w.original, Job(w.request, w.task, seeded(0), CPU))(result)
    assert 0.049 < spent <= 0.05
    assert mean_loss(result, w.task, w.request.forget) > mean_loss(w.original, w.task, w.request.forget)


def test_a_larger_budget_forgets_more(class_world: World) -> None:
    w = class_world
    right = [accuracy(unlearned(RepSelect(kl=b), w), w.task, w.request.forget).mean() for b in (0.01, 0.3)]
    assert right[1] < right[0]
    assert right[1] < 0.4


def test_of_a_llama_the_feed_forward_layers_alone(text_world: World) -> None:
    w = text_world
    for method, endings in [
        (RepSelect(basis="retain"), {"gate_proj", "up_proj", "down_proj"}),
        (RepSelect(target=("q_proj", "layers.0.mlp.up_proj")), {"q_proj", "up_proj"}),
    ]:
        result = unlearned(method, w)
        moved = [n for n, p in result.named_parameters() if not torch.equal(p, w.original.get_parameter(n))]
        assert {name.split(".")[-2] for name in moved} == endings
    assert len(moved) == 3, "q_proj of both layers, and one up_proj"


@pytest.mark.parametrize(
    ("parameters", "kind", "words"),
    [
        ({"target": ("q_prok",)}, BadInput, "expected target to be .*, got 'q_prok'"),
        ({"target": ("lm_head",)}, BadInput, "share no weights, got 'lm_head'"),
        ({"kl": 1e9}, BadInput, "expected a budget that can be spent"),
    ],
)
def test_refusals(text_world: World, parameters: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        unlearned(RepSelect(**parameters), text_world)


def test_refuses_a_budget_of_nothing_and_a_model_that_is_one_layer(samples_world: World) -> None:
    with pytest.raises(BadInput, match="expected kl to be"):
        RepSelect(kl=0.0)
    w, lone = samples_world, nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(NotSupported, match="RepSelect: expected linear layers or 2-D convolutions before the head"):
        RepSelect().unlearn(lone, Job(w.request, w.task, seeded(0), CPU))
