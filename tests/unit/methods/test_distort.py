"""Distorted weights: each form by hand, and that forget is never read."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.laws.test_methods import same
from tests.worlds import CPU, Untouchable, World
from unrecall.errors import BadInput
from unrecall.methods.distort import Distort, distance, distort
from unrecall.methods.finetune import Finetune
from unrecall.models.observe import accuracy
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

QUICK = Fit(lr=0.05, batch_size=24, epochs=4)


def layer(form: str, amount: float) -> tuple[nn.Linear, nn.Linear]:
    """A layer before and after, whose bias is frozen."""
    before = nn.Linear(50, 40)
    before.bias.requires_grad_(False)
    after = copy.deepcopy(before)
    distort(after, form, amount, seeded(0))
    assert torch.equal(after.bias, before.bias)
    return before, after


def test_noise_has_the_deviation() -> None:
    before, after = layer("noise", 0.3)
    assert float((after.weight - before.weight).detach().std()) == pytest.approx(0.3, rel=0.05)


def test_shrinking_and_dropping_by_hand() -> None:
    before, after = layer("shrink", 0.25)
    assert torch.allclose(after.weight, 0.75 * before.weight)
    before, after = layer("drop", 0.2)
    gone = after.weight == 0
    assert float(gone.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert torch.equal(after.weight[~gone], before.weight[~gone])


def test_distance_by_hand() -> None:
    """Of 2 weights and a bias, moved by 3, 0 and 4: the root of 25 / 3; its gradient at 0 is 0."""
    moved = nn.Linear(2, 1)
    before = [p.detach().clone() for p in moved.parameters()]
    at_rest = distance(moved, before)
    at_rest.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and not bool(p.grad.any()) for p in moved.parameters())
    with torch.no_grad():
        moved.weight.add_(torch.tensor([[3.0, 0.0]]))
        moved.bias.add_(4.0)
    assert distance(moved, before).item() == pytest.approx(math.sqrt(25 / 3))


def test_apart_ends_further_away_than_fine_tuning(samples_world: World) -> None:
    w, job = samples_world, Job(samples_world.request, samples_world.task, seeded(0), CPU)
    before = [p.detach() for p in w.original.parameters()]
    fit = Fit(optimizer="adam", lr=2e-3, weight_decay=0.0, batch_size=24, epochs=10)
    apart = Distort(form="apart", amount=1.0, fit=fit).unlearn(w.original, job)
    tuned = Finetune(fit=fit).unlearn(w.original, replace(job, generator=seeded(0)))
    assert distance(apart, before).item() > 1.5 * distance(tuned, before).item()
    assert accuracy(apart, w.task, w.request.retain).mean() > 0.8


@pytest.mark.parametrize("form", ["noise", "shrink", "drop"])
def test_use_comes_back(samples_world: World, form: Any) -> None:
    w = samples_world
    still = Distort(form=form, amount=0.2, fit=replace(QUICK, lr=0.0))
    job = Job(w.request, w.task, seeded(0), CPU)
    assert not same(still.unlearn(w.original, job), w.original), "weights move without a rate"
    result = Distort(form=form, amount=0.2, fit=QUICK).unlearn(w.original, job)
    assert accuracy(result, w.task, w.request.retain).mean() > 0.8


def test_forget_is_never_read(samples_world: World) -> None:
    w = samples_world
    request = w.request.only("retain")
    object.__setattr__(request, "forget", Untouchable(5))
    (phase,) = Distort().phases(copy.deepcopy(w.original), w.original, Job(request, w.task, seeded(0), CPU))
    assert set(phase.streams) == {"retain"}


@pytest.mark.parametrize("wrong", [{"form": "shrink", "amount": 1.5}, {"form": "drop", "amount": 2.0}, {"amount": 0.0}])
def test_impossible_amounts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expected amount to be"):
        Distort(**wrong)


def test_a_search_ends_where_nothing_is_left() -> None:
    assert Distort(form="shrink", amount=0.5).scaled(64).amount == 1
    assert Distort(form="noise", amount=0.5).scaled(64).amount == 32
