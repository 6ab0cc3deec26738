"""By hand and by law: Spotter and the surroundings that it makes."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import FROZEN, QUICK, only, same, statistics, whole
from tests.unit.models.test_importance import Ragged
from tests.worlds import CPU, World, without_retain
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Null
from unrecall.methods.delete import Delete
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.spotter import Spotter, SpotterAround, Surroundings, surroundings
from unrecall.nn.functional import pairwise_same_label_cosine
from unrecall.nn.hooks import batchnorms
from unrecall.training.job import Job
from unrecall.training.loop import Batches
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy

# Spotter.


def test_spotter_without_its_terms_is_delete(class_world: World, samples_world: World) -> None:
    for w in (class_world, samples_world):
        bare = Spotter(lambda_1=1.0, lambda_2=0.0, fit=FROZEN).unlearn(
            w.original, Job(w.request, w.task, seeded(3), CPU)
        )
        assert same(bare, Delete(fit=FROZEN).unlearn(w.original, Job(w.request, w.task, seeded(3), CPU)))
        assert not same(bare, w.original)
    assert Spotter.fit == Delete.fit


def test_spotter_without_its_terms_is_its_base(samples_world: World) -> None:
    w = samples_world
    base = GradAscent(fit=QUICK)
    bare = SpotterAround(base, lambda_1=1.0, lambda_2=0.0).unlearn(w.original, Job(w.request, w.task, seeded(3), CPU))
    assert same(bare, base.unlearn(w.original, Job(w.request, w.task, seeded(3), CPU)))


def crafted(world: World, method: Spotter, seed: int = 0) -> Surroundings:
    return surroundings(method, frozen_copy(world.original), Job(world.request, world.task, seeded(seed)))


def divergence(teacher: Tensor, student: Tensor, masked: Sequence[int]) -> float:
    """KL(mask(p) || q) over the classes that are left, with no help from unrecall."""
    left = [k for k in range(teacher.shape[1]) if k not in masked]
    p, q = teacher[:, left].softmax(1), student.softmax(1)[:, left]
    return (p * (p.log() - q.log())).sum(1).mean().item()


@pytest.mark.parametrize(("lambda_1", "lambda_2"), [(0.7, 1.0), (0.7, 0.0), (1.0, 0.1), (0.0, 1.0)])
def test_spotter_by_hand(class_world: World, lambda_1: float, lambda_2: float) -> None:
    w = class_world
    method = Spotter(lambda_1=lambda_1, lambda_2=lambda_2)
    student, phase = only(method, w)
    with torch.no_grad():
        student[6].weight += 0.2 * torch.randn(4, 32, generator=seeded(1))  # type: ignore[index]
    clean = whole(w.request.forget, w.task)
    moved = crafted(w, method).inputs
    features = student[:6](clean["inputs"])  # type: ignore[index]
    unit = features / features.norm(dim=1, keepdim=True)
    pairs = (unit @ unit.T).fill_diagonal_(0).sum() / (len(unit) * (len(unit) - 1))  # all of one class
    expected = lambda_1 * divergence(w.original(clean["inputs"]), student(clean["inputs"]), [0])
    expected += (1 - lambda_1) * divergence(w.original(moved), student(moved), [0]) + lambda_2 * pairs.item()
    given: Batches = {name: whole(data, w.task) for name, data in phase.streams.items()}
    assert ("perturbed" in given) == (lambda_1 < 1)
    assert phase.loss(student, given).item() == pytest.approx(expected, rel=1e-4)


def test_similarity_laws() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    assert float(pairwise_same_label_cosine(torch.ones(4, 3), labels)) == pytest.approx(1)
    assert float(pairwise_same_label_cosine(torch.eye(4), labels)) == 0
    lonely = torch.randn(4, 3, generator=seeded(0)).requires_grad_(True)
    nothing = pairwise_same_label_cosine(lonely, torch.arange(4))
    nothing.backward()  # type: ignore[no-untyped-call]
    assert nothing.item() == 0
    assert lonely.grad is not None
    assert not lonely.grad.any()
    features = (1 + torch.randn(4, 3, generator=seeded(0))).requires_grad_(True)
    before = pairwise_same_label_cosine(features, labels)
    (gradient,) = torch.autograd.grad(before, features)
    assert pairwise_same_label_cosine(features - 0.1 * gradient, labels).item() < before.item()


def test_spotter_touches_neither_statistics_nor_retain_nor_teacher(class_world: World) -> None:
    w = class_world
    before = copy.deepcopy(w.original)
    result = Spotter(fit=FROZEN).unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    assert all(map(torch.equal, statistics(result), statistics(w.original)))
    assert same(w.original, before)
    norm = dict(result.named_parameters())["1.weight"]
    assert not torch.equal(norm, dict(w.original.named_parameters())["1.weight"]), "the affine weights train"


def test_spotter_around_a_base_adds_no_statistics(samples_world: World) -> None:
    """The added passes leave BatchNorm alone, so at learning rate 0 its statistics are those of the base alone."""
    w = samples_world
    base = GradAscent(fit=QUICK)
    method = SpotterAround(base, lambda_1=0.0)
    with_terms = Null(method).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    phase = only(method, w)[1]
    assert list(phase.streams) == ["forget", "perturbed"]
    assert phase.fit == base.fit
    counts = [int(norm.num_batches_tracked) for norm in batchnorms(with_terms)]  # type: ignore[arg-type]
    plain = Null(base).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert counts == [int(norm.num_batches_tracked) for norm in batchnorms(plain)]  # type: ignore[arg-type]


def test_spotter_refuses_what_it_can_not_extend(samples_world: World) -> None:
    w = samples_world
    for method, error, words in [
        (SpotterAround(Finetune()), NotSupported, "trains on forget"),
        (SpotterAround(Spotter()), NotSupported, "perturbed"),
        (Spotter(beta=1e-9), BadInput, "got 0 of 20"),
    ]:
        with pytest.raises(error, match=words):
            method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_spotter_needs_one_row_an_example_for_pairs() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model, data = nn.Linear(2, 3), [(torch.rand(3, 2), i % 3) for i in range(12)]
    request = Request(data[:4], data[4:8], data[8:10], data[10:])
    with pytest.raises(NotSupported, match="one row an example"):
        Spotter(fit=FROZEN).unlearn(model, Job(request, Ragged(), seeded(0), CPU))
    result = Spotter(lambda_2=0.0, fit=FROZEN).unlearn(model, Job(request, Ragged(), seeded(0), CPU))
    assert not same(result, model)


# Spotter's surroundings.


def rivals(world: World, inputs: Tensor) -> Tensor:
    """The loss of the strongest other class at the clean input; the forget class is 0."""
    clean = whole(world.request.forget, world.task)["inputs"]
    return F.cross_entropy(world.original(inputs), world.original(clean)[:, 1:].argmax(1) + 1, reduction="none")


def test_surroundings_stay_in_their_ball_and_within_bounds(class_world: World) -> None:
    w = class_world
    clean = whole(w.request.forget, w.task)["inputs"]
    for direction in ("as_code", "towards_boundary"):
        found = crafted(w, Spotter(direction=direction, eps=0.1, step=0.07))
        assert float((found.inputs - clean).abs().max()) <= 0.1 + 1e-6
        assert float(found.inputs.min()) >= 0
        assert float(found.inputs.max()) <= 1
        assert len(found.examples) == len(w.request.forget)
        answers = torch.cat(found.answers)
        assert torch.allclose(answers, w.original(found.inputs), atol=1e-5)


def test_surroundings_by_their_seed(class_world: World) -> None:
    w = class_world
    first, again, other = (crafted(w, Spotter(), seed).inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_surroundings_go_where_they_are_sent(class_world: World) -> None:
    w = class_world
    clean = whole(w.request.forget, w.task)["inputs"]
    away = rivals(w, crafted(w, Spotter(direction="as_code")).inputs)
    towards = rivals(w, crafted(w, Spotter(direction="towards_boundary")).inputs)
    here = rivals(w, clean)
    assert away.mean().item() > here.mean().item() > towards.mean().item()


def test_surroundings_by_one_step(class_world: World) -> None:
    """Radius 1 and a step of 0: a uniform start alone; then one step from it, by hand."""
    w = class_world
    clean = whole(w.request.forget, w.task)["inputs"]
    start = (clean + 0.5 * (2 * torch.rand(clean.shape, generator=seeded(0)) - 1)).clamp(0, 1)
    assert torch.equal(crafted(w, Spotter(eps=0.5, step=0.0, steps=1)).inputs, start)
    start.requires_grad_(True)
    (gradient,) = torch.autograd.grad(rivals(w, start).sum(), start)
    moved = (clean + (start + 0.2 * gradient.sign() - clean).clamp(-0.5, 0.5)).clamp(0, 1)
    assert torch.allclose(crafted(w, Spotter(eps=0.5, step=0.2, steps=1)).inputs, moved, atol=1e-6)


def test_surroundings_by_their_margin(class_world: World) -> None:
    w = class_world
    method = Spotter(direction="towards_boundary", beta=1.0, eps=0.3, step=0.02, steps=20)
    found = crafted(w, method)
    logits = torch.cat(found.answers)
    margins = logits[:, 0] - logits[:, 1:].max(1).values
    assert float(margins.abs().max()) <= 1
    assert 0 < len(found.examples) == len(found.inputs) == len(found.answers) <= 40
    assert len(found.inputs) > len(crafted(w, replace(method, direction="as_code", beta=2.0, steps=1)).inputs)
    result = replace(method, fit=FROZEN).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert not same(result, w.original)


def test_surroundings_keep_inputs_and_examples_together(class_world: World) -> None:
    """After a filter, the index of a drawn example still finds its own perturbed copy and the answers to it."""
    w = class_world
    method = Spotter(direction="towards_boundary", beta=0.5, eps=0.3, step=0.02, steps=20)
    found = crafted(w, method)
    drawn = whole(found.examples, w.task)
    picked = {name: value[torch.tensor([2, 0])] for name, value in drawn.items()}
    batch, answers = found.batch(w.task, picked)
    assert float((batch["inputs"] - picked["inputs"]).abs().max()) <= 0.3 + 1e-6
    assert torch.allclose(answers, w.original(batch["inputs"]), atol=1e-5)
