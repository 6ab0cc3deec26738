"""Linear algebra with a few long rows: all that is solved is as small as their number, and in float64."""

from collections.abc import Iterator

import torch
from torch import Tensor

COLUMNS = 2**14
"""Columns that are float64 at once."""


def _blocks(rows: Tensor) -> Iterator[Tensor]:
    return (block.double() for block in torch.split(rows, COLUMNS, 1))


def kernel(rows: Tensor) -> Tensor:
    """Computes R R^T `[n, n]` of R `[n, d]`, in float64."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for block in _blocks(rows):
        total += _squared(block)
    return total


def _squared(block: Tensor) -> Tensor:
    """B B^T; NumPy, which knows that it is symmetric, makes half of it, in half the time."""
    if block.device.type != "cpu":
        return block @ block.T
    values = block.numpy()
    return torch.from_numpy(values @ values.T)


def combined(rows: Tensor, coefficients: Tensor) -> Tensor:
    """Computes R^T c `[d]` of R `[n, d]` and c `[n]`, in float64."""
    return torch.cat([block.T @ coefficients for block in _blocks(rows)])


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solves M x = r for a symmetric, positive definite M `[n, n]` and r `[n]`."""
    return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(matrix)).squeeze(1)


def damped_inverse(rows: Tensor, vector: Tensor, damping: float) -> Tensor:
    """Computes (damping I + R^T R / n)^-1 v of R `[n, d]` and v `[d]`, in float64.

        H_0^-1 = I / damping,    H_i^-1 = H_{i-1}^-1 - H_{i-1}^-1 r_i r_i^T H_{i-1}^-1 / (n + r_i^T H_{i-1}^-1 r_i)

    All n of these rank-1 updates come to (v - R^T (n damping I + R R^T)^-1 R v) / damping, which is one solve.
    """
    inner = kernel(rows)
    inner.diagonal().add_(len(rows) * damping)
    places = torch.split(vector.double(), COLUMNS)
    reach = torch.stack([block @ part for block, part in zip(_blocks(rows), places, strict=True)]).sum(0)
    return (vector.double() - combined(rows, solve(inner, reach))) / damping
