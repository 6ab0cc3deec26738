"""Reheat: where the weights go by hand, what both ends of `keep` are, and that forget is never read."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, Untouchable, World, network
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.methods.finetune import Finetune
from unrecall.methods.reheat import Reheat, blur, noisy
from unrecall.models.observe import accuracy
from unrecall.training.fresh import reinitialise
from unrecall.training.job import Job
from unrecall.training.loop import Fit, StepState
from unrecall.training.randomness import seeded

QUICK = Fit(lr=0.05, batch_size=24, epochs=2)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_weights_move_by_hand() -> None:
    model, start = nn.Linear(2, 1), nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, -2.0]]))
        start.weight.copy_(torch.tensor([[0.0, 2.0]]))
    model.bias.requires_grad_(False)
    bias = model.bias.clone()
    blur(model, start, 0.75)
    assert model.weight.tolist() == [[3.0, -1.0]]
    assert torch.equal(model.bias, bias)  # what isn't trained stays


def test_keeping_all_is_fine_tuning_and_keeping_nothing_is_a_fresh_start(samples_world: World) -> None:
    w = samples_world
    tuned = Finetune(fit=QUICK).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    job = Job(w.request, w.task, seeded(0), CPU)
    reinitialise(copy.deepcopy(w.original), job.generator)  # which draws a seed before the loop does
    assert same(
        Reheat(keep=1.0, fit=QUICK).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)),
        Finetune(fit=QUICK).unlearn(w.original, job),
    )
    still = Reheat(keep=0.0, fit=replace(QUICK, lr=0.0))
    others = [still.unlearn(m, Job(w.request, w.task, seeded(0), CPU)) for m in (w.original, network(seed=5))]
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in others), strict=True))
    assert not same(others[0], tuned)


def test_noise_by_hand() -> None:
    """One step of rate 1 on a loss of gradient (3, 4): the root mean square is (25/2)^(1/2); the next draws another."""
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)

    def loss(model: nn.Module, _: object) -> Tensor:
        return (model.weight * torch.tensor([[3.0, 4.0]])).sum()  # type: ignore[operator]

    for number in (0, 1):
        before = model.weight.detach().clone()
        noisy(0.2, 7)(StepState(model, {}, loss, optimizer, None, number=number))
        drawn = torch.randn(1, 2, generator=seeded(7 + number))
        expected = before - torch.tensor([[3.0, 4.0]]) - 0.2 * 12.5**0.5 * drawn
        assert torch.allclose(model.weight, expected, atol=1e-5)


def test_noise_is_drawn_from_the_seed_and_none_by_default(samples_world: World) -> None:
    w = samples_world
    first, second, without = (
        Reheat(noise=noise, fit=QUICK).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        for noise in (1, 1, 0)
    )
    assert same(first, second)
    assert not same(first, without)
    assert accuracy(first, w.task, w.request.retain).mean() > 0.6


def test_forget_is_never_read(samples_world: World) -> None:
    w = samples_world
    request = w.request.only("retain")
    object.__setattr__(request, "forget", Untouchable(5))
    student = copy.deepcopy(w.original)
    (phase,) = Reheat().phases(student, w.original, Job(request, w.task, seeded(0), CPU))
    assert set(phase.streams) == {"retain"}


def test_a_class_is_gone_and_the_others_are_not(class_world: World) -> None:
    w = class_world
    result = Reheat(fit=Fit(lr=0.1, batch_size=24, epochs=4, schedule="cosine")).unlearn(
        w.original, Job(w.request, w.task, seeded(0), CPU)
    )
    assert accuracy(result, w.task, w.request.forget).mean() < 0.1
    assert accuracy(result, w.task, w.request.retain).mean() > 0.85


def test_a_checkpoint_to_move_towards(samples_world: World, tmp_path: Path) -> None:
    w, base = samples_world, network(seed=7)
    weights.save(base, tmp_path / "base.safetensors")
    method = Reheat(keep=0.0, towards=str(tmp_path / "base.safetensors"), fit=replace(QUICK, lr=0.0))
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), base.parameters(), strict=True))
    with pytest.raises(BadInput, match=r"none.safetensors"):
        Reheat(towards=str(tmp_path / "none.safetensors"))
