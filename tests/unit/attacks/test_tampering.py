"""Noise and pruning of weights: by hand, what they leave alone, and a positive and a negative control each."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.attacks.running import attacked, job_of, setting_of
from tests.worlds import World
from unrecall.attacks.base import RecoveryAttack, usefulness
from unrecall.attacks.prune import Prune, edge
from unrecall.attacks.weight_noise import WeightNoise
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput
from unrecall.harness.scoring import score_finding
from unrecall.models.layers import matrices, weight_of
from unrecall.models.observe import accuracy


def weights(model: nn.Module, w: World) -> list[Tensor]:
    return [weight_of(layer).clone() for layer in matrices(model, w.task, w.request.retain)]


def test_the_smallest_weights_go_by_hand() -> None:
    weight = torch.tensor([[0.1, -0.2, 0.3], [-0.4, 0.5, 0.0]])
    # Of six weights none goes, one (which is 0), two, three, and three again, where 3.6 would.
    assert [float(edge(weight, share)) for share in (0.1, 0.2, 0.34, 0.5, 0.6)] == pytest.approx(
        [-1.0, 0.0, 0.1, 0.2, 0.2]
    )


@pytest.mark.parametrize("attack", [Prune(shares=(0.3,)), WeightNoise(levels=(0.1,), draws=1)], ids=["prune", "noise"])
def test_matrices_alone_change_and_the_model_not_at_all(attack: RecoveryAttack, text_world: World) -> None:
    w, before = text_world, digest_of(text_world.original)
    (one,) = attacked(attack, w.original, w)
    assert digest_of(w.original) == before
    state = w.original.state_dict()
    changed = {name for name, value in one.model.state_dict().items() if not torch.equal(value, state[name])}
    assert changed == {name for name in state if "proj" in name}


def test_pruned_weights_are_0_and_the_others_as_they_were(samples_world: World) -> None:
    w = samples_world
    found = attacked(Prune(shares=(0.5, 0.25)), w.original, w)
    assert [one.budget for one in found] == [0.25, 0.5]
    for one in found:
        for weight, before in zip(weights(one.model, w), weights(w.original, w), strict=True):
            gone = weight == 0
            assert int(gone.sum()) == int(one.budget * weight.numel())
            assert torch.equal(weight[~gone], before[~gone])
            assert before[gone].abs().max() <= before[~gone].abs().min()


def test_noise_has_the_size_that_it_should_and_grows_with_the_level(samples_world: World) -> None:
    w = samples_world
    found = attacked(WeightNoise(levels=(0.2, 0.1), draws=2), w.original, w)
    assert [(one.budget, one.variant) for one in found] == [
        *((0.1, "draw 1"), (0.2, "draw 1")),
        *((0.1, "draw 2"), (0.2, "draw 2")),
    ]
    before = weights(w.original, w)
    noise = [[after - was for after, was in zip(weights(one.model, w), before, strict=True)] for one in found]
    for weight, low, high, other in zip(before, noise[0], noise[1], noise[2], strict=True):
        assert torch.allclose(2 * low, high, atol=1e-6)
        assert not torch.allclose(low, other)
        size = float(low.square().mean().sqrt() / weight.square().mean().sqrt())
        assert size == pytest.approx(0.1, abs=4 * 0.1 / (2 * weight.numel()) ** 0.5)


def test_a_ruined_classifier_is_of_no_use(class_world: World, text_world: World) -> None:
    w = class_world
    ruined = copy.deepcopy(w.original)
    with torch.no_grad():
        list(ruined.parameters())[-1][0] += 1e3  # every answer is the first class
    useful = usefulness(w.original, setting_of(w), 0.1)
    assert useful(w.original)
    assert not useful(ruined)
    shown = [one.useful for one in attacked(WeightNoise(levels=(0.01, 50.0), draws=1), w.original, w)]
    assert shown == [True, False]
    assert usefulness(text_world.original, setting_of(text_world), 0.0)(ruined), "texts always count"


def test_pruning_makes_of_its_disguise_what_it_makes_of_the_original(class_world: World) -> None:
    w, attack = class_world, Prune(shares=(0.2, 0.4))
    copied = attack.disguise(w.original, job_of(w))
    assert copied is not None
    assert accuracy(copied, w.task, w.request.forget).mean() <= 0.5
    pruned = [attacked(attack, model, w)[1].model for model in (copied, w.original)]
    for mine, known in zip(*(weights(model, w) for model in pruned), strict=True):
        assert torch.equal(mine, known)


@pytest.mark.parametrize(
    ("attack", "values"),
    [
        (WeightNoise, {"levels": (0.0,)}),
        (WeightNoise, {"levels": ()}),
        (WeightNoise, {"draws": 0}),
        (Prune, {"shares": (0.0,)}),
        (Prune, {"shares": (1.0,)}),
        (Prune, {"shares": ()}),
    ],
)
def test_impossible_budgets_are_refused(attack: type[Any], values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{attack.__name__}: expected"):
        attack(**values)


@pytest.mark.parametrize("attack", [Prune(), WeightNoise(draws=2)], ids=["prune", "noise"])
@pytest.mark.parametrize("kind", ["class", "text"])
def test_both_controls_hold(attack: RecoveryAttack, kind: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(f"{kind}_world")
    report = score_finding(attack, setting_of(world, world.retrained[0])).report
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control
