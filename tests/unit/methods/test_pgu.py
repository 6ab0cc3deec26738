"""By hand and by law: PGU, what enters a layer, and the directions that are left free."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.unit.methods.test_distillation import only, same, whole
from tests.worlds import CPU, World, blobs, without_retain
from unrecall.data.examples import Selection
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.pgu import PGU, entering, free_directions, project, projected_layers, second_moments
from unrecall.models.importance import Weights
from unrecall.models.observe import accuracy
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy

TASK = Classification(bounds=(-100.0, 100.0))
ONCE = Fit(lr=0.5, momentum=0.0, weight_decay=0.0, batchnorm="frozen")


def drawn(build: Any, seed: int = 0) -> Any:
    """A module with weights of its own, whatever the global generator says."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def asked(*shape: int, retain: int = 3, classes: int = 3) -> Request:
    """Random inputs: 4 to forget, `retain` to keep."""
    inputs = torch.randn(retain + 8, *shape, generator=seeded(5))
    data = [(x, i % classes) for i, x in enumerate(inputs)]
    return Request(data[:4], data[8:], data[4:6], data[6:8])


def plain(model: nn.Module, request: Request, method: PGU) -> nn.Module:
    return method.unlearn(model, Job(request, TASK, seeded(0), CPU))


# What is kept.


@pytest.mark.parametrize(
    "recipe",
    [replace(ONCE, epochs=20), Fit(optimizer="adamw", lr=0.1, weight_decay=0.1, epochs=20), Fit(lr=0.3, epochs=20)],
    ids=["plain", "adamw", "momentum"],
)
def test_a_linear_layer_says_the_same_of_retain(recipe: Fit) -> None:
    """Three inputs of six entries: three directions are free. Biases don't move."""
    model, request = drawn(lambda: nn.Linear(6, 3)), asked(6)
    result = plain(model, request, PGU(retained_var=1.0, fit=recipe))
    kept, gone = (whole(data, TASK)["inputs"] for data in (request.retain, request.forget))
    with torch.no_grad():
        assert torch.allclose(result(kept), model(kept), atol=1e-5)
        assert float((result(gone) - model(gone)).abs().max()) > 0.1
    assert torch.equal(result.bias, model.bias)  # type: ignore[arg-type]


def test_a_convolution_says_the_same_of_retain() -> None:
    """Two groups, each with 4 patches of 9 entries an example; 2 examples take 8 of 9 directions."""
    convolution = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
    model: Any = drawn(lambda: nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)))
    request = asked(2, 4, 4, retain=2)
    result: Any = plain(model, request, PGU(retained_var=1.0, fit=replace(ONCE, epochs=10)))
    kept, gone = (whole(data, TASK)["inputs"] for data in (request.retain, request.forget))
    with torch.no_grad():
        assert torch.allclose(result[0](kept), model[0](kept), atol=1e-5)
        assert torch.allclose(result(kept), model(kept), atol=1e-5)
        assert float((result[0](gone) - model[0](gone)).abs().max()) > 1e-3


def test_a_step_is_the_gradient_without_what_retain_spans() -> None:
    """P by Gram-Schmidt in place of eigenvectors, and theta - lr (g - g P)."""
    model, request = drawn(lambda: nn.Linear(6, 3, bias=False)), asked(6)
    method = PGU(retained_var=1.0, fit=ONCE)
    student = copy.deepcopy(model)
    (phase,) = method.phases(student, frozen_copy(model), Job(request, TASK, seeded(0)))
    phase.loss(student, {"forget": whole(request.forget, TASK)}).backward()  # type: ignore[no-untyped-call]
    basis, _ = torch.linalg.qr(whole(request.retain, TASK)["inputs"].T)
    gradient = student.weight.grad
    expected = model.weight - 0.5 * (gradient - gradient @ basis @ basis.T)
    assert torch.allclose(plain(model, request, method).weight, expected, atol=1e-5)  # type: ignore[arg-type]


def test_loss_by_hand(class_world: World, text_world: World) -> None:
    """For answers of many rows it is the mean over examples of the mean over rows."""
    for w in (class_world, text_world):
        student, phase = only(PGU(offset=0.1, entropy=0.3), w)
        batch = whole(w.request.forget, w.task)
        rows = w.task.rows(student, batch)
        total = 0.0
        for i in range(rows.examples):
            mine = rows.example == i
            p = rows.logits[mine].detach().double().softmax(1)
            own = p.gather(1, rows.targets[mine][:, None]).squeeze(1)
            total += float((-(1 - (own - 0.1)).log() + 0.3 * (p * p.log()).sum(1)).mean())
        found = phase.loss(student, {"forget": batch}).item()
        assert found == pytest.approx(total / rows.examples, rel=1e-4)


def test_only_weights_with_a_projection_move(samples_world: World, text_world: World) -> None:
    for w, fixed in ((samples_world, "1."), (text_world, "model.embed_tokens")):
        result = PGU(fit=replace(PGU.fit, epochs=5, lr=0.5)).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        before = w.original.state_dict()
        moved = {name for name, value in result.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == set(projected_layers(w.original))
        assert not any(name.startswith(fixed) or "bias" in name or "norm" in name for name in moved)
    assert not any(name.startswith("lm_head") for name in moved), "it shares its weights with the embeddings"


def test_a_network_forgets_and_says_the_same_of_retain() -> None:
    """12 of 16 directions are taken in the first layer, 12 of 32 in the second: each logit is kept."""
    data = [(x, i % 3) for i, x in enumerate(torch.randn(20, 16, generator=seeded(6)))]
    request = Request(data[:4], data[4:16], data[16:18], data[18:])
    model: Any = drawn(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3)))
    known = Phase(lambda m, b: TASK.rows(m, b["all"]).losses().mean(), {"all": data[:16]}, Fit(lr=0.1, epochs=100))
    fit(model, TASK, known, seeded(0), CPU)
    kept = whole(request.retain, TASK)["inputs"]
    assert accuracy(model, TASK, data[:16]).all()
    moved = []
    for share in (0.0, 1.0):
        recipe = replace(PGU.fit, lr=0.5, until=0.25)
        result: Any = plain(model, request, PGU(retained_var=share, fit=recipe))
        assert accuracy(result, TASK, request.forget).mean() <= 0.25
        moved.append(float((result(kept) - model(kept)).detach().abs().max()))
    assert moved[0] > 0.5
    assert moved[1] < 1e-3


# What enters a layer.


LAYERS: list[tuple[Any, tuple[int, ...]]] = [
    (lambda: nn.Linear(5, 3), (4, 5)),
    (lambda: nn.Linear(5, 3), (4, 7, 5)),
    (lambda: nn.Conv2d(2, 4, 3), (3, 2, 6, 5)),
    (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2), (3, 2, 7, 6)),
    (lambda: nn.Conv2d(4, 6, 3, padding="same", groups=2), (3, 4, 5, 5)),
    (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (3, 2, 5, 5)),
    (lambda: nn.Conv2d(2, 4, 4, padding="same", padding_mode="circular"), (3, 2, 5, 5)),
]


@pytest.mark.parametrize(("build", "shape"), LAYERS)
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_weights_times_rows_is_what_leaves(
    build: Any, shape: tuple[int, ...], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrecall.methods.pgu.FLOATS", at_once)
    layer = drawn(build)
    inputs = torch.randn(shape, generator=seeded(1))
    rows = torch.cat(list(entering(layer, inputs)), 1)
    grouped = layer.weight.detach().double().reshape(len(rows), -1, rows.shape[2])
    left = (rows @ grouped.mT).permute(1, 0, 2).flatten(1) + layer.bias.double()
    output = layer(inputs)
    wanted = output.flatten(0, -2) if isinstance(layer, nn.Linear) else output.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.allclose(left.float(), wanted, atol=1e-5)


def test_moments_by_hand() -> None:
    """(1, 2) and (3, 0): the sums of squares are 10 and 4, that of products is 2."""
    data = [(torch.tensor([1.0, 2.0]), 0), (torch.tensor([3.0, 0.0]), 1)]
    found = second_moments(drawn(lambda: nn.Linear(2, 2)), TASK, data)
    assert found["weight"].tolist() == [[[10, 2], [2, 4]]]
    assert found["weight"].dtype == torch.float64


def test_padding_does_not_count(text_world: World) -> None:
    """Prompts of unlike length: together they are what they are one by one."""
    w = text_world
    items = [
        {**w.request.forget[0], "prompt": "what is the town of ann of bob of cid"},
        *map(w.request.forget.__getitem__, (1, 2)),
    ]
    together = second_moments(w.original, w.task, items)
    apart = [second_moments(w.original, w.task, Selection(items, [i])) for i in range(3)]
    assert together.keys() == set(projected_layers(w.original))
    for name, value in together.items():
        assert torch.allclose(value, sum((one[name] for one in apart), torch.zeros(())), rtol=1e-3, atol=1e-3)


def test_transposed_layers_are_covered(text_world: World) -> None:
    from transformers.pytorch_utils import Conv1D

    build: Any = Conv1D
    layer = drawn(lambda: build(3, 5))
    inputs = torch.randn(4, 5, generator=seeded(1))
    (rows,) = entering(layer, inputs)
    free = free_directions(rows.mT @ rows, 1.0)
    change = project(torch.randn(5, 3, generator=seeded(2)), free, transposed=True)
    assert change.shape == layer.weight.shape
    assert float(change.abs().max()) > 0.01, "four inputs leave one direction of five"
    assert torch.allclose(inputs @ change, torch.zeros(4, 3), atol=1e-5)
    assert list(projected_layers(nn.Sequential(layer))) == ["0.weight"]


def test_shared_and_frozen_weights_are_not_covered() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Conv1d(3, 3, 1))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    assert list(projected_layers(model)) == ["3.weight"]


# Which directions are free.


@pytest.mark.parametrize(("share", "k"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.83, 1), (0.84, 2), (1.0, 3)])
def test_k_by_hand(share: float, k: int) -> None:
    """S is 3, 2, 1 and 0: its cumulative shares are 1/2, 5/6 and 1; what retain never uses stays free."""
    turned, _ = torch.linalg.qr(torch.randn(4, 4, generator=seeded(3), dtype=torch.float64))
    moment = (turned * torch.tensor([9.0, 4.0, 1.0, 0.0], dtype=torch.float64)) @ turned.T
    free = free_directions(moment[None], share)[0]
    expected = turned[:, k:] @ turned[:, k:].T
    assert torch.allclose(free @ free.T, expected.float(), atol=1e-6)


def test_projection_is_by_group() -> None:
    """The first group may move along its second entry only, the second along its first."""
    moments = torch.diag_embed(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    change = torch.ones(4, 2, 1, 1)
    found = project(change, free_directions(moments, 1.0))
    assert found.flatten(1).tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


# What may be given.


def stored(model: nn.Module, request: Request, path: Path) -> Weights:
    every = [*map(request.forget.__getitem__, range(4)), *map(request.retain.__getitem__, range(len(request.retain)))]
    found = second_moments(model, TASK, every)
    save_file(found, path)
    return found


def test_stored_moments_take_the_place_of_retain(tmp_path: Path) -> None:
    model, request = drawn(lambda: nn.Linear(6, 3)), asked(6)
    stored(model, request, tmp_path / "all.safetensors")
    method = PGU(retained_var=0.8, fit=replace(ONCE, epochs=10))
    given = replace(method, stored=str(tmp_path / "all.safetensors"))
    usual = plain(model, request, method)
    assert not same(usual, model)
    found = plain(model, without_retain(World(request, TASK, model, ())), given)
    assert torch.allclose(found.weight, usual.weight, atol=1e-5)  # type: ignore[arg-type]


def test_refusals(tmp_path: Path) -> None:
    model, request = drawn(lambda: nn.Linear(6, 3)), asked(6)
    stored(drawn(lambda: nn.Linear(5, 3)), asked(5), tmp_path / "other.safetensors")
    for path, words in [("other", "expected stored to hold weight of shape"), ("none", "expected a checkpoint file")]:
        with pytest.raises(BadInput, match=words):
            plain(model, request, PGU(stored=str(tmp_path / f"{path}.safetensors")))
    without = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16))
    data = [(100 * x.flatten(), y) for x, y in blobs(12, 4, 1)]
    with pytest.raises(NotSupported, match="PGU: expected linear layers"):
        plain(without, Request(data[:3], data[3:6], data[6:9], data[9:]), PGU())
