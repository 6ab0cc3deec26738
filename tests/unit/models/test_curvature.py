"""By hand: Hessians of losses with a closed form, and what is solved with them."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.worlds import World
from unrecall.errors import BadInput
from unrecall.models.curvature import Curvature, largest, series, solved, summed_gradient
from unrecall.models.importance import Losses, Weights, trainable
from unrecall.models.vector import flat, move, shaped
from unrecall.tasks import Classification

TASK = Classification()


class Bowl(Curvature):
    """A Hessian that is given as a matrix."""

    def __init__(self, matrix: list[list[float]]) -> None:
        self.matrix = torch.tensor(matrix)
        self.weights = {"w": torch.zeros(len(matrix))}
        self.passes = 0

    def product(self, vector: Tensor) -> Tensor:
        self.passes += 1
        return self.matrix @ vector


def two_weights() -> nn.Sequential:
    """Logits [w x, v x] of one number: all weights fit into a 2 x 2 Hessian."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.5], [-0.5]]))
    return model


def test_a_product_with_the_hessian_by_hand() -> None:
    """CE of two classes: H = mean x^2 p (1 - p) [[1, -1], [-1, 1]], p = sigmoid((w - v) x)."""
    model, data = two_weights(), [(torch.tensor([[1.0]]), 0), (torch.tensor([[2.0]]), 1)]
    p = torch.sigmoid(torch.tensor([1.0, 2.0]))
    h = float((torch.tensor([1.0, 4.0]) * p * (1 - p)).mean())
    curvature = Curvature(model, TASK, data, trainable(model))
    assert torch.allclose(curvature.product(torch.tensor([1.0, 0.0])), torch.tensor([h, -h]))
    assert torch.allclose(curvature.product(torch.tensor([1.0, 1.0])), torch.zeros(2), atol=1e-7)
    assert curvature.passes == 4
    assert largest(curvature) == pytest.approx(2 * h, rel=0.02)


def test_a_summed_gradient_by_hand() -> None:
    """d CE / dw = (p - [y = 0]) x."""
    model, data = two_weights(), [(torch.tensor([[1.0]]), 0), (torch.tensor([[2.0]]), 1)]
    p = torch.sigmoid(torch.tensor([1.0, 2.0]))
    first = float((p[0] - 1) * 1 + p[1] * 2)
    assert torch.allclose(summed_gradient(model, TASK, data, trainable(model)), torch.tensor([first, -first]))
    assert torch.equal(summed_gradient(model, TASK, [], trainable(model)), torch.zeros(2))


@pytest.mark.parametrize("name", ["samples_world", "text_world", "pairs_world"])
def test_a_product_is_the_change_of_the_gradient(name: str, request: pytest.FixtureRequest) -> None:
    """In every modality, by finite differences, most of which cross no kink of a ReLU; the model is left as it was."""
    w: World = request.getfixturevalue(name)
    before = copy.deepcopy(w.original)
    weights = trainable(w.original)
    direction = torch.nn.functional.normalize(summed_gradient(w.original, w.task, w.request.forget, weights), dim=0)
    product = Curvature(w.original, w.task, w.request.retain, weights).product(direction)
    gradients = []
    for sign in (1, -1):
        moved = copy.deepcopy(w.original)
        move(moved, weights, sign * 2e-4 * direction)
        gradients.append(summed_gradient(moved, w.task, w.request.retain, trainable(moved)))
    expected = (gradients[0] - gradients[1]) / 4e-4 / len(w.request.retain)
    assert float((product - expected).abs().median()) < 0.02 * float(expected.abs().mean()) + 1e-5
    assert not product.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), w.original.parameters(), strict=True))
    assert all(p.requires_grad for p in w.original.parameters())


def test_some_weights_alone_have_a_block_of_the_hessian(samples_world: World) -> None:
    w = samples_world
    whole = trainable(w.original)
    last = {name: value for name, value in whole.items() if name.startswith("6.")}
    part = torch.randn(len(flat(last)), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.zeros(len(flat(whole)) - len(part)), part])
    all_of_it = Curvature(w.original, w.task, w.request.retain, whole).product(padded)
    block = Curvature(w.original, w.task, w.request.retain, last).product(part)
    assert torch.allclose(block, all_of_it[-len(part) :], atol=1e-5)


@pytest.mark.parametrize("matrix", [[[2.0, 1.0], [1.0, 3.0]], [[-2.0, 1.0], [1.0, 3.0]]], ids=["up", "saddle"])
def test_a_system_is_solved_with_damping(matrix: list[list[float]]) -> None:
    right = torch.tensor([1.0, 2.0])
    expected = np.linalg.solve(np.array(matrix) + 0.5 * np.eye(2), right.numpy())
    assert solved(Bowl(matrix), right, 0.5, 10, 1e-9).numpy() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(solved(Bowl(matrix), torch.zeros(2), 0.5, 10, 1e-9), torch.zeros(2))


def test_no_more_iterations_than_were_asked_for() -> None:
    """One iteration is a multiple of the right side: b (b.Hb) / |Hb|^2, whose residual is the shortest."""
    bowl, right = Bowl([[2.0, 0.0], [0.0, 1.0]]), torch.ones(2)
    assert solved(bowl, right, 0.0, 1, 1e-9).tolist() == pytest.approx([3 / 5, 3 / 5])
    assert bowl.passes <= 3


def test_the_series_by_hand() -> None:
    """x_t = b + (1 - d) x_t-1 - h x_t-1 / s for h = 4, s = 8, d = 0.25, b = 1: 1, 1.25, 1.3125; then over 8."""
    bowl = Bowl([[4.0]])
    assert series([bowl] * 2, torch.ones(1), 0.25, 8.0).item() == pytest.approx(1.3125 / 8)
    assert series([bowl] * 60, torch.ones(1), 0.25, 8.0).item() == pytest.approx(1 / (4 + 0.25 * 8)), "its limit"
    assert series([], torch.ones(1), 0.25, 8.0).item() == 1 / 8


def test_a_series_that_grows_without_end_is_refused() -> None:
    with pytest.raises(BadInput, match="scale: expected one above half of the Hessian's largest eigenvalue, got 1"):
        series([Bowl([[40.0]])] * 100, torch.ones(1), 0.0, 1.0)
    with pytest.raises(BadInput, match="scale: expected one above half"):
        series([Bowl([[4.0]])] * 14, torch.ones(1), 0.0, 1.0)  # 1, -2, 7, -20, 61, ...: finite, about 3^14 = 5e6
    assert math.isfinite(series([Bowl([[-0.1]])] * 14, torch.ones(1), 0.0, 1.0).item()), "a little negative curvature"


def test_flat_and_back() -> None:
    weights: Weights = {"a": torch.arange(4.0).view(2, 2), "b": torch.tensor([9.0])}
    assert flat(weights).tolist() == [0, 1, 2, 3, 9]
    again = shaped(flat(weights), weights)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_losses_stay_what_they_were(samples_world: World) -> None:
    """The weights that a Hessian is taken at are the model's own."""
    w = samples_world
    batch = w.task.collate([w.request.retain[i] for i in range(4)])
    w.original.eval()
    assert torch.allclose(
        Losses(w.original, w.task).under(trainable(w.original), batch), w.task.losses(w.original, batch)
    )
