"""BLUR: the deflected gradient by hand, the step against plain autograd, and what it can't go around."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.unit.methods.test_language import whole
from tests.worlds import CPU, World
from unrecall.data.batches import Batch
from unrecall.data.examples import Selection
from unrecall.errors import NotSupported
from unrecall.methods.base import GradientMethod, Method, Plugin
from unrecall.methods.blur import BLUR, deflect
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.lora import LoRA
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.npo import NPO
from unrecall.methods.rurk import RURK
from unrecall.methods.ssiuu import SSIUU
from unrecall.models.observe import accuracy
from unrecall.training.job import Job
from unrecall.training.loop import Fit, StepState
from unrecall.training.randomness import seeded
from unrecall.training.terms import product

SGD = Fit(lr=0.5, momentum=0.0, weight_decay=0.0, batch_size=20)


def unlearned(method: Method, world: World) -> nn.Module:
    return method.unlearn(world.original, Job(world.request, world.task, seeded(0), CPU))


def both(world: World) -> dict[str, Batch]:
    """All 20 of forget, and as many of retain."""
    retain = Selection(world.request.retain, list(range(20)))
    return {"forget": whole(world.request.forget, world.task), "retain": whole(retain, world.task)}


def after_a_step(method: Plugin, world: World, clip: float | None = None, accumulate: int = 1) -> nn.Module:
    """The weights after one step of plain SGD at a rate of 0.5, in eval mode throughout."""
    student = copy.deepcopy(world.original).eval()
    (phase,) = method.phases(student, world.original, Job(world.request, world.task, seeded(0), CPU))
    optimizer = torch.optim.SGD(student.parameters(), 0.5)
    phase.step(StepState(student, both(world), phase.loss, optimizer, clip, accumulate=accumulate))
    return student


def gradients(model: nn.Module, world: World, split: str) -> Tensor:
    """The gradient of CE over one of the batches, all weights in a row."""
    loss = world.task.rows(model, both(world)[split]).losses().mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([float(v) for v in values]))


def test_deflected_by_hand() -> None:
    """<g_r, g_f> = 2 * 1 + 3 * 2 = 8 and |g_f|^2 = 5: xi = 2 - 8/5 = 0.4 over both tensors; the third has no g_f."""
    first, second, third = weight(0, 0), weight(0), weight(0)
    retain = {first: torch.tensor([2.0, 7.0]), second: torch.tensor([3.0]), third: torch.tensor([4.0])}
    forget = {first: torch.tensor([1.0, 0.0]), second: torch.tensor([2.0])}
    deflected = deflect(retain, forget, gamma=2.0)
    assert deflected[first].tolist() == pytest.approx([2.4, 7.0])
    assert deflected[second].tolist() == pytest.approx([3.8])
    assert deflected[third].tolist() == [4.0]
    assert float(product(deflected, forget)) == pytest.approx(2.0 * 5)


def test_without_a_gradient_of_forget_it_is_retains() -> None:
    alone = weight(0, 0)
    assert deflect({alone: torch.tensor([2.0, 7.0])}, {alone: torch.zeros(2)}, gamma=1.0)[alone].tolist() == [2.0, 7.0]
    assert deflect({}, {alone: torch.ones(2)}, gamma=3.0)[alone].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("clip", "accumulate"), [(None, 1), (0.01, 1), (None, 3)])
def test_a_step_is_that_of_plain_autograd(samples_world: World, clip: float | None, accumulate: int) -> None:
    w = samples_world
    moved = after_a_step(BLUR(base=GradDiff(gamma=0.3, alpha=0.7, fit=SGD), gamma=2.0), w, clip, accumulate)
    original = copy.deepcopy(w.original).eval()
    g_f, g_r = -0.3 * gradients(original, w, "forget"), 0.7 * gradients(original, w, "retain")
    step = g_r + (2.0 - g_r.dot(g_f) / g_f.dot(g_f)) * g_f
    step = step if clip is None else step * clip / step.norm()
    assert torch.allclose(flat(moved), flat(original) - 0.5 * step, atol=2e-6)


def test_both_orders_of_the_losses_are_understood(samples_world: World) -> None:
    """NegGrad+ names retain first."""
    base = NegGradPlus(beta=0.3, fit=SGD)
    same = GradDiff(gamma=0.3, fit=SGD)
    first, second = (flat(after_a_step(BLUR(base=b), samples_world)) for b in (base, same))
    assert torch.allclose(first, second, atol=1e-6)


def test_around_a_low_rank_change(text_world: World) -> None:
    fit = Fit(optimizer="adamw", lr=1e-2, weight_decay=0.0, batch_size=10, epochs=5)
    result = unlearned(LoRA(r=2, base=BLUR(base=NPO(fit=fit))), text_world)
    assert accuracy(result, text_world.task, text_world.request.forget).mean() < 0.95


@pytest.mark.parametrize(
    ("base", "named"),
    [
        (GradAscent(), "GradAscent"),
        (NPO(retain_weight=0.0), "NPO"),
        (RURK(), "RURK"),
        (SSIUU(base=GradDiff()), "SSIUU"),
        (BLUR(), "BLUR"),
    ],
)
def test_refuses_what_it_cant_deflect(samples_world: World, base: GradientMethod, named: str) -> None:
    with pytest.raises(NotSupported, match=f"BLUR: expected a base that takes plain steps on .* retain, got {named}"):
        unlearned(BLUR(base=base), samples_world)


def test_refuses_a_loss_that_another_plugin_put_around_it(samples_world: World) -> None:
    with pytest.raises(NotSupported, match="BLUR: expected to be asked for the base's own loss"):
        unlearned(SSIUU(base=BLUR(base=GradDiff())), samples_world)
