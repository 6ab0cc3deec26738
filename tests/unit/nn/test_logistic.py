"""One regression a class: by hand, against scikit-learn's optimum, and the bound of a removal."""

import math

import pytest
import torch

from unrecall.nn.logistic import OneVsRest, removed
from unrecall.training.randomness import seeded


def data(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of five numbers around three centres."""
    generator = seeded(seed)
    labels = torch.arange(n) % 3
    centres = torch.randn(3, 5, generator=seeded(9))
    return centres[labels] + torch.randn(n, 5, generator=generator), labels


def objective(n: int, noise: float = 0.0, penalty: float = 0.05) -> OneVsRest:
    features, labels = data(n)
    return OneVsRest.of(features, labels, penalty, noise * torch.randn(5, 3, generator=seeded(1)))


def scikit(of: OneVsRest) -> torch.Tensor:
    """The optimum that scikit-learn finds without noise."""
    from sklearn.linear_model import LogisticRegression

    fits = [
        LogisticRegression(
            C=1 / (len(of.features) * of.penalty), fit_intercept=False, tol=1e-12, solver="newton-cholesky"
        ).fit(of.features.numpy(), of.signs[:, k].numpy())
        for k in range(of.signs.shape[1])
    ]
    return torch.tensor([fit.coef_[0].tolist() for fit in fits]).double().T


def test_gradient_and_hessian_by_hand() -> None:
    """One example x = 2 of class 0 of two, w = (0.5, 1): z = (1, 2)."""
    of = OneVsRest.of(torch.tensor([[2.0]]), torch.tensor([0]), 0.1, torch.tensor([[7.0, 7.0]]))
    weight = torch.tensor([[0.5, 1.0]]).double()
    first, second = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-2.0))
    expected = torch.tensor([[2 * (first - 1) + 0.1 * 0.5, 2 * second + 0.1 * 1.0]]).double()
    assert torch.allclose(of.gradient(weight), expected)
    assert float(of.hessian(weight[:, 1])) == pytest.approx(4 * second * (1 - second) + 0.1)


def test_optimum_is_that_of_scikit_learn() -> None:
    of = objective(60)
    assert torch.allclose(of.optimum(), scikit(of), atol=1e-6)


def test_noise_pulls_the_optimum() -> None:
    of = objective(60, noise=2.0)
    assert float((of.gradient(of.optimum()) + of.noise).norm()) < 1e-6


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("count", [1, 12])
def test_a_removal_is_retraining_to_within_its_bound(noise: float, count: int) -> None:
    """The gradient that is left is below the bound, and the weights are as near as n lambda makes that."""
    whole = objective(120, noise)
    gone, left = whole.part(0, count), whole.part(count, 120)
    before = whole.optimum()
    after = removed(before, gone, left)
    residual = (left.gradient(after.weight) + left.noise).norm(dim=0)
    assert bool((residual <= after.bound + 1e-7).all())
    distance = (after.weight - left.optimum()).norm(dim=0)
    assert bool((distance <= after.bound / (len(left.features) * left.penalty) + 1e-7).all())
    assert float(distance.norm()) < float((before - left.optimum()).norm()) / 5


def test_the_bound_by_hand() -> None:
    """In one dimension: 1/4 |s| |s| |x|_2 |x|_2."""
    of = OneVsRest.of(torch.tensor([[1.0], [2.0], [2.0]]), torch.tensor([0, 0, 1]), 0.5, torch.zeros(1, 2))
    weight = of.optimum()
    after = removed(weight, of.part(0, 1), of.part(1, 3))
    step = (after.weight - weight)[0]
    assert torch.allclose(after.bound, step.square() * 8 / 4)
    assert torch.allclose(step, of.part(0, 1).gradient(weight)[0] / torch.stack(
        [of.part(1, 3).hessian(weight[:, k])[0, 0] for k in range(2)]
    ))  # fmt: skip
