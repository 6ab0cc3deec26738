"""DEL: criticality by hand, which weights start anew and which stay, to the bit, and its ends."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.unit.methods.test_blur import unlearned
from tests.worlds import CPU, World
from unrecall.errors import NotSupported
from unrecall.methods.example_localization import ExampleLocalization, by_channel, criticality, of_head, start_anew
from unrecall.models.importance import mean_gradient, most_salient
from unrecall.models.observe import accuracy, observe
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

SHORT = Fit(lr=0.015, weight_decay=0.1, epochs=3, batch_size=32)


def test_criticality_by_hand() -> None:
    """|theta g| of single weights; a gradient that isn't there counts for none."""
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -3.0]]))
    found = criticality(model, {"weight": torch.tensor([[-0.5, -1.0]])})
    assert set(found) == {"weight"}
    assert found["weight"].tolist() == [[1.0, 3.0]]


def test_channels_by_hand() -> None:
    """The mean of the two largest of twenty, whatever the filter's shape; of a vector the largest; of three, one."""
    first, second = [float(i) for i in range(20)], [1.0] * 18 + [7.0, 9.0]
    shared = by_channel(
        {
            "filter": torch.tensor([first, second]).view(2, 5, 2, 2),
            "matrix": torch.tensor([[1.0, 5.0, 2.0]]),
            "bias": torch.tensor([1.0, 4.0, 2.0]),
        }
    )
    assert shared["filter"].shape == (2, 5, 2, 2)
    assert [set(channel.flatten().tolist()) for channel in shared["filter"]] == [{18.5}, {8.0}]
    assert shared["matrix"].tolist() == [[5.0, 5.0, 5.0]]
    assert shared["bias"].tolist() == [4.0, 4.0, 4.0]


def test_channels_of_a_transposed_matrix_are_its_columns() -> None:
    """As Transformers' Conv1D holds it, [inputs, outputs]."""
    matrix = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 0.0]])
    shared = by_channel({"c.weight": matrix.T, "d.weight": matrix}, transposed={"c.weight"})
    assert torch.equal(shared["c.weight"].T, shared["d.weight"])
    assert shared["d.weight"].tolist() == [[5.0] * 3, [4.0] * 3]


def chosen(world: World, share: float) -> dict[str, Tensor]:
    model = copy.deepcopy(world.original).eval()
    gradients = mean_gradient(model, world.task, world.request.forget)
    return most_salient(by_channel(criticality(model, gradients)), share)


def test_critical_weights_start_anew_and_only_they(samples_world: World) -> None:
    w, model = samples_world, copy.deepcopy(samples_world.original)
    critical = chosen(w, 0.3)
    start_anew(model, critical, seeded(1))
    fresh = copy.deepcopy(w.original)
    start_anew(fresh, {name: torch.ones_like(p, dtype=torch.bool) for name, p in fresh.named_parameters()}, seeded(1))
    drawn, before = dict(fresh.named_parameters()), dict(w.original.named_parameters())
    for name, value in model.named_parameters():
        assert torch.equal(value, torch.where(critical[name], drawn[name], before[name]))
    assert sum(int(c.sum()) for c in critical.values()) == round(0.3 * sum(p.numel() for p in before.values()))
    assert not torch.equal(drawn["4.weight"], before["4.weight"])


def test_what_is_not_critical_stays_to_the_bit_but_in_the_head(samples_world: World) -> None:
    """Weight decay and momentum included."""
    w = samples_world
    result = dict(unlearned(ExampleLocalization(share=0.2, fit=SHORT), w).named_parameters())
    critical = chosen(w, 0.2)
    for name, before in w.original.named_parameters():
        still = ~critical[name]
        assert torch.equal(result[name][still], before[still]) == (not name.startswith("6.") or not bool(still.any()))
    moved = critical["4.weight"]
    assert bool(moved.any())
    assert not bool((result["4.weight"][moved] == w.original.get_parameter("4.weight")[moved]).any())


def test_the_head_is_told_by_its_weights_even_where_they_are_shared(text_world: World) -> None:
    """The small Llama's head is its table of words."""
    model = copy.deepcopy(text_world.original)
    job = Job(text_world.request, text_world.task, seeded(0), CPU)
    assert of_head(model, job) == {id(model.get_parameter("model.embed_tokens.weight"))}


def test_a_head_that_is_shared_is_trained_whole(text_world: World) -> None:
    """Every word's logit has a gradient, so that every row of the table moves; elsewhere little does."""
    result = unlearned(ExampleLocalization(share=0.01, fit=SHORT), text_world)
    before, after = (m.get_parameter("model.embed_tokens.weight") for m in (text_world.original, result))
    assert bool((before != after).any(1).all())
    gates = [m.get_parameter("model.layers.0.mlp.gate_proj.weight") for m in (text_world.original, result)]
    assert float((gates[0] != gates[1]).float().mean()) < 0.5


def test_a_class_is_forgotten_and_retain_learned_again(class_world: World) -> None:
    w = class_world
    result = unlearned(ExampleLocalization(fit=Fit(lr=0.05, weight_decay=0.0, epochs=8, batch_size=16)), w)
    before, after = (observe(m, w.task, w.request.forget).confidence.mean() for m in (w.original, result))
    assert after < before - 0.3
    assert accuracy(result, w.task, w.request.retain).mean() > 0.8


def test_a_share_grows_to_one_at_most() -> None:
    assert ExampleLocalization(share=0.3).scaled(2.0).share == pytest.approx(0.6)
    assert ExampleLocalization(share=0.3).scaled(64.0).share == 1


def test_refuses_layers_that_know_no_start(samples_world: World) -> None:
    """A module without parameters of its own but one scale that nothing resets."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(16, 4))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1) @ self.scale

    w = samples_world
    with pytest.raises(NotSupported, match="expected Scaled to have reset_parameters"):
        ExampleLocalization().unlearn(Scaled(), Job(w.request, Classification(), seeded(0), CPU))
