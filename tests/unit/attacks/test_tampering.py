"""Noise, pruning and other roundings of weights: by hand, what they leave alone, and both controls of each."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.attacks.running import attacked, job_of, setting_of
from tests.worlds import World
from unrecall.attacks.base import RecoveryAttack
from unrecall.attacks.prune import Prune, edge
from unrecall.attacks.quantise import Quantise
from unrecall.attacks.weight_noise import WeightNoise
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.models.layers import matrices, weight_of
from unrecall.models.observe import accuracy
from unrecall.models.rounding import (
    NORMAL_FLOATS,
    _inputs,
    input_moments,
    to_compensated_levels,
    to_even_levels,
    to_normal_floats,
)
from unrecall.nn.hooks import capture, mode
from unrecall.training.copies import usefulness
from unrecall.training.randomness import seeded


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


@pytest.mark.parametrize("attack", [Prune(shares=(0.5,)), WeightNoise(levels=(0.4,), draws=1), Quantise(bits=(2,))])
def test_weights_that_are_computed_from_others_are_refused(samples_world: World, attack: RecoveryAttack) -> None:
    w = samples_world
    model = copy.deepcopy(w.original)
    nn.utils.parametrizations.weight_norm(next(m for m in model.modules() if isinstance(m, nn.Linear)))
    with pytest.raises(NotSupported, match="expected weights that can be written"):
        attacked(attack, model, w)


def test_a_weight_that_two_layers_share_is_changed_once(samples_world: World) -> None:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(6), first, second, nn.Linear(6, 4))
    model(torch.stack([samples_world.request.retain[0][0]]))
    listed = matrices(model, samples_world.task, samples_world.request.retain)
    assert [layer is first for layer in listed] == [False, True]


def test_a_ruined_classifier_is_of_no_use(class_world: World, text_world: World) -> None:
    w = class_world
    ruined = copy.deepcopy(w.original)
    with torch.no_grad():
        list(ruined.parameters())[-1][0] += 1e3  # every answer is the first class
    useful = usefulness(w.original, w.request, w.task, 0.1)
    assert useful(w.original)
    assert not useful(ruined)
    shown = [one.useful for one in attacked(WeightNoise(levels=(0.01, 50.0), draws=1), w.original, w)]
    assert shown == [True, False]
    assert usefulness(text_world.original, text_world.request, text_world.task, 0.0)(ruined), "texts always count"


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


# Rounding by other rules than to the nearest even level.


def test_normal_floats_by_hand() -> None:
    """Levels 1, -.6962, .0796 and 0 of groups whose largest magnitudes are 2 and 1; a group of 0 stays."""
    weight = torch.tensor([[2.0, -1.3, 0.2, 0.04, -1.0, 0.63, 0.0, 0.0], [0.0] * 8])
    rounded = to_normal_floats(weight, 4)
    levels = [2.0, -0.6961928 * 2, 0.0795803 * 2, 0.0, -1.0, 0.562617, 0.0, 0.0]
    assert torch.allclose(rounded.weight, torch.tensor([levels, [0.0] * 8]), atol=1e-6)
    # To the next level: 1 - .72296, .69619 - .52507, .07958 and .07958, each of the first group twice as much.
    steps = [2 * (1 - 0.7229568), 2 * (0.6961928 - 0.5250731), 2 * 0.0795803, 2 * 0.0795803]
    assert rounded.step[0, :4].tolist() == pytest.approx(steps, abs=1e-6)


def test_each_weight_goes_to_its_nearest_normal_float() -> None:
    weight = torch.randn(6, 100, generator=seeded(0))
    rounded = to_normal_floats(weight, 64)
    levels = torch.tensor(NORMAL_FLOATS) * rounded.top[..., None]
    nearest = (weight[..., None] - levels).abs().amin(-1)
    assert torch.allclose((weight - rounded.weight).abs(), nearest, atol=1e-6)
    assert len(NORMAL_FLOATS) == 16


def test_compensation_by_hand() -> None:
    """Two inputs that always come together: what rounding the first loses the second makes up for, but for damping."""
    weight, moments = torch.tensor([[0.24, 0.7]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    # The step is .1: 0.24 -> 0.2, then 0.7 + 0.04 / 1.01 -> 0.7, and clamped no higher than 7 steps.
    assert torch.allclose(to_compensated_levels(weight, 4, 64, moments), torch.tensor([[0.2, 0.7]]))
    weight = torch.tensor([[0.24, 0.324, -0.7]])
    together = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    # 0.324 alone is 0.3; with the 0.04 that the first lost it is 0.3636, which is 0.4.
    assert torch.allclose(to_compensated_levels(weight, 4, 64, together), torch.tensor([[0.2, 0.4, -0.7]]))
    assert torch.allclose(to_compensated_levels(weight, 4, 64, torch.eye(3)), torch.tensor([[0.2, 0.3, -0.7]]))
    assert torch.allclose(to_compensated_levels(weight, 4, 64, torch.zeros(3, 3)), torch.tensor([[0.2, 0.3, -0.7]]))


def test_compensation_changes_outputs_less_than_rounding() -> None:
    inputs = torch.randn(200, 24, generator=seeded(0)) @ torch.randn(24, 24, generator=seeded(1))
    weight = torch.randn(8, 24, generator=seeded(2))
    apart = to_even_levels(weight, 3, 8).weight
    together = to_compensated_levels(weight, 3, 8, (inputs.T @ inputs).double())
    errors = [float((inputs @ (weight - rounded).T).square().mean()) for rounded in (apart, together)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (nn.Conv2d(2, 2, 3, padding=1), True),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), False),
        (nn.Conv2d(2, 2, 3, padding="same"), False),
        (nn.Conv2d(2, 2, 3, groups=2), False),
    ],
)
def test_of_a_convolution_that_is_no_matrix_on_patches_nothing_is_said(layer: nn.Conv2d, plain: bool) -> None:
    """`unfold` pads with zeros, whatever the layer pads with."""
    assert (_inputs(layer, torch.ones(1, 2, 4, 4), None) is not None) == plain


def test_what_enters_a_layer_meets_its_weight(samples_world: World, text_world: World) -> None:
    """With X'X of its inputs, |X W'|^2 of a layer's outputs is the trace of W X'X W', without the bias."""
    for w in (samples_world, text_world):
        layers = {str(i): layer for i, layer in enumerate(matrices(w.original, w.task, w.request.retain))}
        read = [w.request.retain[i] for i in range(5)]
        moments = input_moments(w.original, w.task, read, layers)
        assert moments.keys() == layers.keys()
        squares: dict[str, float] = {}

        def look(name: str, output: Tensor) -> None:
            bias = layers[name].bias  # noqa: B023
            plain = output if bias is None else output - bias.view(-1, *[1] * (output.ndim - 2))
            held = positions if positions is not None else torch.ones(())  # noqa: B023
            squares[name] = float((plain.double() * (held[..., None] if held.ndim else held)).square().sum())  # noqa: B023

        batch = w.task.collate(read)
        positions = w.task.positions(batch)
        with torch.no_grad(), mode(w.original, training=False), capture(layers, look):
            w.task.rows(w.original, batch)
        for name, layer in layers.items():
            matrix = weight_of(layer).flatten(1).double()
            assert float((matrix @ moments[name] @ matrix.T).trace()) == pytest.approx(squares[name], rel=1e-4)


@pytest.mark.parametrize("rounding", ["nf4", "gptq"])
def test_other_roundings_stand_in_the_name_and_their_controls_hold(rounding: Any, text_world: World) -> None:
    attack = Quantise(rounding=rounding)
    report = score_finding(attack, setting_of(text_world, text_world.retrained[0])).report
    assert report.name == f"quantise_{rounding}"
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control


def test_normal_floats_have_4_bits() -> None:
    with pytest.raises(BadInput, match="4 or 8 bits with rounding='nf4', got 3"):
        Quantise(rounding="nf4", bits=(4, 3))
