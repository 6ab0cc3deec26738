"""The line from a model to the original, and the distance between them: by hand, and with both controls."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks.running import setting_of
from tests.worlds import World
from unrecall.attacks.interpolate import Interpolate, crossing, half_back
from unrecall.attacks.weight_distance import WeightDistance
from unrecall.disk.weights import digest_of
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Models
from unrecall.harness.inspection import inspection_finding
from unrecall.models.observe import observe
from unrecall.models.vector import side_by_side

THIRDS = np.array([0, 1 / 3, 2 / 3, 1])


def scaled(model: nn.Module, factor: float) -> nn.Module:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(factor)
    return copied


def test_half_the_way_back_by_hand() -> None:
    lines = {
        (0.0, 0.2, 0.8, 1.0): 0.5,  # .5 is in the middle of .2 and .8
        (0.4, 0.1, 0.3, 0.8): 2 / 3 + 0.6 / 3,  # a barrier: .6 lies .3 of .5 beyond .3
        (0.0, 0.9, 0.1, 1.0): 0.5 / 0.9 / 3,  # the first time counts
        (0.5, 0.5, 0.5, 0.5): 0.0,
        (0.9, 0.7, 0.5, 0.4): 0.0,  # it shows more than the original
    }
    assert crossing(THIRDS, np.array(list(lines)).T) == pytest.approx(list(lines.values()))


def test_the_interval_is_the_jackknife_s() -> None:
    """Two ends: half-way is always one half, whatever is left out. Alone, an example has no interval."""
    even = half_back(np.array([0.0, 1.0]), np.array([[0.1, 0.2, 0.3], [0.9, 0.8, 0.5]]))
    assert (even.value, even.low, even.high, even.n) == (*[pytest.approx(0.5)] * 3, 3)
    two = half_back(THIRDS, np.array([[0.0, 0.0], [0.2, 0.0], [0.8, 0.2], [1.0, 1.0]]))
    # Means 0, .1, .5, 1; one by one half-way is at .5 and at 2/3 + 3/8/3.
    assert two.value == pytest.approx(2 / 3)
    assert two.low == 0 and two.high == 1, "two examples tell little"
    alone = half_back(THIRDS, np.array([[0.0], [0.2], [0.8], [1.0]]))
    assert (alone.value, alone.low) == (pytest.approx(0.5), None)


def test_the_ends_of_the_line_are_the_model_and_the_original(samples_world: World) -> None:
    w, model = samples_world, scaled(samples_world.original, 0.5)
    before = digest_of(w.original), digest_of(model)
    inside = Interpolate(points=3).inspect(model, setting_of(w, model))
    for split in ("forget", "retain"):
        examples = list(w.request[split])[:500]  # type: ignore[index,call-overload]
        ends = [float(observe(scaled(w.original, k), w.task, examples).confidence.mean()) for k in (0.5, 1.0)]
        assert [inside.lines[split][i] for i in (0, 2)] == pytest.approx(ends, abs=1e-6)
    assert inside.x == (0, 0.5, 1)
    assert (digest_of(w.original), digest_of(model)) == before
    assert Interpolate().inspect(w.original, setting_of(w)).value.value == 0


def test_distance_by_hand(samples_world: World) -> None:
    w = samples_world
    halved = WeightDistance().inspect(scaled(w.original, 0.5), setting_of(w))
    assert halved.value.value == pytest.approx(0.5)
    assert halved.lines["distance"] == pytest.approx([0.5] * len(halved.x))
    assert WeightDistance().inspect(w.original, setting_of(w)).value.value == 0
    moved = copy.deepcopy(w.original)
    last = list(moved.parameters())[-1]
    with torch.no_grad():
        last.add_(3.0)
    length = sum(float(p.detach().double().square().sum()) for p in w.original.parameters()) ** 0.5
    inside = WeightDistance().inspect(moved, setting_of(w))
    assert inside.value.value == pytest.approx(3 * last.numel() ** 0.5 / length, rel=1e-5)
    assert [distance > 0 for distance in inside.lines["distance"]] == [False] * (len(inside.x) - 1) + [True]


def test_models_of_another_form_are_refused(samples_world: World) -> None:
    w = samples_world
    other = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(NotSupported, match="the same names and shapes"):
        side_by_side(other, w.original)


@pytest.mark.parametrize("attack", [Interpolate(), WeightDistance()], ids=["interpolate", "weight_distance"])
def test_a_copy_that_hides_lies_nearer_than_retrained_models(
    attack: Interpolate | WeightDistance, samples_world: World
) -> None:
    w = samples_world
    setting = setting_of(w)
    finding = inspection_finding(attack, replace(setting, models=Models(w.original, w.retrained[0], w.retrained)))
    assert finding.report.positive_holds, finding.report.positive_control
    assert finding.report.negative_holds, finding.report.negative_control
    (row,) = finding.measurements
    assert row.leak == "below"
    assert not row.judged
    assert row.original.value == 0
    assert row.reference is not None and row.reference > 0.2
    assert "retrained models" in finding.report.note
