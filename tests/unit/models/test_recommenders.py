"""What recommenders compute: products, propagation and histories by hand; nodes and histories with nothing."""

import copy
import sys

import pytest
import torch
from torch import Tensor, nn

from unrecall.errors import BadInput, MissingDependency
from unrecall.models.recommenders import NOBODY, GRU4Rec, LightGCN, MatrixFactorisation, SASRec
from unrecall.tasks import Recommendation
from unrecall.training.fresh import reinitialise
from unrecall.training.randomness import own_randomness, seeded

EDGES = torch.tensor([[0, 0, 1], [0, 1, 1]])
"""User 0 took items 0 and 1, user 1 took item 1; user 2 and item 2 have nothing."""


def graph(edges: Tensor = EDGES) -> LightGCN:
    pytest.importorskip("torch_geometric")
    with own_randomness(0):
        return LightGCN(3, 3, edges.clone(), width=4, layers=2)


def sequential(kind: str) -> nn.Module:
    with own_randomness(0):
        return (GRU4Rec(5, 8) if kind == "gru" else SASRec(5, 4, 8, dropout=0.0)).eval()


def test_matrix_factorisation_is_products_and_a_number_an_item() -> None:
    model = MatrixFactorisation(3, 4, 2)
    vectors = model.users.weight[torch.tensor([2, 0])]
    expected = vectors @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(torch.tensor([2, 0])), expected)


def test_lightgcn_is_the_mean_of_three_layers() -> None:
    """By the dense matrix: each edge weighs 1 / sqrt(degree of one end x degree of the other)."""
    model = graph()
    adjacency = torch.zeros(6, 6)
    for user, item in EDGES.T.tolist():
        adjacency[user, 3 + item] = adjacency[3 + item, user] = 1
    scale = adjacency.sum(1).clamp_min(1).rsqrt()
    step = scale[:, None] * adjacency * scale
    start = model.body.embedding.weight
    vectors = (start + step @ start + step @ step @ start) / 3
    torch.testing.assert_close(model(torch.tensor([0, 1, 2])), vectors[:3] @ vectors[3:].T)
    torch.testing.assert_close(vectors[2], start[2] / 3, msg="a node without edges keeps its own")


def test_what_is_withdrawn_is_as_if_it_had_never_been_there() -> None:
    model, clean = graph(), graph(EDGES[:, [0, 2]])
    model.withdraw(torch.tensor([[0, 1], [1, 0]]))  # the second was never there
    assert model.edges.tolist() == [[0, 1, NOBODY], [0, 1, NOBODY]]
    torch.testing.assert_close(model(torch.tensor([0, 1, 2])), clean(torch.tensor([0, 1, 2])))
    model.withdraw(torch.tensor([[0, 1], [0, 1]]))
    assert bool(torch.isfinite(model(torch.tensor([0, 1, 2]))).all()), "a graph of nothing"
    assert bool((model.edges == NOBODY).all())


def test_a_task_takes_what_must_go_out_of_a_copy() -> None:
    model, task = graph(), Recommendation(3)
    before = copy.deepcopy(model.state_dict())
    clean = task.without_data_of(model, [{"user": 0, "item": 1}])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert clean.edges.tolist() == [[0, 1, NOBODY], [0, 1, NOBODY]]  # type: ignore[union-attr]
    plain = MatrixFactorisation(3, 3)
    assert task.without_data_of(plain, [{"user": 0, "item": 1}]) is plain


def test_without_the_package_there_is_a_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.nn.models", None)
    with pytest.raises(MissingDependency, match="torch-geometric: expected it to be installed"):
        LightGCN(3, 3, EDGES)


@pytest.mark.parametrize("kind", ["gru", "sasrec"])
def test_padding_changes_nothing_and_an_empty_history_is_one(kind: str) -> None:
    model = sequential(kind)
    short, longer = torch.tensor([[1, 2]]), torch.tensor([[1, 2, 5, 5]])
    torch.testing.assert_close(model(short), model(longer))
    both = model(torch.tensor([[1, 2, 5, 5], [5, 5, 5, 5]]))
    assert both.shape == (2, 5)
    torch.testing.assert_close(both[1:], model(torch.full((1, 1), 5)))
    assert bool(torch.isfinite(both).all())
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("kind", ["gru", "sasrec"])
def test_the_order_of_a_history_counts(kind: str) -> None:
    model = sequential(kind)
    assert not torch.allclose(model(torch.tensor([[1, 2]])), model(torch.tensor([[2, 1]])))


def test_sasrec_scores_by_the_vectors_that_it_reads() -> None:
    model = sequential("sasrec")
    assert isinstance(model, SASRec)
    assert model.head.weight is model.items.weight
    names = [name for name, _ in Recommendation(5, 4).blocks(model)]
    assert names[0] == "items"
    assert "head" not in names


def test_layers_know_how_they_start() -> None:
    for model in (MatrixFactorisation(3, 4), sequential("gru"), sequential("sasrec"), graph()):
        before = copy.deepcopy(model.state_dict())
        reinitialise(model, seeded(1))
        changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
        assert any("weight" in name for name in changed)
        assert "edges" not in changed


def test_a_user_beyond_the_model_is_refused() -> None:
    from unrecall.data.request import Request

    task, model = Recommendation(4), MatrixFactorisation(2, 4)
    with pytest.raises(BadInput, match="answers for each user up to 7, got: index out of range"):
        task.check(model, Request([{"user": 7, "item": 1}], [{"user": 0, "item": 1}]))
