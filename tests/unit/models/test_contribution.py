"""Input x Gradient by hand and by loop, on every kind of task; and nearest neighbours."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.worlds import World
from unrecall.data.batches import Batch
from unrecall.errors import BadInput, NotSupported
from unrecall.models.contribution import contributions, nearest
from unrecall.models.observe import batches
from unrecall.scenarios.networks import small_vit
from unrecall.tasks import Classification
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded


def first(world: World, count: int) -> Batch:
    return next(batches(world.request.retain, world.task, count))


def one_by_one(model: nn.Module, task: Task, items: Sequence[Any], layers: Sequence[str] = ()) -> Tensor:
    return torch.cat([contributions(model, task, task.collate([item]), layers).vectors for item in items])


# What it is.


def test_at_a_linear_head_it_is_the_input_times_the_weights(class_world: World) -> None:
    w: Any = class_world
    batch, head = first(w, 20), w.original[6]
    with torch.no_grad():
        features = w.original[:6](batch["inputs"])
        logits = head(features)
    found = contributions(w.original, w.task, batch)
    assert torch.allclose(found.vectors, features * head.weight[batch["targets"]], atol=1e-6)
    own = logits[torch.arange(20), batch["targets"]]
    assert torch.allclose(found.vectors.sum(1), (own - head.bias[batch["targets"]]).detach(), atol=1e-5)
    assert torch.allclose(found.rows.logits, logits, atol=1e-6)
    assert torch.equal(found.rows.targets, batch["targets"])
    assert not found.vectors.requires_grad
    assert not found.rows.logits.requires_grad


def test_of_another_class(class_world: World) -> None:
    w: Any = class_world
    batch = first(w, 6)
    wanted = torch.tensor([3, 0, 2, 1, 1, 0])
    with torch.no_grad():
        features = w.original[:6](batch["inputs"])
    found = contributions(w.original, w.task, batch, labels=wanted)
    assert torch.allclose(found.vectors, features * w.original[6].weight[wanted], atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4, 5])
def test_at_any_layer_by_hand(class_world: World, layer: int) -> None:
    """The network cut in two by hand; a channel's contribution is the sum over its places."""
    w: Any = class_world
    batch = first(w, 12)
    with torch.no_grad():
        h = w.original[: layer + 1](batch["inputs"])
    h.requires_grad_(True)
    own = w.original[layer + 1 :](h).gather(1, batch["targets"][:, None])
    (gradient,) = torch.autograd.grad(own.sum(), h)
    expected = (h * gradient).detach()
    expected = expected.sum((2, 3)) if expected.ndim == 4 else expected
    found = contributions(w.original, w.task, batch, (str(layer),)).vectors
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_several_layers_stand_beside_each_other(class_world: World) -> None:
    """A layer that another one's output depends on has the gradient of all that follows from it."""
    w = class_world
    batch = first(w, 12)
    alone = [contributions(w.original, w.task, batch, (name,)).vectors for name in ("0", "4", "5")]
    together = contributions(w.original, w.task, batch, ("0", "4", "5")).vectors
    assert torch.allclose(together, torch.cat(alone, 1), atol=1e-5)


def test_in_text_it_is_what_the_answer_alone_says(text_world: World) -> None:
    """R_i = 1/K sum_k h_ki W_{t_k, i} over an answer's K rows; the head has no bias, so R sums to the mean logit."""
    w: Any = text_world
    items = [w.request.forget[0], w.request.retain[3], w.request.retain[8]]
    batch = w.task.collate(items)
    found = contributions(w.original, w.task, batch)
    matrix = w.original.get_output_embeddings().weight.detach()
    assert found.vectors.shape == (3, 32)
    for item, vector in zip(items, found.vectors, strict=True):
        ids, start = w.task.encode(item)
        with torch.no_grad():
            hidden = w.original.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rows = [hidden[k - 1] * matrix[ids[k]] for k in range(start, len(ids))]
        assert torch.allclose(vector, torch.stack(rows).mean(0), atol=1e-5)
    own = found.rows.logits.gather(1, found.rows.targets[:, None]).squeeze(1)
    assert torch.allclose(found.vectors.sum(1), found.rows.per_example(own), atol=1e-4)


# For a batch at once.


@pytest.mark.parametrize("layers", [(), ("0",), ("1", "4"), ("2", "5", "6")])
def test_one_backward_is_the_loop(samples_world: World, layers: tuple[str, ...]) -> None:
    w = samples_world
    items = [w.request.retain[i] for i in range(17)]
    together = contributions(w.original, w.task, w.task.collate(items), layers).vectors
    assert torch.allclose(together, one_by_one(w.original, w.task, items, layers), atol=1e-5)
    assert together.abs().max() > 0.1


@pytest.mark.parametrize(
    "layers", [(), ("model.layers.0",), ("model.layers.0.self_attn", "model.layers.1.mlp.down_proj"), ("model.norm",)]
)
def test_one_backward_is_the_loop_over_texts_of_all_lengths(text_world: World, layers: tuple[str, ...]) -> None:
    """Padding takes no part, and a module that gives several tensors counts with the first."""
    w = text_world
    items = [dict(w.request.retain[i]) for i in range(6)]
    items[2]["prompt"] = items[2]["prompt"] + " of has which job"
    together = contributions(w.original, w.task, w.task.collate(items), layers).vectors
    alone = one_by_one(w.original, w.task, items, layers)
    assert torch.allclose(together, alone, atol=1e-4 * float(alone.abs().max()))


class Twice(nn.Module):
    """One layer used two times, with what follows working in place."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.act, self.head = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)
        self.aside, self.never = nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        h = self.act(self.mix(inputs))
        self.aside(h)
        return self.head(self.act(self.mix(h)))  # type: ignore[no-any-return]


@pytest.fixture
def twice() -> tuple[Twice, Task, Batch]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Twice(), Classification(), {"inputs": torch.rand(5, 4), "targets": torch.tensor([0, 1, 2, 0, 1])}


def test_a_layer_that_is_used_twice_counts_twice(twice: tuple[Twice, Task, Batch]) -> None:
    model, task, batch = twice
    first = model.mix(batch["inputs"])
    second = model.mix(first.relu())
    own = model.head(second.relu()).gather(1, batch["targets"][:, None]).sum()
    expected = [h * g for h, g in zip((first, second), torch.autograd.grad(own, (first, second)), strict=True)]
    found = contributions(model, task, batch, ("mix",)).vectors
    assert torch.allclose(found, torch.cat(expected, 1), atol=1e-6)


# What it leaves alone, and what it refuses.


def test_the_model_is_left_as_it_was(class_world: World) -> None:
    model: Any = copy.deepcopy(class_world.original).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    flags, modes = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    with torch.no_grad():
        for layers in ((), ("0", "5")):
            contributions(model, class_world.task, first(class_world, 8), layers)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_half_precision_gives_float32(twice: tuple[Twice, Task, Batch]) -> None:
    model, task, batch = twice
    exact = contributions(model, task, batch, ("mix",)).vectors
    batch = {**batch, "inputs": batch["inputs"].bfloat16()}
    found = contributions(model.bfloat16(), task, batch, ("mix",)).vectors
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, atol=0.02)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (("mix", "hidden"), "got 'hidden'. Known: mix, act, head, aside, never."),
        (("never",), "lead to the logits, got never"),
        (("aside",), "lead to the logits, got aside"),
    ],
)
def test_layers_must_be_there_and_take_part(
    twice: tuple[Twice, Task, Batch], layers: tuple[str, ...], said: str
) -> None:
    model, task, batch = twice
    with pytest.raises(BadInput, match=said):
        contributions(model, task, batch, layers)
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_activations_must_be_of_examples() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(2, 3), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.inner(inputs.T).reshape(-1, 4))  # type: ignore[no-any-return]

    batch = {"inputs": torch.rand(2, 8), "targets": torch.zeros(6, dtype=torch.long)}
    with pytest.raises(NotSupported, match=r"inner: expected activations \[6 examples, ...\], got \(8, 3\)"):
        contributions(Turned(), Classification(), batch, ("inner",))


# Neighbours.


def test_nearest_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0], [-5.0, 0.0], [0.0, 0.0]])
    assert nearest(torch.tensor([10.0, 1.0]), vectors, 3).tolist() == [0, 2, 1]
    excluded = torch.tensor([True, False, False, False, True])
    assert nearest(torch.tensor([10.0, 1.0]), vectors, 2, excluded).tolist() == [2, 1]
    assert nearest(torch.tensor([10.0, 1.0]), vectors, 9, excluded).tolist() == [2, 1, 3], "fewer come back"
    assert nearest(torch.tensor([10.0, 1.0]), vectors, 9, torch.ones(5, dtype=torch.bool)).tolist() == []
    assert nearest(torch.tensor([[10.0, 1.0], [-1.0, 0.1]]), vectors, 1).tolist() == [[0], [3]]


def test_nearest_is_the_loop() -> None:
    queries, vectors = (torch.randn(n, 7, generator=seeded(n)) for n in (11, 40))
    excluded = torch.rand(40, generator=seeded(1)) < 0.3
    found = nearest(queries, vectors, 5, excluded)
    for query, near in zip(queries, found, strict=True):
        cosine = [F.cosine_similarity(query, vector, dim=0).item() for vector in vectors]
        order = sorted((i for i in range(40) if not excluded[i]), key=lambda i: -cosine[i])
        assert near.tolist() == order[:5]
        assert nearest(query, vectors, 5, excluded).tolist() == order[:5]


def test_a_vision_transformer_has_blocks_a_head_and_contributions() -> None:
    model, task = small_vit().eval(), Classification()
    batch = task.collate([(torch.rand(3, 32, 32, generator=seeded(i)), i) for i in range(2)])
    assert [name for name, _ in task.blocks(model)] == [
        "1.body.embeddings",
        *(f"1.body.layers.{i}" for i in range(4)),
        "1.linear",
    ]
    head = task.head(model, batch)
    found = contributions(model, task, batch)
    own = found.rows.logits.gather(1, batch["targets"][:, None]).squeeze(1) - head.bias[batch["targets"]]
    assert torch.allclose(found.vectors.sum(1), own, atol=1e-5)
