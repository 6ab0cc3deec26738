"""By hand: CEU's step against dense linear algebra, and the size of its noise."""

import pytest
import torch

from tests.worlds import CPU, World
from tests.worlds.interactions import (
    Interactions,
    by_user,
    dense,
    factors,
    make_interactions_world,
    pairs_of,
    vector_of,
)
from unrecall.data.examples import iterate
from unrecall.methods.certified_edge import CertifiedEdge
from unrecall.models.observe import mean_loss
from unrecall.training.job import Job
from unrecall.training.randomness import seeded

TASK, MODEL = Interactions(4), factors(3, 4)


def test_the_step_by_dense_algebra() -> None:
    """(H + damping I)^-1 (forget - what user 0 has left) / n; n = 7."""
    request = by_user()
    forget, retain = list(iterate(request.forget)), list(iterate(request.retain))
    delta = dense(MODEL, TASK, forget)[0] - dense(MODEL, TASK, pairs_of((0, 1), (0, 2)))[0]
    hessian = dense(MODEL, TASK, retain)[1] / 6
    expected = torch.linalg.solve(hessian + 2.0 * torch.eye(len(hessian)), delta) / 7
    method = CertifiedEdge(damping=2.0, sigma=0.0, iterations=500)
    result = method.unlearn(MODEL, Job(request, TASK, seeded(0), CPU))
    assert torch.allclose(vector_of(result) - vector_of(MODEL), expected, atol=1e-6)
    thrice = method.scaled(3.0).unlearn(MODEL, Job(request, TASK, seeded(0), CPU))
    assert torch.allclose(vector_of(thrice) - vector_of(MODEL), 3 * expected, atol=1e-6)


def test_the_noise_is_sigma_over_n(samples_world: World) -> None:
    """Of 5,000 weights; the step is not scaled by it, nor it by the step."""
    w = samples_world
    few = {"iterations": 2}
    still, noisy = (
        vector_of(CertifiedEdge(sigma=sigma, **few).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)))
        for sigma in (0.0, 0.5)
    )
    n = len(w.request.forget) + len(w.request.retain)
    assert float((noisy - still).std()) == pytest.approx(0.5 / n, rel=0.05)
    other = CertifiedEdge(sigma=0.5, **few).unlearn(w.original, Job(w.request, w.task, seeded(1), CPU))
    assert not torch.equal(vector_of(other), noisy), "the seed decides the noise"


def test_forget_is_known_less_and_the_rest_as_before() -> None:
    w = make_interactions_world()
    result = CertifiedEdge(damping=0.05).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    before, after = (mean_loss(model, w.task, w.request.forget) for model in (w.original, result))
    kept, left = (mean_loss(model, w.task, w.request.retain) for model in (w.original, result))
    assert after > before + 0.1
    assert left < kept + 0.1
