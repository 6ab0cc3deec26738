"""One logistic regression a class on fixed features: its optimum, and Newton steps that take examples out of it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class OneVsRest:
    """A sum of losses over n examples, one regression a class, in float64.

        L(W) = sum_i sum_k log(1 + exp(-y_ik x_i w_k)) + n penalty / 2 |W|^2 + <noise, W>

    `features` `[n, d]` are x; `signs` `[n, k]` are y, 1 for an example's own class and -1 for the others; W is
    `[d, k]`, and `noise` is shaped like it.
    """

    features: Tensor
    signs: Tensor
    penalty: float
    noise: Tensor

    @staticmethod
    def of(features: Tensor, labels: Tensor, penalty: float, noise: Tensor) -> "OneVsRest":
        """The same from labels `[n]` in 0..k-1."""
        signs = 2 * F.one_hot(labels, noise.shape[1]).double() - 1
        return OneVsRest(features.double(), signs, penalty, noise.double())

    def part(self, first: int, last: int) -> "OneVsRest":
        """The objective over the examples `first` to `last` alone, with the same noise."""
        return OneVsRest(self.features[first:last], self.signs[first:last], self.penalty, self.noise)

    def gradient(self, weight: Tensor) -> Tensor:
        """Computes dL/dW `[d, k]`, without the noise."""
        pull = -self.signs * torch.sigmoid(-self.signs * (self.features @ weight))
        return self.features.T @ pull + len(self.features) * self.penalty * weight

    def hessian(self, column: Tensor) -> Tensor:
        """Computes the second derivative `[d, d]` in the weights `[d]` of one class."""
        p = torch.sigmoid(self.features @ column)
        squares = (self.features * (p * (1 - p))[:, None]).T @ self.features
        squares.diagonal().add_(len(self.features) * self.penalty)
        return squares

    def optimum(self) -> Tensor:
        """Finds the W that minimises L, class by class."""
        return torch.stack([self._optimum(k) for k in range(self.signs.shape[1])], 1)

    def _optimum(self, k: int) -> Tensor:
        from scipy.optimize import minimize

        column = OneVsRest(self.features, self.signs[:, k : k + 1], self.penalty, self.noise[:, k : k + 1])

        def tensor(w: np.ndarray) -> Tensor:
            return torch.from_numpy(w).to(column.features)

        def value(w: np.ndarray) -> tuple[float, np.ndarray]:
            weight = tensor(w)[:, None]
            losses = F.softplus(-column.signs * (column.features @ weight)).sum()
            total = losses + len(column.features) * column.penalty / 2 * weight.square().sum()
            gradient = column.gradient(weight) + column.noise
            return float(total + (column.noise * weight).sum()), gradient[:, 0].cpu().numpy()

        def curvature(w: np.ndarray) -> np.ndarray:
            return column.hessian(tensor(w)).cpu().numpy()

        start = np.zeros(len(column.noise))
        result = minimize(value, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-8})
        return tensor(result.x)


class Removal(NamedTuple):
    """Weights `[d, k]` after a Newton step, and what the gradient of each class' objective can be there, `[k]`."""

    weight: Tensor
    bound: Tensor


def removed(weight: Tensor, forget: OneVsRest, retain: OneVsRest) -> Removal:
    """Takes the examples of `forget` out of `weight`, which minimises the objective over them and those of `retain`.

        w_k <- w_k + s_k,    s_k = H_k^-1 dL_forget/dw_k,    H_k: the Hessian over retain at w_k
        |dL_retain/dw_k| <= 1/4 |s_k| |X s_k| |X|_2,         X: the features of retain

    The bound is that of Guo et al.'s Corollary 1, for several examples at once; where `weight` was no optimum to begin
    with, what its gradient was comes on top.
    """
    push = forget.gradient(weight)
    halves = [torch.linalg.cholesky(retain.hessian(column)) for column in weight.T]
    steps = torch.cat([torch.cholesky_solve(p[:, None], half) for p, half in zip(push.T, halves, strict=True)], 1)
    largest = torch.linalg.eigvalsh(retain.features.T @ retain.features)[-1].clamp_min(0).sqrt()
    bound = steps.norm(dim=0) * (retain.features @ steps).norm(dim=0) * largest / 4
    return Removal(weight + steps, bound)
