"""Influence unlearning by hand, and where it leads on a convex model."""

import math

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.methods.influence import Influence
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.randomness import seeded


def line() -> tuple[nn.Linear, Request]:
    """z = (w_0 x, w_1 x), the gradient of CE at target y is (p - onehot_y) x."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[1.0], [-1.0]])
    forget, retain = [(torch.tensor([1.0]), 1)], [(torch.tensor([0.25]), 0), (torch.tensor([0.5]), 0)]
    return model, Request(forget, retain, kind="class", masked=(1,))


@pytest.mark.parametrize(("alpha", "damping"), [(1.0, 1.0), (3.0, 0.01)])
def test_step_by_hand(alpha: float, damping: float) -> None:
    """All gradients are multiples g of (1, -1), on which H is damping + 2 mean(g^2)."""
    model, request = line()
    p = {x: 1 / (1 + math.exp(-2 * x)) for x in (0.25, 0.5, 1.0)}
    forget, retain = p[1.0], [(p[x] - 1) * x for x in (0.25, 0.5)]
    push = forget / 3 - sum(retain) / (3 * 2)
    step = alpha * push / (damping + 2 * sum(g * g for g in retain) / 2)
    job = Job(request, Classification(bounds=(0.0, 1.0)), seeded(0), CPU)
    result = Influence(alpha=alpha, damping=damping).unlearn(model, job)
    expected = torch.tensor([[1.0 + step], [-1.0 - step]])
    assert torch.allclose(result.weight, expected, rtol=1e-5)  # type: ignore[arg-type]
    assert job.session.efforts[-1].passes >= 5


def test_hessian_is_of_a_sample(samples_world: World) -> None:
    w = samples_world
    results = [
        Influence(examples=n).unlearn(w.original, Job(w.request, w.task, seeded(s), CPU))
        for n, s in ((10, 0), (10, 0), (10, 1), (10_000, 0))
    ]
    first, again, other, whole = (nn.utils.parameters_to_vector(model.parameters()) for model in results)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, whole)


def test_what_can_not_be_held_is_refused(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match=r"Influence: expected per-example gradients of at most 0.0001 GB"):
        Influence(memory=1e-4).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_pairs_have_no_losses_of_their_own(pairs_world: World) -> None:
    w = pairs_world
    with pytest.raises(NotSupported, match="Influence: expected rows that depend on their own example alone"):
        Influence().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
