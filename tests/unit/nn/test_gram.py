"""Solves with a few long rows, against the whole matrices."""

import pytest
import torch

from unrecall.nn import gram
from unrecall.training.randomness import seeded


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(5, 40, generator=seeded(0))


def test_kernel_and_combination_are_products(rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "COLUMNS", 7)
    whole, coefficients = rows.double(), torch.arange(5).double()
    assert gram.kernel(rows).dtype == torch.float64
    assert torch.allclose(gram.kernel(rows), whole @ whole.T)
    assert torch.allclose(gram.combined(rows, coefficients), whole.T @ coefficients)


def test_solve_by_hand() -> None:
    matrix, right = torch.tensor([[2.0, 0.0], [0.0, 4.0]]).double(), torch.tensor([1.0, 1.0]).double()
    assert torch.allclose(gram.solve(matrix, right), torch.tensor([0.5, 0.25]).double())


@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_damped_inverse_is_the_inverse(rows: torch.Tensor, damping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "COLUMNS", 11)
    vector, whole = torch.randn(40, generator=seeded(1)), rows.double()
    expected = torch.linalg.solve(damping * torch.eye(40).double() + whole.T @ whole / 5, vector.double())
    assert torch.allclose(gram.damped_inverse(rows, vector, damping), expected)


def test_damped_inverse_is_all_rank_one_updates(rows: torch.Tensor) -> None:
    vector, inverse = torch.randn(40, generator=seeded(1)), torch.eye(40).double() / 0.1
    for row in rows.double():
        moved = inverse @ row
        inverse -= torch.outer(moved, moved) / (5 + row @ moved)
    assert torch.allclose(gram.damped_inverse(rows, vector, 0.1), inverse @ vector.double())
