"""Ridge regression by hand, and against fits with one example left out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unrecall.nn.ridge import ridge, ridge_classifier
from unrecall.training.randomness import seeded


def tensor(*rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_one_feature_by_hand() -> None:
    """x = -1, 0, 1, y = 0, 0, 3: sum x^2 = 2, sum x (y - 1) = 3, so the slope is 3 / (2 + 2) at penalty 2."""
    fitted = ridge(tensor([-1], [0], [1]), tensor([0], [0], [3]), penalties=(1.0,))
    assert fitted.penalty == pytest.approx(2)
    assert fitted.weight.item() == pytest.approx(0.75)
    assert fitted.bias.item() == pytest.approx(1)
    assert fitted(tensor([4])).item() == pytest.approx(4)
    # Leverages 1/3 + x^2 / 4 = 7/12, 1/3, 7/12; residuals 0 - .25, 0 - 1, 3 - 1.75.
    expected = [0 + 0.25 / (5 / 12), 0 + 1 / (2 / 3), 3 - 1.25 / (5 / 12)]
    assert fitted.left_out.flatten().tolist() == pytest.approx(expected)


def test_two_features_by_hand() -> None:
    """(1, 0), (0, 1), (-1, -1) have scatter [[2, 1], [1, 2]], with eigenvalues 3 and 1; y = 1, 0, 0, X^T y = (1, 0).

    With penalty 1, W = [[3, 1], [1, 3]]^-1 (1, 0) = (3, -1) / 8.
    """
    fitted = ridge(tensor([1, 0], [0, 1], [-1, -1]), tensor([1], [0], [0]), penalties=(1 / 3,))
    assert fitted.weight.flatten().tolist() == pytest.approx([3 / 8, -1 / 8])
    assert fitted.bias.item() == pytest.approx(1 / 3)


def test_weights_count_as_copies() -> None:
    copied = ridge(tensor([-1], [0], [1], [1]), tensor([0], [0], [3], [3]), penalties=(0.1,))
    weighted = ridge(tensor([-1], [0], [1]), tensor([0], [0], [3]), tensor(1, 1, 2), penalties=(0.1,))
    assert weighted.weight.item() == pytest.approx(copied.weight.item())
    assert weighted.bias.item() == pytest.approx(copied.bias.item())


@pytest.mark.parametrize("d", [3, 30])
def test_left_out_is_what_a_fit_without_the_example_says(d: int) -> None:
    """The same penalty and the same centre; a tiny penalty's mean shift is in the bias, which is exact here too."""
    x = torch.randn(12, d, generator=seeded(1), dtype=torch.float64)
    y = torch.randn(12, 2, generator=seeded(2), dtype=torch.float64)
    fitted = ridge(x, y, penalties=(0.1,))
    for i in (0, 7):
        others = [j for j in range(12) if j != i]
        part, target = x[others] - x[others].mean(0), y[others] - y[others].mean(0)
        weight = torch.linalg.solve(part.T @ part + fitted.penalty * torch.eye(d), part.T @ target)
        expected = y[others].mean(0) + (x[i] - x[others].mean(0)) @ weight
        torch.testing.assert_close(fitted.left_out[i], expected)


def test_the_penalty_with_the_smallest_error_left_out_is_taken() -> None:
    """Pure noise asks for the largest, a noiseless line for the smallest."""
    x = torch.randn(40, 10, generator=seeded(3), dtype=torch.float64)
    noise = torch.randn(40, 1, generator=seeded(4), dtype=torch.float64)
    largest = float(torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0))).max())
    assert ridge(x, noise).penalty == pytest.approx(largest)
    assert ridge(x, x[:, :1]).penalty == pytest.approx(1e-6 * largest)


def test_a_feature_that_never_changes_gives_the_mean() -> None:
    for d in (1, 9):
        fitted = ridge(torch.ones(4, d), tensor([0], [1], [1], [4]))
        assert fitted(torch.ones(1, d)).item() == pytest.approx(1.5)


def test_scores_become_logits() -> None:
    """Cross-entropy of the leave-one-out predictions is smallest at the scale that was taken."""
    labels = torch.arange(60) % 3
    x = F.one_hot(labels, 3) + 0.7 * torch.randn(60, 3, generator=seeded(5))
    fitted = ridge_classifier(x, labels, 3)
    losses = [float(F.cross_entropy(fitted.left_out * share, labels)) for share in (0.9, 1.0, 1.1)]
    assert int(np.argmin(losses)) == 1
    assert float(F.cross_entropy(fitted(x), labels)) < np.log(3)
