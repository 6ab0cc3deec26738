"""Update inversion: a Newton step is turned back into what it removed, cosines by hand, and both controls."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks.running import setting_of
from tests.worlds import CPU, World
from unrecall.attacks.update_inversion import UpdateInversion
from unrecall.data.examples import Absent, iterate
from unrecall.disk.weights import digest_of
from unrecall.errors import MissingReference
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.inspection import inspection_finding
from unrecall.models.curvature import Curvature, solved
from unrecall.models.importance import all_weights, mean_gradient, per_example
from unrecall.models.vector import flat, move, shaped
from unrecall.training.randomness import own_randomness


def linear(world: World) -> nn.Module:
    """A linear classifier of the world's pictures, trained a little on all of them."""
    request = world.request
    items = [*iterate(request.retain), *iterate(request.forget)]  # type: ignore[arg-type]
    x = torch.stack([item[0] for item in items])
    y = torch.tensor([int(item[1]) for item in items])
    with own_randomness(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def without(model: nn.Module, world: World, place: int) -> tuple[nn.Module, World]:
    """A Newton step that removes one example of forget, by the curvature of the test set; and the request for it."""
    one = [world.request.forget[place]]
    weights = {name: p.detach() for name, p in model.named_parameters()}
    gradient = flat(mean_gradient(model, world.task, one))
    curvature = Curvature(model, world.task, world.request.test, weights)
    moved = copy.deepcopy(model)
    move(moved, weights, solved(curvature, gradient, 1e-6, 400, 1e-10))
    return moved, replace(world, request=replace(world.request, forget=one))


def test_a_newton_step_gives_its_example_away(samples_world: World) -> None:
    """Of one deleted example the gradient is found, so that it scores above every other one."""
    model = linear(samples_world)
    for place in (0, 3, 5):
        moved, world = without(model, samples_world, place)
        setting = Setting(Models(model, moved, ()), world.request, world.task, 0, CPU)
        assert UpdateInversion().inspect(moved, setting).value.value == 1


def test_scores_by_hand(samples_world: World) -> None:
    """AUC of cos(g(x), H d), the gradients and the Hessian from plain autograd; a block is the last layer alone."""
    w, model = samples_world, linear(samples_world)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    layer, x, y = model[1], *(list(part) for part in zip(*iterate(w.request.test), strict=True))  # type: ignore[index]

    def loss(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(x.flatten(1) @ weight.T + bias, y)

    before = layer.weight.detach(), layer.bias.detach()
    change = tuple(b.detach() - a for a, b in zip(before, moved[1].parameters(), strict=True))  # type: ignore[index]
    public = torch.stack(x), torch.tensor([int(label) for label in y])
    _, turned = torch.autograd.functional.hvp(lambda a, b: loss(a, b, *public), before, change)
    z = torch.cat([part.flatten() for part in turned])
    scores = []
    for arm in (w.request.forget, w.request.retain):
        scores.append([])
        for picture, label in iterate(arm):
            inputs = tuple(part.clone().requires_grad_(True) for part in before)
            value = loss(*inputs, picture[None], torch.tensor([int(label)]))
            g = torch.cat([part.flatten() for part in torch.autograd.grad(value, inputs)])
            scores[-1].append(float(g @ z / g.norm() / z.norm()))
    members, others = map(np.array, scores)
    expected = (members[:, None] > others).mean()
    setting = Setting(Models(model, moved, ()), w.request, w.task, 0, CPU)
    digests = digest_of(model), digest_of(moved)
    inside = UpdateInversion().inspect(moved, setting)
    assert inside.value.value == pytest.approx(expected, abs=1e-3)
    assert inside.lines["block"][-1] == pytest.approx(expected, abs=1e-3)
    assert (digest_of(model), digest_of(moved)) == digests
    few = UpdateInversion(most=5).inspect(moved, setting).value
    assert few.n == 10


def test_a_block_s_line_has_its_own_weights_alone(samples_world: World) -> None:
    """Where the last layer alone has changed, no product with H of the last block's weights alone is that of all."""
    w, moved = samples_world, copy.deepcopy(samples_world.original)
    last = list(moved.parameters())[-2]
    with torch.no_grad():
        last.add_(0.01 * torch.randn(last.shape, generator=torch.Generator().manual_seed(3)))
    inside = UpdateInversion().inspect(moved, setting_of(w))
    weights = all_weights(w.original)
    change = flat({n: p.detach() - weights[n] for n, p in moved.named_parameters()})
    z = shaped(Curvature(w.original, w.task, w.request.test, weights).product(change), weights)
    names = [name for name in weights if name.startswith("6.")]
    head = torch.cat([z[name].flatten() for name in names])
    scores = []
    for arm in (w.request.forget, w.request.retain):
        parts = per_example(w.original, w.task, arm, weights)
        gradients = torch.cat([torch.cat([part[name].flatten(1) for name in names], 1) for part in parts])
        scores.append(nn.functional.cosine_similarity(gradients.double(), head.double()[None]).numpy())
    assert inside.lines["block"][-1] == pytest.approx((scores[0][:, None] > scores[1]).mean(), abs=1e-3)
    assert inside.lines["block"][-1] != inside.value.value


def test_the_control_tells_one_example(samples_world: World) -> None:
    w = samples_world
    setting = replace(setting_of(w), request=replace(w.request, forget=w.request.forget[:1]))  # type: ignore[index]
    models = Models(w.original, w.retrained[0], w.retrained)
    finding = inspection_finding(UpdateInversion(), replace(setting, models=models))
    assert "sees which examples an exact Newton step deleted: 1.00" in finding.report.positive_control
    (row,) = finding.measurements
    assert not row.judged
    assert row.original.value is None and "no change" in row.original.note
    assert "both models, of before and after" in finding.report.note


def test_frozen_weights_change_nothing(samples_world: World) -> None:
    w, frozen = samples_world, copy.deepcopy(samples_world.original)
    frozen[0].requires_grad_(False)  # type: ignore[index,operator]
    setting = replace(setting_of(w), request=replace(w.request, forget=w.request.forget[:1]))  # type: ignore[index]
    values = []
    for original in (w.original, frozen):
        held = replace(setting, models=Models(original, w.retrained[0], w.retrained))
        values.append(inspection_finding(UpdateInversion(), held))
    assert values[0].measurements == values[1].measurements
    assert values[0].report == values[1].report


def test_what_it_lacks_is_said(samples_world: World) -> None:
    w, setting = samples_world, setting_of(samples_world)
    without = replace(setting, request=replace(w.request, test=Absent("nobody knows")))
    with pytest.raises(MissingReference, match="nobody knows"):
        UpdateInversion().inspect(w.retrained[0], without)
    endless = copy.deepcopy(w.original)
    with torch.no_grad():
        next(endless.parameters()).fill_(float("inf"))
    assert "finite" in UpdateInversion().inspect(endless, setting).value.note
