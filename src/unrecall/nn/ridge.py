"""Ridge regression in closed form, with every leave-one-out prediction, and a classifier made of it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, as shares of the largest eigenvalue of the features' scatter matrix."""


@dataclass(frozen=True)
class Ridge:
    """A linear map, in float64: `x` `[n, d]` becomes `x @ weight + bias` `[n, k]`.

    `penalty`: on the squared weights, beside a sum of squares. `left_out` [n, k]: what is predicted for each example
    that it was fitted to by the map that is fitted to all others.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    left_out: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Its outputs for `x`."""
        return x.double() @ self.weight + self.bias

    def times(self, scale: float) -> "Ridge":
        """The map whose outputs are `scale` times as large."""
        return Ridge(self.weight * scale, self.bias * scale, self.penalty, self.left_out * scale)


def ridge(
    features: Tensor, targets: Tensor, weights: Tensor | None = None, penalties: tuple[float, ...] = PENALTIES
) -> Ridge:
    """Fits `targets` [n, k] to `features` [n, d] by weighted least squares; the bias is not penalised.

        W, b = argmin  sum_i w_i |y_i - x_i W - b|^2 + penalty |W|^2
        left out:  y_i - (y_i - x_i W - b) / (1 - h_i),    h_i: the leverage of example i, its bias' share included

    The penalty is the one of `penalties`, each times the largest eigenvalue of the weighted and centred features'
    scatter matrix, whose leave-one-out predictions have the smallest weighted squared error (PRESS).

    Reference: Allen, "The Relationship Between Variable Selection and Data Augmentation and a Method for Prediction",
    Technometrics 16, 1974, for PRESS; Golub, Heath, Wahba, "Generalized Cross-Validation as a Method for Choosing a
    Good Ridge Parameter", Technometrics 21, 1979.
    """
    x, y = features.double(), targets.double()
    w = torch.ones(len(x), dtype=x.dtype, device=x.device) if weights is None else weights.to(x)
    total, root = w.sum(), w.sqrt()[:, None]
    means = w @ x / total, w @ y / total
    x, centred = (x - means[0]) * root, (y - means[1]) * root
    axes, squares, turned = _principal(x)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for penalty in (share * float(squares.max().clamp_min(1e-30)) for share in penalties):
        shrunk = 1 / (squares + penalty)
        coefficients = shrunk[:, None] * (turned.T @ centred)
        leverage = w / total + turned.square() @ shrunk
        residuals = (centred - turned @ coefficients) / root / (1 - leverage).clamp_min(1e-6)[:, None]
        press = float((w @ residuals.square()).sum())
        if best is None or press < best[0]:
            best = press, penalty, coefficients, residuals
    assert best is not None
    _, penalty, coefficients, residuals = best
    weight = axes @ coefficients
    return Ridge(weight, means[1] - means[0] @ weight, penalty, y - residuals)


def _principal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The principal axes `[d, r]` of `x` `[n, d]`, the eigenvalues `[r]`, and `x` along the axes `[n, r]`."""
    if len(x) >= x.shape[1]:
        squares, axes = torch.linalg.eigh(x.T @ x)
        return axes, squares.clamp_min(0), x @ axes
    squares, left = torch.linalg.eigh(x @ x.T)
    positive = squares > 1e-12 * squares.max().clamp_min(1e-30)
    squares, left = squares[positive], left[:, positive]
    if not len(squares):  # all rows are the same
        return x.T[:, :1], torch.ones(1, dtype=x.dtype, device=x.device), x[:, :1]
    return x.T @ left / squares.sqrt(), squares, left * squares.sqrt()


def ridge_classifier(features: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None) -> Ridge:
    """Fits one-hot labels, and scales the outputs so that they are logits; `labels` [n] lie in 0..classes - 1.

    The scale is the one number for which the leave-one-out predictions have the smallest (weighted) cross-entropy.
    """
    fitted = ridge(features, F.one_hot(labels, classes), weights)
    return fitted.times(_scale(fitted.left_out, labels, weights))


def _scale(scores: Tensor, labels: Tensor, weights: Tensor | None) -> float:
    """What to multiply `scores` [n, k] by, from 0.05 to 1,000, to make them logits of `labels` [n]."""
    from scipy.optimize import minimize_scalar

    w = torch.ones(len(scores), dtype=scores.dtype, device=scores.device) if weights is None else weights.to(scores)

    def loss(log_scale: float) -> float:
        return float(w @ F.cross_entropy(scores * float(np.exp(log_scale)), labels, reduction="none"))

    bounds = (float(np.log(0.05)), float(np.log(1000)))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
