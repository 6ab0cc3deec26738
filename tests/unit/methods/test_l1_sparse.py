"""By hand and by law: l1-sparse, its penalty and how that fades."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unit.methods.test_distillation import same
from tests.unit.methods.test_retraining_and_ascent import CE_RETAIN, TINY, WIDE, batch_of, linear
from tests.worlds import CPU, World
from unrecall.errors import BadInput
from unrecall.methods.base import Null
from unrecall.methods.finetune import Finetune
from unrecall.methods.l1_sparse import L1Sparse, faded, l1_norm
from unrecall.training.job import Job
from unrecall.training.loop import Fit, StepState
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

FAST = Fit(lr=0.01, epochs=4, batch_size=32)


def test_the_norm_is_that_of_trainable_weights() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        model.bias.copy_(torch.tensor([-4.0, 5.0]))
    assert l1_norm(model).item() == 15
    model.bias.requires_grad_(False)
    assert l1_norm(model).item() == 6


def test_the_weight_falls_to_0_epoch_by_epoch() -> None:
    assert [faded(0.5, epoch, 4) for epoch in range(6)] == [0.5, 0.375, 0.25, 0.125, 0, 0]


@pytest.mark.parametrize(("number", "share"), [(0, 1.0), (1, 0.75), (3, 0.25), (4, 0.0)])
def test_a_steps_loss_by_hand(number: int, share: float) -> None:
    """One retain example, believed at 3/4, and weights 1, 0, 0, 1, whose absolute values sum to 2."""
    (phase,) = L1Sparse(alpha=0.1, fit=replace(FAST, lr=0.0)).phases(linear(1.0), linear(1.0), Job(TINY, WIDE))
    student = linear(1.0)
    batches = {"retain": batch_of(WIDE, TINY.retain, 1)}
    optimizer = torch.optim.SGD(student.parameters(), 0.0)
    found = phase.step(StepState(student, batches, phase.loss, optimizer, None, number=number))
    assert found.item() == pytest.approx(CE_RETAIN + 0.1 * share * 2, abs=1e-6)


def test_the_loop_says_which_step_it_is(samples_world: World) -> None:
    """The losses of a run at learning rate 0 fall with the penalty alone: 5 steps to an epoch, 4 epochs."""
    w, session = samples_world, Session(device="cpu")
    Null(L1Sparse(alpha=0.5, fit=FAST)).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    norm = l1_norm(w.original).item()
    steps = -(-len(w.request.retain) // 32)
    losses = torch.tensor(session.efforts[-1].losses).view(4, steps).mean(1)
    assert torch.allclose(losses.diff(), torch.full((3,), -0.5 * norm / 4), rtol=0.02)


def test_without_a_penalty_it_is_fine_tuning(samples_world: World) -> None:
    w = samples_world
    bare, plain = (
        method.unlearn(w.original, Job(w.request, w.task, seeded(1), CPU))
        for method in (L1Sparse(alpha=0.0, fit=FAST), Finetune(fit=FAST))
    )
    assert same(bare, plain)


def test_it_makes_weights_smaller(samples_world: World) -> None:
    w, norms = samples_world, []
    for alpha in (0.0, 1e-3, 1e-2):
        result = L1Sparse(alpha=alpha, fit=FAST).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        norms.append(l1_norm(result).item())
    assert norms[0] > norms[1] > norms[2]


def test_forget_is_never_read(samples_world: World) -> None:
    (phase,) = L1Sparse().phases(copy.deepcopy(samples_world.original), samples_world.original, _job(samples_world))
    assert list(phase.streams) == ["retain"]


def _job(world: World) -> Job:
    return Job(world.request, world.task)


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(BadInput, match="L1Sparse: expected alpha to be greater than or equal to 0, got -1"):
        L1Sparse(alpha=-1.0)
