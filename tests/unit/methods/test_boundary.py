"""By hand and by law: Boundary Shrink's nearest classes, and Boundary Expand's class that comes and goes."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.methods.test_distillation import only, same, statistics, whole
from tests.worlds import CPU, World, without_retain
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Null
from unrecall.methods.boundary_expand import SHADOW, BoundaryExpand, Wider
from unrecall.methods.boundary_shrink import BoundaryShrink, nearest_classes
from unrecall.models.observe import accuracy, observe
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

FAST = Fit(lr=0.02, weight_decay=0.0, epochs=10, batch_size=16)


def three() -> nn.Linear:
    """Logits of three classes in the plane: (x_1, x_2, 0)."""
    model = nn.Linear(2, 3, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    return model.requires_grad_(False).eval()


# Boundary Shrink.


def test_nearest_classes_by_hand() -> None:
    """A step of 1 lowers x_1 and raises x_2 for class 0.

    (2, 1.5) gets to (1, 2.5): class 1. (0.2, -3) to (-0.8, -2): class 2. (9, 0) to (8, 1): still class 0, so the
    strongest of the others, 1. An example of class 1 at (1, 2) gets to (2, 1): class 0.
    """
    task = Classification(bounds=(-10.0, 10.0))
    data = [(torch.tensor(x), y) for x, y in (([2.0, 1.5], 0), ([0.2, -3.0], 0), ([9.0, 0.0], 0), ([1.0, 2.0], 1))]
    assert torch.cat(nearest_classes(three(), task, data, bound=1 / 20)).tolist() == [1, 2, 1, 0]


def test_nobody_is_taught_its_own_class(class_world: World) -> None:
    """However short the step."""
    w = class_world
    for bound in (0.0, 0.1, 1.0):
        labels = torch.cat(nearest_classes(w.original, w.task, w.request.forget, bound))
        assert len(labels) == len(w.request.forget)
        assert not labels.eq(0).any()


def test_shrinking_by_hand(class_world: World) -> None:
    w = class_world
    student, phase = only(BoundaryShrink(bound=0.2), w)
    with torch.no_grad():
        student[6].weight += 0.3  # type: ignore[index]
    batch = whole(w.request.forget, w.task)
    labels = torch.cat(nearest_classes(w.original, w.task, w.request.forget, 0.2))
    expected = F.cross_entropy(student(batch["inputs"]), labels)
    assert phase.loss(student, {"forget": batch}).item() == pytest.approx(expected.item(), rel=1e-5)
    swapped = {name: value.flip(0) for name, value in batch.items()}
    assert phase.loss(student, {"forget": swapped}).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("method", [BoundaryShrink(fit=FAST), BoundaryExpand(fit=FAST)])
def test_a_class_goes_without_retain(class_world: World, method: BoundaryShrink | BoundaryExpand) -> None:
    w = class_world
    result = method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    before, after = (observe(model, w.task, w.request.forget).confidence.mean() for model in (w.original, result))
    assert after < before - 0.3
    assert accuracy(result, w.task, w.request.retain).mean() > 0.6


def test_shrinking_refuses_texts(text_world: World) -> None:
    w = text_world
    with pytest.raises(NotSupported, match="expected a task with continuous inputs"):
        BoundaryShrink().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


# Boundary Expand.


def test_expanding_by_hand() -> None:
    """Logits (2, 1, 0) and w h + b = 1 + 1 = 2 for the class beside them: log(e^2 + e + 1 + e^2) - 2."""
    task, data = Classification(bounds=(-10.0, 10.0)), [(torch.tensor([2.0, 1.0]), 0)]
    unit = nn.Linear(2, 1)
    unit.weight.data, unit.bias.data = torch.tensor([[0.0, 1.0]]), torch.ones(1)
    model = three()
    view = task.view(model, whole(data, task))
    expected = torch.tensor([2.0, 1.0, 0.0, 2.0]).logsumexp(0) - 2
    assert Wider(model, unit).loss(view).item() == pytest.approx(expected.item())


def test_the_unit_fits_the_head(samples_world: World) -> None:
    """As wide as the head, with a bias where it has one, by the seed."""
    job = Job(samples_world.request, samples_world.task)
    first, again, other = (Wider.of(copy.deepcopy(samples_world.original), job.seeded(s)).unit for s in (0, 0, 1))
    assert first.weight.shape == (1, 32)
    assert first.bias is not None
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    data = [(torch.tensor([float(i), 1.0]), i % 2) for i in range(12)]
    request = Request(data[:3], data[3:6], data[6:9], data[9:])
    wide = Classification(bounds=(0.0, 20.0))
    assert Wider.of(three(), Job(request, wide)).unit.bias is None


def test_the_class_is_gone_afterwards(samples_world: World) -> None:
    w = samples_world
    result = BoundaryExpand(fit=FAST).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert result.state_dict().keys() == w.original.state_dict().keys()
    assert not any(SHADOW in name for name, _ in result.named_modules())
    assert result(whole(w.request.forget, w.task)["inputs"]).shape[1] == 4


def test_what_learns_beside_the_head_is_trained_too(samples_world: World) -> None:
    """All but the unit is frozen, and the loss still falls."""
    w, session = copy.deepcopy(samples_world), Session(device="cpu")
    w.original.requires_grad_(False)
    fit = replace(FAST, lr=0.1)
    result = BoundaryExpand(fit=fit).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    losses = session.efforts[-1].losses
    assert losses[-1] < losses[0] / 2
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), w.original.parameters(), strict=True))


def test_the_null_makes_the_same_passes(samples_world: World) -> None:
    """At learning rate 0 the statistics end where those of the null do, over the same batches: here one of all."""
    w, fit = samples_world, Fit(lr=0.0, epochs=3, batch_size=64)
    method = BoundaryExpand(fit=fit)
    base = method.null_base()
    assert base is not None
    first, null = (m.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)) for m in (method, Null(base)))
    assert not same(first, w.original)
    for a, b in zip(statistics(first), statistics(null), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4)


def test_expanding_refuses_what_has_several_rows_or_no_head(text_world: World, pairs_world: World) -> None:
    for w, complaint in ((text_world, "one row an example"), (pairs_world, "rows that depend on their own example")):
        with pytest.raises(NotSupported, match=f"BoundaryExpand: expected {complaint}"):
            BoundaryExpand().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_an_impossible_bound_is_refused(value: float) -> None:
    with pytest.raises(BadInput, match="BoundaryShrink: expected bound to be"):
        BoundaryShrink(bound=value)
