"""The curvature of a loss: products of its Hessian with vectors, and what solves (H + damping I) x = b with them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from unrecall.data.batches import batch_size
from unrecall.data.examples import Examples
from unrecall.errors import BadInput, NotSupported
from unrecall.models.importance import Losses, Weights, mean_gradient
from unrecall.models.observe import in_order, repeated
from unrecall.models.vector import flat, shaped
from unrecall.nn.hooks import frozen, mode
from unrecall.tasks.base import Task


class Curvature:
    """The Hessian H of the mean loss over some examples, in some weights of a model that is in eval mode.

    `weights`: which, by name, as they are. `passes`: examples that went through the model so far.
    """

    def __init__(self, model: nn.Module, task: Task, examples: Examples, weights: Weights) -> None:
        self.model, self.task, self.examples, self.weights = model, task, examples, weights
        self.passes = 0

    def product(self, vector: Tensor) -> Tensor:
        """Computes H v `[weights]`, v flat, in the order of the weights.

        Attention goes step by step: its fused kernels can't be differentiated twice.
        """
        losses, direction = Losses(self.model, self.task), shaped(vector, self.weights)
        total, count = torch.zeros_like(vector), 0
        with mode(self.model, training=False), frozen(self.model), sdpa_kernel(SDPBackend.MATH):
            for batch in in_order(self.model, self.task, self.examples):
                first = repeated(batch, count)

                def loss(moved: Weights, batch: dict[str, Tensor] = batch, first: int = first) -> Tensor:
                    return losses.under(moved, batch)[first:].sum() / len(self.examples)

                pull = vjp(grad(loss), self.weights)[1]
                total += flat(pull(direction)[0])
                count += batch_size(batch) - first
        self.passes += count
        return total


def summed_gradient(model: nn.Module, task: Task, examples: Examples, weights: Weights) -> Tensor:
    """Computes the gradient of the sum of the losses of examples in some weights, flat; 0 where there are none."""
    if not len(examples):
        return torch.zeros_like(flat(weights))
    gradient = mean_gradient(model, task, examples)
    return len(examples) * flat({name: gradient[name] for name in weights})


def solved(curvature: Curvature, right: Tensor, damping: float, iterations: int, tolerance: float) -> Tensor:
    """Solves (H + damping I) x = `right` by MINRES.

    At most so many iterations, each a product with H; fewer once the residual is below `tolerance` of |H| |x|. Where
    H + damping I is positive definite that is what conjugate gradients find. These go astray where it is not, and the
    Hessian of a network seldom is; MINRES needs symmetry alone.
    """
    from scipy.sparse.linalg import minres

    operator, vector = _operator(curvature, right, damping), right.double().cpu().numpy()
    solution, _ = minres(operator, vector, rtol=tolerance, maxiter=iterations)
    return torch.from_numpy(solution).to(right)


GROWN = 1e6
"""How many times beyond its first term a series may have grown."""


def series(curvatures: Iterable[Curvature], right: Tensor, damping: float, scale: float) -> Tensor:
    """Sums the Neumann series of (H + damping scale I)^-1 `right`, a term for each of the curvatures.

        x_0 = b,    x_t = b + (1 - damping) x_t-1 - H_t x_t-1 / scale,    and gives x_T / scale

    It converges where the eigenvalues of H / scale lie within [-damping, 2 - damping]; BadInput where it has grown a
    million times beyond b, for a little negative curvature is common and does no harm in so few terms.
    """
    estimate = right
    for curvature in curvatures:
        estimate = right + (1 - damping) * estimate - curvature.product(estimate) / scale
    if not float(estimate.double().norm()) <= GROWN * float(right.double().norm()):
        raise BadInput(f"scale: expected one above half of the Hessian's largest eigenvalue, got {scale:g}. Raise it.")
    return estimate / scale


def largest(curvature: Curvature) -> float:
    """Finds the largest eigenvalue of H, to about a percent."""
    from scipy.sparse.linalg import ArpackError, eigsh

    like = flat(curvature.weights)
    start, operator = np.random.default_rng(0).standard_normal(like.numel()), _operator(curvature, like, 0.0)
    if not (operator @ start).any():
        return 0.0
    few = min(8, like.numel())  # vectors that are held at once
    try:
        values = eigsh(operator, k=1, which="LA", v0=start, tol=1e-2, ncv=few, return_eigenvectors=False)
    except ArpackError as error:
        raise NotSupported(
            f"curvature: expected a largest eigenvalue of the Hessian, got none ({error}). The loss may have no "
            "second derivative somewhere, or the search ended too early; leave out what needs it."
        ) from error
    return float(values[0])


def _operator(curvature: Curvature, like: Tensor, damping: float) -> Any:
    """H + damping I as SciPy has a matrix of which it knows the products alone; `like`: of which kind vectors are."""
    from scipy.sparse.linalg import LinearOperator

    def product(vector: np.ndarray) -> np.ndarray:
        moved = torch.from_numpy(vector.reshape(-1).astype(np.float64)).to(like)
        return (curvature.product(moved) + damping * moved).double().cpu().numpy()

    return LinearOperator((like.numel(), like.numel()), matvec=product, dtype=np.float64)
