"""By hand: IDEA's noise, and its step against dense linear algebra."""

import math

import pytest
import torch

from tests.worlds import CPU, World
from tests.worlds.interactions import Interactions, by_user, dense, factors, pairs_of, vector_of
from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.methods.idea import IDEA
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

TASK, MODEL = Interactions(4), factors(3, 4)


def test_the_deviation_by_hand() -> None:
    """zeta = 0.01 |x|; sqrt(2 ln 125) = 3.1075; at |x| = 1 that asks for 0.31, at 0.1 for less than sigma."""
    assert IDEA().deviation(1.0) == pytest.approx(0.01 * 3.1075 / 0.1, rel=1e-4)
    assert IDEA().deviation(0.1) == 0.1
    assert IDEA(sigma=0.0).deviation(0.1) == pytest.approx(0.031075, rel=1e-4)
    assert IDEA(epsilon=1.0, sigma=0.0).deviation(1.0) == pytest.approx(0.031075, rel=1e-4)
    stricter = IDEA(delta=1e-5, sigma=0.0).deviation(1.0) / IDEA(sigma=0.0).deviation(1.0)
    assert stricter == pytest.approx(math.sqrt(math.log(1.25e5) / math.log(125)))


def test_the_step_by_dense_algebra() -> None:
    """After 100 terms the series is (H + damping I)^-1 b, without noise to speak of."""
    request = by_user()
    forget, retain = list(iterate(request.forget)), list(iterate(request.retain))
    right = (dense(MODEL, TASK, forget)[0] - dense(MODEL, TASK, pairs_of((0, 1), (0, 2)))[0]) / 7
    hessian = dense(MODEL, TASK, retain)[1] / 6
    expected = torch.linalg.solve(hessian + 2.0 * torch.eye(len(hessian)), right)
    method = IDEA(damping=2.0, sigma=0.0, epsilon=1e9, iterations=100, repaired=0)
    result = method.unlearn(MODEL, Job(request, TASK, seeded(0), CPU))
    assert torch.allclose(vector_of(result) - vector_of(MODEL), expected, atol=1e-6)


def test_one_term_by_hand() -> None:
    """x_1 / scale = (2 b - (H + damping I) b / scale) / scale."""
    request = by_user()
    forget, retain = list(iterate(request.forget)), list(iterate(request.retain))
    right = (dense(MODEL, TASK, forget)[0] - dense(MODEL, TASK, pairs_of((0, 1), (0, 2)))[0]) / 7
    hessian = dense(MODEL, TASK, retain)[1] / 6 + 0.5 * torch.eye(len(right))
    method = IDEA(damping=0.5, scale=4.0, sigma=0.0, epsilon=1e9, iterations=1, repaired=0)
    result = method.unlearn(MODEL, Job(request, TASK, seeded(0), CPU))
    expected = (2 * right - hessian @ right / 4) / 4
    assert torch.allclose(vector_of(result) - vector_of(MODEL), expected, atol=1e-6)


def test_the_noise_is_on_every_weight(samples_world: World) -> None:
    w = samples_world
    method = IDEA(sigma=0.2, epsilon=1e9, iterations=1, step=1e-6, repaired=0)
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert float((vector_of(result) - vector_of(w.original)).std()) == pytest.approx(0.2, rel=0.05)


def test_the_curvature_is_drawn_anew_each_time() -> None:
    """Three examples of six: another seed draws others, and gives another step."""
    method = IDEA(damping=2.0, sigma=0.0, epsilon=1e9, iterations=5, sampled=3, repaired=0)
    first, again, other = (
        vector_of(method.unlearn(MODEL, Job(by_user(), TASK, seeded(seed), CPU))) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert float((first - other).norm()) > 1e-5


def test_the_repair_comes_last() -> None:
    session = Session(device="cpu")
    IDEA(iterations=2).unlearn(MODEL, Job(by_user(), TASK, seeded(0), session))
    edit, repair = session.efforts
    assert edit.steps == 0
    assert edit.passes > 2 * 6
    assert 128 <= repair.passes <= 128 + 6


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_a_delta_that_is_no_probability_is_refused(delta: float) -> None:
    with pytest.raises(BadInput, match="IDEA: expected delta to be"):
        IDEA(delta=delta)
