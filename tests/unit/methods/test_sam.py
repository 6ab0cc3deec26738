"""SAM: the gradient from nearby against plain autograd, weights and statistics put back, and what it can't wrap."""

import copy
import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.laws.test_methods import same
from tests.unit.methods.test_blur import SGD, after_a_step, flat, gradients, unlearned
from tests.worlds import CPU, World
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Batches, GradientMethod, Job, Null, Phase
from unrecall.methods.blur import BLUR
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.jensun import JensUn
from unrecall.methods.random_label import RandomLabel
from unrecall.methods.rurk import RURK
from unrecall.methods.sam import SAM, moved
from unrecall.methods.ssiuu import SSIUU
from unrecall.training.randomness import seeded
from unrecall.training.terms import Terms


def test_moves_by_hand_and_comes_back_exactly() -> None:
    """(3, 4) over two tensors has the length 5: at distance 10 the weights move by 6 and 8."""
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    first, second = model[0].weight, model[0].bias
    before, statistics = [p.detach().clone() for p in (first, second)], copy.deepcopy(model[1].state_dict())
    with moved(model, {first: torch.tensor([[3.0]]), second: torch.tensor([4.0])}, 10.0):  # type: ignore[dict-item]
        moves = [float((p.detach() - old).sum()) for p, old in zip((first, second), before, strict=True)]
        assert moves == pytest.approx([6.0, 8.0], abs=1e-5)
        model.train()(torch.tensor([[1.0], [5.0]]))
    assert torch.equal(first, before[0])  # type: ignore[arg-type]
    assert torch.equal(second, before[1])  # type: ignore[arg-type]
    assert all(torch.equal(value, statistics[name]) for name, value in model[1].state_dict().items())


@pytest.mark.parametrize(
    ("base", "draws"),
    [(JensUn(fit=SGD), "other_classes"), (RandomLabel(fit=SGD), "any_classes"), (GradAscent(fit=SGD), "")],
)
def test_both_passes_draw_alike(
    samples_world: World, base: GradientMethod, draws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that draws labels from the job's generator, or anything from torch's own, is one loss at both places."""
    w, labels, numbers = samples_world, [], []
    module = importlib.import_module(type(base).__module__)
    if draws:
        real = getattr(module, draws)

        def spied(*arguments: Any) -> Tensor:
            labels.append(real(*arguments).tolist())
            return torch.tensor(labels[-1])

        monkeypatch.setattr(module, draws, spied)

    class Drawing(type(base)):  # type: ignore[misc]
        def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
            (phase,) = super().phases(student, original, job)
            terms = phase.loss.terms if isinstance(phase.loss, Terms) else {"forget": phase.loss}

            def forget(model: nn.Module, batches: Batches) -> Tensor:
                numbers.append(float(torch.rand(())))
                return numbers[-1] * terms["forget"](model, batches)

            return [replace(phase, loss=Terms({**terms, "forget": forget}))]

    drawing = Drawing(fit=replace(SGD, epochs=2, batch_size=8))
    SAM(base=drawing).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    for drawn in (numbers, labels):
        assert drawn[::2] == drawn[1::2], "the two passes of a step"
    assert len({*numbers}) == len(numbers) / 2
    assert not draws or len({str(of_batch) for of_batch in labels}) == len(labels) / 2, "and another draw in each step"


def test_no_direction_is_no_move() -> None:
    alone = nn.Linear(1, 1)
    before = alone.weight.detach().clone()
    with moved(alone, {alone.weight: torch.zeros(1, 1)}, 10.0):
        assert torch.equal(alone.weight, before)


@pytest.mark.parametrize("base", [GradDiff(gamma=0.3, alpha=0.7, fit=SGD), GradAscent(fit=SGD)])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_is_that_of_plain_autograd(samples_world: World, base: GradientMethod, accumulate: int) -> None:
    """Retain's gradient, where the base has one, is that at theta itself."""
    w, original = samples_world, copy.deepcopy(samples_world.original).eval()
    forget, retain = (0.3, 0.7) if isinstance(base, GradDiff) else (1.0, 0.0)
    up = -forget * gradients(original, w, "forget")
    nearby = copy.deepcopy(original)
    nn.utils.vector_to_parameters(flat(original) + 0.5 * up / up.norm(), nearby.parameters())
    step = -forget * gradients(nearby, w, "forget") + retain * gradients(original, w, "retain")
    result = after_a_step(SAM(base=base, rho=0.5), w, accumulate=accumulate)
    assert torch.allclose(flat(result), flat(original) - 0.5 * step, atol=2e-6)
    plain = flat(original) - 0.5 * (up + retain * gradients(original, w, "retain"))
    assert not torch.allclose(flat(result), plain, atol=1e-4)


def test_statistics_see_each_batch_once(samples_world: World) -> None:
    """So that at a vanishing rho it is the base, and at learning rate 0 its null."""
    w, base = samples_world, GradDiff(fit=replace(SGD, lr=1e-2, epochs=2))
    near = unlearned(SAM(base=base, rho=1e-9), w)
    for a, b in zip(near.state_dict().values(), unlearned(base, w).state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert same(unlearned(Null(SAM(base=base)), w), unlearned(Null(base), w))


@pytest.mark.parametrize(
    ("base", "named"),
    [
        (Finetune(), "Finetune"),
        (RURK(), "RURK"),
        (SSIUU(base=GradDiff()), "SSIUU"),
        (BLUR(base=GradDiff()), "BLUR"),
        (SAM(), "SAM"),
    ],
)
def test_refuses_what_it_cant_smooth(samples_world: World, base: GradientMethod, named: str) -> None:
    with pytest.raises(NotSupported, match=f"SAM: expected a base that takes plain steps on .* retain, got {named}"):
        unlearned(SAM(base=base), samples_world)


def test_refuses_a_radius_of_nothing_and_a_loss_around_it(samples_world: World) -> None:
    with pytest.raises(BadInput, match="expected rho to be"):
        SAM(rho=0.0)
    with pytest.raises(NotSupported, match="SAM: expected to be asked for the base's own loss"):
        unlearned(SSIUU(base=SAM(base=GradDiff())), samples_world)
