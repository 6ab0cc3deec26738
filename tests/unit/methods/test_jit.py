"""By hand and by law: JiT, its slopes and what it is drawn to."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.unit.methods.test_distillation import only, same, whole
from tests.worlds import CPU, World, without_retain
from unrecall.errors import NotSupported
from unrecall.methods.jit import JiT, steepness
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

TASK = Classification(bounds=(-9.0, 9.0))


def diagonal(*scales: float) -> nn.Linear:
    model = nn.Linear(len(scales), len(scales), bias=False)
    model.weight.data = torch.diag(torch.tensor(scales))
    return model


def batch(*inputs: list[float]) -> dict[str, Tensor]:
    return {"inputs": torch.tensor(inputs), "targets": torch.zeros(len(inputs), dtype=torch.long)}


def test_steepness_by_hand() -> None:
    """f = (3 x_1, 4 x_2): a step along one axis is stretched by 3 or 4, one along both by sqrt(25 / 2)."""
    model, clean = diagonal(3.0, 4.0), batch([0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [5.0, 5.0])
    copies = batch([0.5, 0.0], [1.0, 3.0], [3.0, 3.0], [5.0, 5.0])
    slopes = steepness(model, TASK, (clean, model(clean["inputs"])), copies)
    assert slopes.tolist() == pytest.approx([3, 4, (25 / 2) ** 0.5, 0])


def test_what_is_said_nearby_is_a_constant() -> None:
    """f = w x at x = 1, copy at 3: |f(x) - c| / 2 with c = 3 w has slope -1/2 in w; the whole ratio, |w|, has 1."""
    model, clean = diagonal(2.0, 2.0), batch([1.0, 0.0])
    slopes = steepness(model, TASK, (clean, model(clean["inputs"])), batch([3.0, 0.0]))
    slopes.sum().backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    assert slopes.tolist() == pytest.approx([2])
    assert model.weight.grad[0, 0].item() == pytest.approx(-0.5)


def test_loss_by_hand(samples_world: World) -> None:
    """The mean over copies of the sum over examples, of inputs within the bounds."""
    w = samples_world
    student, phase = only(JiT(samples=3, sigma=0.2), w, seed=4)
    clean, generator, expected = whole(w.request.forget, w.task), seeded(4), 0.0
    for _ in range(3):
        moved = (clean["inputs"] + 0.2 * torch.randn(clean["inputs"].shape, generator=generator)).clamp(0, 1)
        apart = (student(clean["inputs"]) - student(moved)).norm(dim=1)
        expected += (apart / (clean["inputs"] - moved).flatten(1).norm(dim=1)).sum().item() / 3
    assert phase.loss(student, {"forget": clean}).item() == pytest.approx(expected, rel=1e-5)


def test_forget_gets_flatter_without_retain(samples_world: World) -> None:
    w = samples_world
    method = JiT(samples=8, fit=Fit(lr=1e-3, momentum=0.0, weight_decay=0.0, epochs=10))
    result = method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    student, phase = only(JiT(), w)
    clean = {"forget": whole(w.request.forget, w.task)}
    assert phase.loss(result, clean).item() < 0.8 * phase.loss(student, clean).item()


def test_labels_don_t_matter(samples_world: World) -> None:
    w = samples_world
    other = replace(w.request, forget=[(x, 3) for x, _ in w.request.forget], retain=w.request.retain)  # type: ignore[attr-defined]
    first, second = (
        JiT(fit=Fit(lr=1e-3)).unlearn(w.original, Job(request, w.task, seeded(0), CPU))
        for request in (w.request, other)
    )
    assert same(first, second)


def test_refuses_texts(text_world: World) -> None:
    w = text_world
    with pytest.raises(NotSupported, match="expected a task with continuous inputs"):
        JiT().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
