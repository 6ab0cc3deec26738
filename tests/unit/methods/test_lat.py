"""LAT: the shift by hand and by plain autograd, where its loss differs from the base's, and what it can't attack."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.laws.test_methods import hooks, same
from tests.unit.methods.test_blur import SGD, both, unlearned
from tests.unit.methods.test_language import whole
from tests.worlds import World
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import GradientMethod
from unrecall.methods.dpo import DPO
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.lat import LAT, length, shifted
from unrecall.methods.rmu import RMU
from unrecall.methods.sam import SAM
from unrecall.models.observe import mean_loss
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded


def shift(method: LAT, world: World) -> tuple[Tensor, nn.Module]:
    """The shift of all of forget, and the module that it is of."""
    model = copy.deepcopy(world.original)
    module = method._module(model, world.task)
    return method.shift(model, module, world.task, whole(world.request.forget, world.task)), module


def test_lengths_by_hand() -> None:
    assert length(torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])).flatten().tolist() == [5.0, 2.0]
    assert length(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).tolist() == [[5.0], [2.0]]
    assert length(torch.tensor([[[[3.0]], [[4.0]]]])).tolist() == [[[[5.0]]]]


def test_one_step_goes_down_the_loss_by_a_share_of_the_radius(samples_world: World) -> None:
    """Layer 1 of three gives out 32 numbers an example; the rest is two layers that are run by hand here."""
    w = samples_world
    model, batch = copy.deepcopy(w.original).eval(), whole(w.request.forget, w.task)
    method = LAT(layer=len(w.task.blocks(model)) - 2, radius=2.0, steps=1, step=0.25)
    found, module = shift(method, w)
    assert isinstance(module, nn.Linear)
    with torch.no_grad():
        hidden = model[:5](batch["inputs"])
    hidden.requires_grad_(True)
    loss = nn.functional.cross_entropy(model[5:](hidden), batch["targets"], reduction="sum")
    (gradient,) = torch.autograd.grad(loss, hidden)
    expected = -0.5 * gradient / gradient.norm(dim=1, keepdim=True)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_shift_stays_in_its_ball_spares_padding_and_lets_the_model_say_it(text_world: World) -> None:
    """A model that never met the people is made to tell of them."""
    w = text_world
    model, batch = copy.deepcopy(w.retrained[0]).eval(), whole(w.request.forget, w.task)
    method = LAT(radius=1.5)
    module = method._module(model, w.task)
    found = method.shift(model, module, w.task, batch)
    positions = w.task.positions(batch)
    assert positions is not None
    lengths = found.norm(dim=2)
    assert lengths[positions].max() <= 1.5 + 1e-4
    assert lengths[positions].max() > 1.4
    assert not bool(lengths[~positions].any())
    with torch.no_grad():
        plain = w.task.rows(model, batch).losses().mean().item()
        with shifted(module, found):
            attacked = w.task.rows(model, batch).losses().mean().item()
    assert attacked < plain / 2


def test_forget_alone_is_attacked(samples_world: World) -> None:
    """The loss is forget's under the shift, and retain's without; model, modes, gradients and hooks stay."""
    w, method = samples_world, LAT(base=GradDiff(gamma=0.3, alpha=0.7, fit=SGD), radius=3.0)
    student = copy.deepcopy(w.original).eval()
    before, given = copy.deepcopy(student), hooks(student)
    (phase,) = method.phases(student, w.original, Job(w.request, w.task, seeded(0)))
    value = phase.loss(student, both(w))
    module = method._module(student, w.task)
    delta = method.shift(student, module, w.task, both(w)["forget"])
    with shifted(module, delta):
        forget = w.task.rows(student, both(w)["forget"]).losses().mean()
    retain = w.task.rows(student, both(w)["retain"]).losses().mean()
    assert value.item() == pytest.approx(-0.3 * forget.item() + 0.7 * retain.item(), rel=1e-5)
    assert forget.item() < mean_loss(student, w.task, w.request.forget) / 2
    assert same(student, before)
    assert hooks(student) == given
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


@pytest.mark.parametrize("base", [GradDiff(fit=SGD), GradAscent(fit=SGD), RMU(fit=Fit(lr=0.01, batch_size=10))])
def test_at_a_vanishing_radius_it_is_the_base(samples_world: World, base: GradientMethod) -> None:
    near, plain = unlearned(LAT(base=base, radius=1e-8), samples_world), unlearned(base, samples_world)
    for a, b in zip(near.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_it_can_be_smoothed_too(samples_world: World) -> None:
    """SAM takes its step on the loss under attack, at its own place."""
    attacked, plain = (
        unlearned(SAM(base=base), samples_world) for base in (LAT(base=GradDiff(fit=SGD)), GradDiff(fit=SGD))
    )
    assert not same(attacked, plain)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (Finetune(), "LAT: expected a base that takes plain steps on a loss of forget, .* got Finetune"),
        (SAM(), "LAT: expected a base that takes plain steps on a loss of forget, .* got SAM"),
        (DPO(), "LAT: expected a base that sends forget through LlamaDecoderLayer once, as it is, got 2 passes"),
    ],
)
def test_refuses_what_it_cant_attack(text_world: World, base: GradientMethod, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        unlearned(LAT(base=base), text_world)


@pytest.mark.parametrize(
    ("wrong", "kind"), [({"layer": 2}, "layer to be at most 1"), ({"radius": 0.0}, "radius to be")]
)
def test_refuses_layers_and_radii_that_there_are_not(text_world: World, wrong: dict[str, Any], kind: str) -> None:
    with pytest.raises(BadInput, match=f"expected {kind}"):
        unlearned(LAT(**wrong), text_world)
