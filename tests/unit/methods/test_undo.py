"""UNDO: the noise by hand, who teaches whom, and when it stops."""

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.laws.test_methods import same
from tests.worlds import CPU, Untouchable, World, small_mixtures
from unrecall.errors import BadInput
from unrecall.methods.base import GradientMethod
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.undo import UNDO, noise
from unrecall.models.observe import accuracy, mean_loss
from unrecall.nn.hooks import stacked_experts
from unrecall.spec.lines import parse
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, total_steps
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

STILL = GradDiff(fit=Fit(lr=0.0, epochs=1, batchnorm="frozen"))
"""A base that changes nothing."""
QUICK = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=30, batch_size=20)


def unlearned(method: UNDO, world: World, session: Session = CPU) -> nn.Module:
    return method.unlearn(world.original, Job(world.request, world.task, seeded(0), session))


def test_weights_by_hand() -> None:
    """Of 3 inputs and 5 outputs Xavier's bound is (6/8)^1/2; biases shrink, and what is frozen stays."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    model[1].requires_grad_(False)
    before = copy.deepcopy(model)
    noise(model, alpha=0.75, beta=0.5, generator=seeded(0))
    added = (model[0].weight - 0.25 * before[0].weight).detach() / (0.75 * 0.5)  # type: ignore[operator]
    assert float(added.abs().max()) <= 0.75**0.5 + 1e-6
    assert float(added.abs().max()) > 0.5
    assert torch.allclose(model[0].bias, 0.25 * before[0].bias)  # type: ignore[arg-type, operator]
    assert torch.equal(model[1].weight, before[1].weight)  # type: ignore[arg-type]
    again = copy.deepcopy(before)
    noise(again, 0.75, 0.5, seeded(0))
    assert torch.equal(again[0].weight, model[0].weight)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Telling(GradientMethod):
    """Sets the head's bias so that the model always says class 1, and trains nothing."""

    title: ClassVar[str] = "Telling"

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        with torch.no_grad():
            list(student.parameters())[-1][1] = 50.0
        return []


def test_what_the_base_says_is_what_is_taught(samples_world: World) -> None:
    """And not the original's answers, nor the labels."""
    w = samples_world
    result = unlearned(UNDO(base=Telling(), alpha=0.5, within=0.0, fit=QUICK), w)
    rows = w.task.rows(result, w.task.collate([w.request.retain[i] for i in range(0, 140, 7)]))
    assert bool((rows.logits.argmax(1) == 1).all())


def test_it_stops_where_retain_is_as_good_as_the_teachers(samples_world: World) -> None:
    w, efforts = samples_world, Session(device="cpu")
    teacher = mean_loss(w.original, w.task, w.request.retain)
    result = unlearned(UNDO(base=STILL, alpha=0.5, within=1.0, fit=QUICK), w, efforts)
    assert mean_loss(result, w.task, w.request.retain) <= 2 * teacher
    assert efforts.efforts[-1].steps < 500


@pytest.mark.parametrize(("epochs", "steps", "expected"), [(72, None, 504), (2, None, 504), (2, 9, 9)])
def test_or_with_its_steps_of_which_it_takes_500(
    samples_world: World, epochs: int, steps: int | None, expected: int
) -> None:
    """7 steps an epoch over 140 examples, in batches of 20."""
    w, method = samples_world, UNDO(fit=replace(QUICK, epochs=epochs, steps=steps))
    assert total_steps(method._distilled(w.original, Job(w.request, w.task, seeded(0), CPU))) == expected


def test_nothing_lost_is_nothing_to_teach(samples_world: World) -> None:
    """At alpha 0 the student is the teacher but for statistics, and stops at the first look."""
    w, session = samples_world, Session(device="cpu")
    fit = replace(QUICK, lr=0.0, batchnorm="frozen")
    assert same(unlearned(UNDO(base=STILL, alpha=0.0, fit=fit), w, session), w.original)
    assert session.efforts[-1].steps == 7


def test_distilling_reads_retain_alone(samples_world: World) -> None:
    w = samples_world
    request = w.request.only("retain")
    object.__setattr__(request, "forget", Untouchable(5))
    phase = UNDO()._distilled(w.original, Job(request, w.task, seeded(0), CPU))
    assert set(phase.streams) == {"retain"}


def test_forgets_as_its_base_and_is_useful(class_world: World) -> None:
    w = class_world
    base = NegGradPlus(beta=0.5, fit=Fit(lr=0.01, epochs=4, batch_size=20, clip=1.0))
    result = unlearned(UNDO(base=base, fit=QUICK), w)
    assert accuracy(result, w.task, w.request.forget).mean() < 0.3
    assert accuracy(result, w.task, w.request.retain).mean() > 0.8


def test_weights_of_16_bits_come_back_as_such(text_world: World) -> None:
    w, model = text_world, copy.deepcopy(text_world.original).bfloat16()
    method = UNDO(base=STILL, alpha=0.1, fit=replace(QUICK, epochs=1))
    result = method.unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    assert {p.dtype for p in result.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("line", ["undo(undo(npo))", "undo(lora(npo))", "undo(ssd)"])
def test_a_base_that_does_not_train_is_refused(line: str) -> None:
    with pytest.raises(BadInput, match=r"UNDO: expected base to be GradientMethod, got .* Choose another base"):
        parse(line, "methods")


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"alpha": -0.1}, {"beta": -1.0}, {"within": -0.1}])
def test_impossible_shares_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expected"):
        UNDO(**wrong)


def test_each_expert_is_noised_as_a_matrix_of_its_own() -> None:
    for model in small_mixtures(20):
        experts = stacked_experts(model)
        noise(model, alpha=1.0, beta=1.0, generator=seeded(0))
        for weight in experts.values():
            due = (2 / sum(weight.shape[1:])) ** 0.5
            assert float(weight.detach().std()) == pytest.approx(due, rel=0.1)
