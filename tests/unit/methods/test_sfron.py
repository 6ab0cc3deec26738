"""SFR-on: the weights of a batch by hand, and its two steps against plain autograd."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from tests.unit.methods.test_blur import both, flat
from tests.worlds import CPU, World
from unrecall.data.signals import Rows
from unrecall.methods.sfron import SFRon
from unrecall.models.importance import batch_mean
from unrecall.training.job import Job
from unrecall.training.loop import Fit, StepState
from unrecall.training.randomness import seeded

FIT = Fit(lr=0.5, momentum=0.0, weight_decay=0.0, batch_size=20, epochs=8, steps=8)


def state_after(method: SFRon, world: World, number: int) -> nn.Module:
    """The weights after one step, the `number`-th of eight, in eval mode throughout."""
    student = copy.deepcopy(world.original).eval()
    (phase,) = method.phases(student, world.original, Job(world.request, world.task, seeded(0), CPU))
    optimizer = torch.optim.SGD(student.parameters(), 0.5)
    phase.step(StepState(student, both(world), phase.loss, optimizer, None, number=number))
    return student


def by_hand(world: World, size: float, clip: float, gamma: float) -> Tensor:
    """Half the clipped, masked gradient of forget up, then half of retain's down."""
    model, task, request = copy.deepcopy(world.original).eval(), world.task, world.request
    own, others = (batch_mean(model, task, split, 20) for split in (request.forget, request.retain))
    losses = task.rows(model, both(world)["forget"]).losses()
    weights = losses.detach() ** -0.5
    gradient = torch.autograd.grad((weights / weights.sum() * losses).sum() * size, list(model.parameters()))
    masked = [g * (own[n] >= gamma * others[n]) for (n, _), g in zip(model.named_parameters(), gradient, strict=True)]
    norm = float(torch.cat([g.flatten() for g in masked]).norm())
    with torch.no_grad():
        for p, g in zip(model.parameters(), masked, strict=True):
            p.add_(0.5 * g * min(1.0, clip / norm))
    loss = task.rows(model, both(world)["retain"]).losses().mean()
    down = torch.autograd.grad(loss, list(model.parameters()))
    return flat(model) - 0.5 * torch.cat([g.flatten() for g in down])


@pytest.mark.parametrize(("clip", "gamma"), [(7.0, 1.0), (1e-3, 1.0), (7.0, 0.0)], ids=["as it is", "clipped", "free"])
def test_a_step_of_forget_comes_before_one_of_retain(class_world: World, clip: float, gamma: float) -> None:
    method = SFRon(alpha=2.0, ascent_clip=clip, gamma=gamma, fit=FIT)
    size = 2 * (1 + math.cos(math.pi * 5 / 8)) / 2  # the sixth of eight
    expected = by_hand(class_world, size, clip, gamma)
    assert torch.allclose(flat(state_after(method, class_world, 5)), expected, atol=1e-5)


def test_between_them_retain_alone_is_learned(class_world: World) -> None:
    w = class_world
    model = copy.deepcopy(w.original).eval()
    loss = w.task.rows(model, both(w)["retain"]).losses().mean()
    down = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    for number in (1, 4, 6):
        assert torch.allclose(flat(state_after(SFRon(fit=FIT), w, number)), flat(model) - 0.5 * down, atol=1e-6)


def test_what_is_least_forgotten_is_pushed_most() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.1, 0.9]])).requires_grad_()
    rows = Rows(logits, torch.tensor([0, 0]), torch.tensor([0, 1]), 2)
    losses = [-math.log(0.9), -math.log(0.1)]
    weights = [loss**-0.5 for loss in losses]
    value = SFRon()._weighted(rows, None)
    assert value.item() == pytest.approx(sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights))
    value.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum().item() == pytest.approx(2 * 0.1 * weights[0] / sum(weights), rel=1e-5)
