"""Gradients as a matrix: its rows, its bound, and weights as a vector."""

import copy

import pytest
import torch
from torch import nn

from tests.worlds import World
from unrecall.errors import NotSupported
from unrecall.models.importance import mean_gradient, trainable
from unrecall.models.jacobian import Bound, jacobian
from unrecall.models.vector import flat, move
from unrecall.tasks import Classification

ROOM = Bound("Method", 1.0)


def test_rows_are_gradients_of_single_examples(samples_world: World) -> None:
    w = samples_world
    data = [w.request.forget[i] for i in range(6)]
    model = copy.deepcopy(w.original).train()
    rows = jacobian(model, w.task, data, ROOM)
    assert torch.allclose(rows.mean(0), flat(mean_gradient(model, w.task, data)), atol=1e-6)
    assert torch.allclose(rows[4], flat(mean_gradient(model, w.task, data[4:5])), atol=1e-6)
    assert model.training


def test_several_values_by_hand() -> None:
    """z = (w_0 x, w_1 x): the gradient of z_k is x in weight k, 0 elsewhere."""
    model, data = nn.Linear(1, 2, bias=False), [(torch.tensor([2.0]), 0), (torch.tensor([3.0]), 1)]
    task = Classification()
    logits = [lambda m, b, k=k: task.rows(m, b).logits[:, k] for k in range(2)]
    expected = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    assert torch.equal(jacobian(model, task, data, ROOM, logits), expected)


def test_what_is_too_large_is_refused_before_it_is_computed(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match=r"Method: expected .* at most 1e-06 GB, got .*Lower examples"):
        jacobian(w.original, w.task, w.request.forget, Bound("Method", 1e-6))
    Bound("Method", 4.0).check(2**10, 2**20)
    with pytest.raises(NotSupported, match="4 GB"):
        Bound("Method", 4.0).check(2**10, 2**20 + 2**13)


def test_weights_move_where_they_may() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False))
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    move(model, trainable(model), torch.tensor([1.0, 2.0]).double())
    after = model.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert torch.equal(after["0.bias"], before["0.bias"] + 1)
    assert torch.equal(after["1.weight"], before["1.weight"] + 2)
