"""By hand: GIF's v, its series and its repair; and the laws of methods in the one world where it applies."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from tests.worlds.interactions import (
    Interactions,
    by_user,
    dense,
    factors,
    make_interactions_world,
    vector_of,
)
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.gif import GIF
from unrecall.models.observe import accuracy, observe
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

TASK, MODEL = Interactions(4), factors(3, 4)
BARE = GIF(damping=0.25, scale=8.0, iterations=2, repaired=0)


def change_by(method: GIF, request: Request) -> torch.Tensor:
    return vector_of(method.unlearn(MODEL, Job(request, TASK, seeded(0), CPU))) - vector_of(MODEL)


def summed(v: torch.Tensor, examples: list[dict[str, int]]) -> torch.Tensor:
    """Two terms of the series, with the Hessian as a matrix."""
    hessian = dense(MODEL, TASK, examples)[1] / len(examples)
    once = v + 0.75 * v - hessian @ v / 8
    return (v + 0.75 * once - hessian @ once / 8) / 8


def test_without_histories_the_neighbours_cancel() -> None:
    request = by_user()
    forget, retain = list(iterate(request.forget)), list(iterate(request.retain))
    expected = summed(dense(MODEL, TASK, forget)[0] / 7, forget + retain)
    assert torch.allclose(change_by(BARE, request), expected, atol=1e-6)
    assert torch.allclose(change_by(BARE.scaled(5.0), request), 5 * expected, atol=1e-6)


def test_what_a_history_loses_counts_too() -> None:
    """User 0 forgets item 0, which is in both of their histories: one loses it, the other is gone with it."""
    forget = [{"user": 0, "history": [1], "item": 0}]
    own = [{"user": 0, "history": [0, 2], "item": 1}, {"user": 0, "history": [0], "item": 3}]
    near = [{"user": 1, "history": [0], "item": 2}]
    request = Request(forget, [*own, *near, {"user": 2, "history": [], "item": 2}])
    after = [{"user": 0, "history": [2], "item": 1}]
    v = dense(MODEL, TASK, forget)[0] + dense(MODEL, TASK, own)[0] - dense(MODEL, TASK, after)[0]
    expected = summed(v / 5, list(iterate(request.forget)) + list(iterate(request.retain)))
    assert torch.allclose(change_by(BARE, request), expected, atol=1e-6)
    assert not torch.allclose(expected, summed(dense(MODEL, TASK, forget)[0] / 5, [*forget, *own, *near]), atol=1e-4)


def test_the_repair_draws_so_many_examples() -> None:
    w, session = make_interactions_world(), Session(device="cpu")
    GIF(iterations=2, repaired=32).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    edit, repair = session.efforts
    assert edit.steps == 0
    assert repair.passes >= 32 * len(w.request.forget)
    assert repair.passes < 32 * len(w.request.forget) + 128


def test_a_scale_that_is_too_small_is_refused() -> None:
    with pytest.raises(BadInput, match="scale: expected one above half"):
        change_by(GIF(damping=0.0, scale=1e-3, iterations=100, repaired=0), by_user())


def test_a_task_without_a_graph_is_refused(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="GIF: expected a task of recommendations, got Classification"):
        GIF().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


# The laws of tests/laws/test_methods.py, whose worlds all refuse it.


@pytest.fixture(scope="module")
def world() -> World:
    return make_interactions_world()


def same(first: nn.Module, second: nn.Module) -> bool:
    return torch.equal(vector_of(first), vector_of(second))


def test_laws(world: World) -> None:
    """The given model stays, the same seed gives the same weights, whatever is frozen stays frozen, and as it was."""
    model, job = copy.deepcopy(world.original), Job(world.request, world.task, seeded(0), CPU)
    model.users.requires_grad_(False)  # type: ignore[union-attr]
    before = copy.deepcopy(model)
    result = GIF(iterations=3).unlearn(model, job)
    assert same(model, before)
    assert same(result, GIF(iterations=3).unlearn(model, replace(job, generator=seeded(0))))
    assert [p.requires_grad for p in result.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(result.users.weight, before.users.weight)  # type: ignore[union-attr, arg-type]
    assert not same(result, model)
    assert not result.training


def test_it_forgets_at_some_strength(world: World) -> None:
    w = world
    before = float(observe(w.original, w.task, w.request.forget).confidence.mean())
    result = GIF(step=300.0).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert float(observe(result, w.task, w.request.forget).confidence.mean()) < before - 0.05
    known, left = (accuracy(model, w.task, w.request.retain).mean() for model in (w.original, result))
    assert left > 0.8 * known
