"""MUDMAN: the mask and both losses by hand, two of its steps against plain autograd, and that weights are put back."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.laws.test_methods import same
from tests.unit.methods.test_blur import both, unlearned
from tests.unit.methods.test_language import rows
from tests.worlds import CPU, World
from unrecall.errors import BadInput
from unrecall.methods.base import GradientMethod
from unrecall.methods.mudman import MUDMAN, agreed, at, sureness, surprise
from unrecall.models.observe import accuracy, observe
from unrecall.training.job import Job
from unrecall.training.loop import Fit, StepState, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

SGD = Fit(lr=0.5, momentum=0.0, weight_decay=0.0, batch_size=20, epochs=3)


def test_the_mask_by_hand() -> None:
    away, steady = torch.tensor([2.0, -3.0, 4.0, 0.0]), torch.tensor([1.0, -0.1, -5.0, 1.0])
    assert agreed(away, steady).tolist() == [2.0, -3.0, 0.0, 0.0]


def test_losses_by_hand() -> None:
    """Entropies of (1/2, 1/4, 1/4) and of (1/3, 1/3, 1/3): 1.5 log 2 and log 3; of targets' logs 1/2 and 1/3."""
    given = rows([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], [0, 2], (0, 1))
    assert sureness(given, {}).item() == pytest.approx(-(1.5 * math.log(2) + math.log(3)) / 2)
    assert surprise(given, {}).item() == pytest.approx(-(math.log(2) + math.log(3)) / 2)


def test_other_values_for_a_while() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    before = copy.deepcopy(model.state_dict())
    with at(model, {"0.weight": torch.tensor([[7.0]])}):
        assert model[0].weight.item() == 7
        model.train()(torch.tensor([[1.0], [5.0]]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def gradient(model: nn.Module, world: World, split: str, names: list[str], form: str = "ce") -> Tensor:
    """The gradient of CE, or of minus the entropy, in some weights, in a row."""
    said = world.task.rows(model, both(world)[split])
    log_p = said.logits.log_softmax(1)
    loss = said.losses().mean() if form == "ce" else (log_p.exp() * log_p).sum(1).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [model.get_parameter(n) for n in names])])


def put(model: nn.Module, names: list[str], values: Tensor) -> nn.Module:
    copied = copy.deepcopy(model)
    nn.utils.vector_to_parameters(values, [copied.get_parameter(n) for n in names])
    return copied


@pytest.mark.parametrize("form", ["entropy", "ce"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_two_steps_are_those_of_plain_autograd(samples_world: World, form: str, accumulate: int) -> None:
    """In eval mode throughout; the adversary starts with the model, relearns after the first step, and stays behind."""
    w, names = samples_world, ["0.weight", "4.weight"]
    method = MUDMAN(form=form, momentum=0.8, retain_weight=0.4, adversary_lr=2.0, fit=SGD)  # type: ignore[arg-type]
    student = copy.deepcopy(w.original).eval()
    (phase,) = method.phases(student, w.original, Job(w.request, w.task, seeded(0)))
    assert [n for n, p in student.named_parameters() if p.requires_grad] == names
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], 0.5)
    model = copy.deepcopy(w.original).eval()
    theta = torch.cat([model.get_parameter(n).detach().flatten() for n in names])
    phi, steady = theta, torch.zeros_like(theta)
    for number in (0, 1):
        phase.step(StepState(student, both(w), phase.loss, optimizer, None, accumulate=accumulate, number=number))
        steady = 0.8 * steady + 0.2 * gradient(put(model, names, theta), w, "retain", names)
        adversary = put(model, names, phi)
        known = gradient(adversary, w, "forget", names)
        away = -known if form == "ce" else gradient(adversary, w, "forget", names, "entropy")
        theta = theta - 0.5 * (agreed(away, steady) / away.norm() + 0.4 * steady)
        phi = phi - 2.0 * known
        result = torch.cat([student.get_parameter(n).detach().flatten() for n in names])
        assert torch.allclose(result, theta, atol=1e-5), number


def check_resumed(method: GradientMethod, world: World, folder: Path, killed_at: int) -> None:
    """A run that is killed at a step, and started again from what it kept, ends like one that is not."""

    def run(at: int | None, session: Session) -> nn.Module:
        student, generator, steps = copy.deepcopy(world.original), seeded(0), iter(range(100))
        ends = {at}  # a number itself would be part of the key
        (phase,) = method.phases(student, world.original, Job(world.request, world.task, generator))

        def step(current: StepState) -> Tensor:
            if next(steps) in ends:
                raise KeyboardInterrupt
            return phase.step(current)

        fit(student, world.task, replace(phase, step=step), generator, session)
        return student

    session = Session(folder=folder, device="cpu", every=0)
    with pytest.raises(KeyboardInterrupt):
        run(killed_at, session)
    assert list(folder.glob("*.ckpt"))
    whole = run(None, Session(device="cpu"))
    assert same(run(None, session), whole)
    assert not same(whole, world.original)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_and_resumed_gives_the_same_weights(samples_world: World, tmp_path: Path, optimizer: Any) -> None:
    """The adversary, which started before the kill, and retain's gradient are part of what is kept."""
    recipe = Fit(optimizer=optimizer, lr=0.01, momentum=0.0, weight_decay=0.0, batch_size=8, epochs=4)
    check_resumed(MUDMAN(fit=recipe, adversary_lr=0.1), samples_world, tmp_path, killed_at=7)


def test_the_adversary_starts_again_from_the_model(samples_world: World) -> None:
    """At fork=1 it never gets ahead, so that its rate says nothing; otherwise it does."""
    recipe = replace(SGD, lr=0.1)
    again = [unlearned(MUDMAN(fork=1, adversary_lr=rate, fit=recipe), samples_world) for rate in (0.0, 1.0)]
    ahead = [unlearned(MUDMAN(fork=32, adversary_lr=rate, fit=recipe), samples_world) for rate in (0.0, 1.0)]
    assert same(*again)
    assert not same(*ahead)


def test_texts_are_forgotten_by_the_gates_alone_and_retain_is_kept(text_world: World) -> None:
    w = text_world
    result = unlearned(MUDMAN(form="ce", fit=replace(MUDMAN.fit, lr=0.3)), w)
    before = dict(w.original.named_parameters())
    moved = {name.split(".")[-2] for name, p in result.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"gate_proj"}
    assert observe(result, w.task, w.request.forget).confidence.mean() < 0.6
    assert accuracy(result, w.task, w.request.retain).mean() > 0.9


class Spare(nn.Module):
    """A model with a linear layer that no pass goes through."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.spare = inner, nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        used: Tensor = self.inner(inputs)
        return used


@pytest.mark.parametrize("form", ["entropy", "ce"])
def test_a_layer_without_a_gradient_stays_and_the_others_move_as_without_it(samples_world: World, form: Any) -> None:
    w, method = samples_world, MUDMAN(form=form, fit=SGD)
    model = Spare(copy.deepcopy(w.original))
    result: Any = method.unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    assert same(result.spare, model.spare)
    assert not same(result.inner, w.original)
    assert same(result.inner, unlearned(method, w))
    with pytest.raises(BadInput, match="depends on a trainable weight"):
        replace(method, target=("spare",)).unlearn(model, Job(w.request, w.task, seeded(0), CPU))


def test_refuses_layers_that_there_are_not(text_world: World) -> None:
    with pytest.raises(BadInput, match=r"MUDMAN: expected target to be .* got 'gates'"):
        unlearned(MUDMAN(target=("gates",)), text_world)
