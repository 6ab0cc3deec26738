"""By hand and by law: UNSIR, its noise, what it impairs with and what it repairs with."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.unit.methods.test_distillation import same, whole
from tests.worlds import CPU, World
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.unsir import UNSIR, Noise, shaped_noise
from unrecall.models.observe import accuracy
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy

SMALL = UNSIR(
    noises=24,
    impair=Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, batch_size=16),
    repair=Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, batch_size=16, epochs=3),
)


def phases(method: UNSIR, world: World, seed: int = 0) -> list[Phase]:
    job = Job(world.request, world.task, seeded(seed))
    return method.phases(frozen_copy(world.original), frozen_copy(world.original), job)


def test_noise_stands_where_normalised_inputs_lie() -> None:
    """Bounds -1 and 3: the centre is 1, a quarter of the width 1, so that z = -2 stands for -1."""
    noise = Noise(torch.tensor([[0.0, 1.0], [-2.0, 4.0]]))
    task = Classification(bounds=(-1.0, 3.0))
    batch = {"inputs": torch.zeros(2, 2), "targets": torch.zeros(2).long(), "index": torch.tensor([1, 0])}
    assert noise.inputs(task, batch)["inputs"].tolist() == [[-1.0, 5.0], [1.0, 2.0]]


def test_noise_has_forgets_labels_in_turn(samples_world: World) -> None:
    w = samples_world
    forget = [w.request.forget[0], (torch.full((1, 4, 4), 0.7), 2)]
    request = replace(w.request, forget=forget)
    made = shaped_noise(replace(SMALL, noises=5), frozen_copy(w.original), Job(request, w.task))
    assert [w.task.label(item) for item in (made[i] for i in range(5))] == [0, 2, 0, 2, 0]  # type: ignore[attr-defined]


def objective(world: World, method: UNSIR, steps: int) -> float:
    """-CE + penalty mean ||z||^2 of the noise after so many steps."""
    shape = replace(method.shape, epochs=steps, lr=method.shape.lr if steps > 1 else 0.0)
    original = frozen_copy(world.original)
    made = shaped_noise(replace(method, shape=shape), original, Job(world.request, world.task, seeded(3)))
    batch = whole(made, world.task)
    z = 4 * (batch["inputs"] - 0.5)
    loss = F.cross_entropy(original(batch["inputs"]), batch["targets"])
    return (method.penalty * z.flatten(1).square().sum(1).mean() - loss).item()


def test_noise_is_made_against_its_class_and_short(class_world: World) -> None:
    """Its start is N(0, I), of which 16 entries have a squared length of 16."""
    w = class_world
    start, end = (objective(w, SMALL, steps) for steps in (1, 40))
    assert end < start - 1
    original = frozen_copy(w.original)
    made = whole(shaped_noise(replace(SMALL, penalty=0.0), original, Job(w.request, w.task)), w.task)
    assert original(made["inputs"]).argmax(1).eq(0).sum() == 0
    short, free = (
        whole(shaped_noise(replace(SMALL, penalty=p), original, Job(w.request, w.task)), w.task)["inputs"]
        for p in (10.0, 0.0)
    )
    assert (short - 0.5).norm() < (free - 0.5).norm() / 2
    unmoved = replace(SMALL, shape=replace(SMALL.shape, lr=0.0, epochs=1), noises=2000)
    z = 4 * (whole(shaped_noise(unmoved, original, Job(w.request, w.task)), w.task)["inputs"] - 0.5)
    assert z.mean().item() == pytest.approx(0, abs=0.03)
    assert z.std().item() == pytest.approx(1, abs=0.03)


def test_what_is_read(class_world: World) -> None:
    """A fifth of retain, 24 of 120, and 15 noise inputs beside it; the repair sees the same part and no noise."""
    impair, repair = phases(SMALL, class_world)
    mixed, part = impair.streams["mixed"], repair.streams["retain"]
    assert (len(mixed), len(part)) == (15 + 24, 24)
    assert all(torch.equal(mixed[15 + i][0], part[i][0]) and mixed[15 + i][1] == part[i][1] for i in range(24))
    assert {mixed[i][1] for i in range(15)} == {0}
    assert {part[i][1] for i in range(24)} == {1, 2, 3}
    more, _ = phases(replace(SMALL, ratio=3.0), class_world)
    shown = more.streams["mixed"]
    assert len(shown) == 72 + 24
    assert torch.equal(shown[0][0], shown[24][0]), "each noise input is shown several times"


def test_a_class_goes_and_the_others_come_back(class_world: World) -> None:
    w = class_world
    result = replace(SMALL, share=1.0, impair=replace(SMALL.impair, lr=0.02)).unlearn(
        w.original, Job(w.request, w.task, seeded(0), CPU)
    )
    assert accuracy(result, w.task, w.request.forget).mean() < 0.5
    assert accuracy(result, w.task, w.request.retain).mean() > 0.8


def test_forget_pictures_are_not_trained_on(class_world: World) -> None:
    """Other pictures of the same class make the same model."""
    w = class_world
    other = replace(w.request, forget=[(1 - x, y) for x, y in w.request.forget])  # type: ignore[attr-defined]
    first, second = (SMALL.unlearn(w.original, Job(request, w.task, seeded(0), CPU)) for request in (w.request, other))
    assert same(first, second)


def test_refuses_texts_and_empty_noise(text_world: World) -> None:
    w = text_world
    with pytest.raises(NotSupported, match="expected a task with continuous inputs"):
        UNSIR().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    with pytest.raises(BadInput, match="UNSIR: expected noises to be"):
        UNSIR(noises=0)
