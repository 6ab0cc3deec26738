"""By hand and by law: DELETE, Bad Teacher and SalUn; and what their tests share with those of SSD and Spotter."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, World, without_retain
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.errors import NotSupported
from unrecall.methods.bad_teacher import BadTeacher
from unrecall.methods.base import GradientMethod, Null, Strength
from unrecall.methods.delete import Delete
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.salun import SalUn
from unrecall.methods.spotter import SpotterAround
from unrecall.methods.ssd import SSD
from unrecall.models import importance
from unrecall.models.importance import most_salient
from unrecall.models.observe import batches
from unrecall.nn.functional import masked_softmax, one_hot_mask
from unrecall.nn.hooks import batchnorms
from unrecall.spec.lines import parse
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, epoch_steps, fit, total_steps
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

QUICK = Fit(lr=0.01, epochs=2, batch_size=16)
FROZEN = replace(QUICK, batchnorm="frozen")


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer for norm in batchnorms(model) for buffer in norm.buffers()]


def whole(examples: Examples, task: Task) -> Batch:
    return next(batches(examples, task, len(examples)))


def only(method: GradientMethod, world: World, seed: int = 0) -> tuple[nn.Module, Phase]:
    """A student and the one phase that a method has for it."""
    student = copy.deepcopy(world.original)
    (phase,) = method.phases(student, frozen_copy(student), Job(world.request, world.task, seeded(seed)))
    return student.eval(), phase


# DELETE.


def test_delete_by_hand(class_world: World, samples_world: World) -> None:
    for w in (class_world, samples_world):
        student, phase = only(Delete(), w)
        with torch.no_grad():
            student[6].weight += 0.3  # type: ignore[index]
        batch = whole(w.request.forget, w.task)
        p, q = w.original(batch["inputs"]).softmax(1), student(batch["inputs"]).softmax(1)
        p = p.scatter(1, batch["targets"][:, None], 0.0)  # class 0 in both worlds
        p = p / p.sum(1, keepdim=True)
        terms = torch.where(p > 0, p * (p.clamp_min(1e-30).log() - q.log()), torch.zeros(()))
        loss = phase.loss(student, {"forget": batch})
        assert loss.item() == pytest.approx(terms.sum(1).mean().item(), rel=1e-5)
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(bool(torch.isfinite(p.grad).all()) for p in student.parameters() if p.grad is not None)


def test_masks() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 5.0, 1.0, 2.0]])
    mask = torch.tensor([False, True, False, True])
    masked, plain = masked_softmax(logits, mask), logits.softmax(1)
    assert torch.allclose(masked.sum(1), torch.ones(2))
    assert not masked[:, mask].any()
    assert torch.allclose(masked[:, 0] / masked[:, 2], plain[:, 0] / plain[:, 2])
    own = masked_softmax(logits, one_hot_mask(torch.tensor([2, 1]), 4))
    assert own.gt(0).tolist() == [[True, True, False, True], [True, False, True, True]]


def test_delete_without_retain_and_with_statistics_as_they_were(class_world: World) -> None:
    w = class_world
    method = Delete(fit=replace(FROZEN, epochs=10))
    result = method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    assert all(map(torch.equal, statistics(result), statistics(w.original)))
    batch = whole(w.request.forget, w.task)
    assert result(batch["inputs"]).softmax(1)[:, 0].mean().item() < 0.5


# Bad Teacher.


def test_bad_teacher_by_hand(samples_world: World) -> None:
    """At the original's weights, retain costs nothing and forget the divergence from a network that knows nothing."""
    w = samples_world
    student, phase = only(BadTeacher(), w)
    mixed = phase.streams["mixed"]
    forget, kept = len(w.request.forget), round(0.3 * len(w.request.retain))
    assert len(mixed) == forget + kept
    batch = whole(mixed, w.task)
    later = {name: value[forget:] for name, value in batch.items()}
    assert phase.loss(student, {"mixed": later}).item() == pytest.approx(0, abs=1e-6)
    first = {name: value[:forget] for name, value in batch.items()}
    apart = phase.loss(student, {"mixed": first}).item()
    assert apart > 0.1
    assert phase.loss(student, {"mixed": batch}).item() == pytest.approx(apart * forget / len(mixed), rel=1e-4)


def test_bad_teacher_direction_and_temperature(samples_world: World) -> None:
    """KL(teacher || student): where the student is uniform, log k minus the teacher's entropy."""
    w = samples_world
    student, phase = only(BadTeacher(temperature=2.0), w)
    batch = whole(phase.streams["mixed"], w.task)
    later = {name: value[len(w.request.forget) :] for name, value in batch.items()}
    p = (w.original(later["inputs"]) / 2).softmax(1)
    with torch.no_grad():
        student[6].weight.zero_()  # type: ignore[index]
        student[6].bias.zero_()  # type: ignore[index]
    expected = torch.tensor(4.0).log() + (p * p.log()).sum(1).mean()
    assert phase.loss(student, {"mixed": later}).item() == pytest.approx(expected.item(), rel=1e-4)


def test_bad_teachers_are_their_own(samples_world: World) -> None:
    """Training the student moves neither teacher: the loss that a fixed model gets stays the same."""
    w = samples_world
    student, phase = only(BadTeacher(fit=replace(QUICK, lr=0.1)), w)
    probe, batch = frozen_copy(w.original), whole(phase.streams["mixed"], w.task)
    before = phase.loss(probe, {"mixed": batch}).item()
    fit(student, w.task, phase, seeded(0), CPU)
    assert not same(student, w.original)
    assert phase.loss(probe, {"mixed": batch}).item() == before
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in w.original.parameters()}


def test_bad_teacher_needs_something_to_reinitialise(samples_world: World) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, 4))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1) @ self.weight

    w = samples_world
    with pytest.raises(NotSupported, match="reset_parameters"):
        BadTeacher().unlearn(Bare(), Job(w.request, w.task, seeded(0), CPU))


# SalUn.


def test_most_salient_by_rank() -> None:
    gradient = {"a": torch.tensor([[0.1, -5.0], [0.0, 2.0]]), "b": torch.tensor([3.0, -0.2])}
    free = most_salient(gradient, 0.5)
    assert free["a"].tolist() == [[False, True], [False, True]]
    assert free["b"].tolist() == [True, False]
    for share, count in [(0.0, 0), (0.17, 1), (0.5, 3), (1.0, 6)]:
        nothing = most_salient({name: torch.zeros_like(g) for name, g in gradient.items()}, share)
        assert sum(int(f.sum()) for f in nothing.values()) == count, "ties free no more than their share"


HARD = Fit(lr=0.05, momentum=0.9, weight_decay=0.1, epochs=3, batch_size=16)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_salun_holds_masked_weights_to_the_bit(samples_world: World, optimizer: Any) -> None:
    w = samples_world
    method = SalUn(share=0.3, base=Finetune(fit=replace(HARD, optimizer=optimizer)))
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    free = most_salient(importance.mean_gradient(w.original, w.task, w.request.forget), 0.3)
    before = dict(w.original.named_parameters())
    moved = {name: p.ne(before[name]) for name, p in result.named_parameters()}
    assert not any(bool((moved[name] & ~free[name]).any()) for name in moved)
    assert sum(int(m.sum()) for m in moved.values()) > 0.9 * sum(int(f.sum()) for f in free.values())


def test_salun_with_all_or_none_free(samples_world: World) -> None:
    w = samples_world
    base = GradAscent(fit=HARD)
    plain = base.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert same(SalUn(share=1.0, base=base).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)), plain)
    none = SalUn(share=0.0, base=base).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert all(map(torch.equal, none.parameters(), w.original.parameters()))


def test_wrappers_nest(samples_world: World) -> None:
    """The inner half of the inner half is free: both masks hold."""
    w = samples_world
    inner = SalUn(share=0.2, base=GradAscent(fit=HARD))
    result = SalUn(share=0.5, base=inner).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert same(result, inner.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))), "a wider mask adds nothing"
    around = SpotterAround(base=SalUn(share=0.2, base=GradAscent(fit=HARD)))
    moved = around.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    free = most_salient(importance.mean_gradient(w.original, w.task, w.request.forget), 0.2)
    before = dict(w.original.named_parameters())
    assert not any(bool((p.ne(before[name]) & ~free[name]).any()) for name, p in moved.named_parameters())
    assert not same(moved, result)
    null = Null(around).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert all(map(torch.equal, null.parameters(), w.original.parameters()))


def test_strengths_point_the_right_way() -> None:
    assert SSD.strength == Strength(("alpha", "dampening"), inverse=True, high=2**10)
    assert SSD().scaled(2).alpha == 5
    doubled = SalUn().scaled(2)
    assert doubled.base.fit.lr == 2 * SalUn().base.fit.lr  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", ["amnesiac:fit.batch_size=64", "bad_teacher:fit.batch_size=64,fit.epochs=3"])
def test_forget_among_others_ends_where_it_is_forgotten_too(line: str, samples_world: World) -> None:
    """After the first epoch, at the first look."""
    w, session = samples_world, Session(device="cpu")
    method = parse(line, "methods")
    assert isinstance(method, GradientMethod)
    job = Job(w.request, w.task, seeded(0), session).until(lambda model: True)
    (phase,) = method.training(w.original, job).phases
    assert total_steps(phase) == 3 * epoch_steps(phase)
    method.unlearn(w.original, job)
    assert session.efforts[-1].steps == epoch_steps(phase)
