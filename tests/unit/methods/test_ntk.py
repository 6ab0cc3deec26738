"""NTK forgetting by hand: linearised trainings, the predicted length, and the sample."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.ntk import NTK, Sample, linearised, predicted_length
from unrecall.models.jacobian import Bound
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.randomness import seeded

ROOM = Bound("NTK", 1.0)


def line() -> nn.Linear:
    """z = (w_0 x, w_1 x)."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[1.0], [-1.0]])
    return model


def ridge(data: list[tuple[torch.Tensor, int]], total: float, decay: float, counts: list[float]) -> torch.Tensor:
    """The linearised training of `line`: -(sum_i c_i x_i^2 + n decay)^-1 sum_i c_i x_i (p_i - y_i), a class each."""
    below, above = total * decay, torch.zeros(2).double()
    for (x, y), count in zip(data, counts, strict=True):
        p = 1 / (1 + math.exp(-2 * float(x)))
        below += count * float(x) ** 2
        above += count * float(x) * (torch.tensor([p, 1 - p]).double() - torch.eye(2).double()[y])
    return -above / below


@pytest.mark.parametrize("counts", [(1, 1), (3, 2)])
def test_linearised_trainings_by_hand(counts: Any) -> None:
    """A sample's examples stand for several, as if they were there so often."""
    left, gone = [(torch.tensor([0.5]), 0), (torch.tensor([0.25]), 1)], [(torch.tensor([1.0]), 1)]
    sample = Sample(left, gone, 2 * counts[0], counts[1])
    full, without = linearised(line(), Classification(), sample, 0.1, ROOM)
    each = [float(counts[0])] * 2
    assert torch.allclose(full, ridge(left + gone, sum(each) + counts[1], 0.1, [*each, counts[1]]), atol=1e-6)
    assert torch.allclose(without, ridge(left, sum(each), 0.1, each), atol=1e-6)


def test_predicted_length_by_hand() -> None:
    move, way = torch.tensor([3.0, 4.0]), torch.tensor([-1.0, -2.0])
    assert predicted_length(move, way) == pytest.approx(5 + 2 * 11 / 5)
    assert predicted_length(move, -way) == pytest.approx(5 + 2 * 11 / 5)
    assert predicted_length(move, torch.tensor([4.0, -3.0])) == pytest.approx(5)
    assert predicted_length(torch.zeros(2), way) == 0


def test_step_by_hand_from_a_given_start(tmp_path: Path) -> None:
    """The step has the direction of w_ret - w_full and the predicted length."""
    left, gone = [(torch.tensor([0.5]), 0), (torch.tensor([0.25]), 1)], [(torch.tensor([1.0]), 1)]
    beginning = line()
    beginning.weight.data = torch.tensor([[0.2], [0.1]])
    weights.save(beginning, tmp_path / "start.safetensors")
    full, without = ridge(left + gone, 3, 0.1, [1, 1, 1]), ridge(left, 2, 0.1, [1, 1])
    move, way = without - full, torch.tensor([0.8, -1.1]).double() - without
    expected = 2 * predicted_length(move, way) * move / move.norm()
    method = NTK(scale=2.0, start=str(tmp_path / "start.safetensors"))
    result = method.unlearn(line(), Job(Request(gone, left), Classification(), seeded(0), CPU))
    step = result.weight.detach()[:, 0] - torch.tensor([1.0, -1.0])  # type: ignore[operator,union-attr]
    assert torch.allclose(step.double(), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("examples", "gone", "left"), [(256, 20, 140), (100, 20, 80), (20, 10, 10), (155, 20, 135), (1, 1, 1)]
)
def test_sample_holds_both_sets(samples_world: World, examples: int, gone: int, left: int) -> None:
    w = samples_world
    sample = NTK(examples=examples)._sample(Job(w.request, w.task, seeded(0), CPU))
    assert (len(sample.forget), len(sample.retain)) == (gone, left)
    assert float(sample.counts.sum()) == pytest.approx(160)


def test_a_start_must_be_there_and_fit(samples_world: World, tmp_path: Path) -> None:
    w = samples_world
    with pytest.raises(BadInput, match="NTK: expected start to be the path of a safetensors file, or empty, got"):
        NTK(start=str(tmp_path / "none.safetensors"))
    weights.save(line(), tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match="expected the weights of this architecture"):
        NTK(start=str(tmp_path / "other.safetensors")).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_what_can_not_be_held_is_refused(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match=r"NTK: expected per-example gradients of at most 0.001 GB"):
        NTK(memory=1e-3).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_frozen_weights_stay(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original)
    model[4].requires_grad_(False)  # type: ignore[index]
    result = NTK().unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    before, after = model.state_dict(), result.state_dict()
    assert torch.equal(before["4.weight"], after["4.weight"])
    assert not torch.equal(before["6.weight"], after["6.weight"])
