"""Perturbed inputs: their bounds, their direction, and the same values as torchattacks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import World, blobs, network
from unrecall.data.batches import Batch
from unrecall.data.digests import digest
from unrecall.errors import NotSupported
from unrecall.models.perturb import Walk, fgsm, gaussian, other_classes, pgd
from unrecall.nn.functional import nll
from unrecall.tasks import Classification
from unrecall.tasks.protocols import perturbable
from unrecall.training.randomness import seeded

TASK = Classification()


@pytest.fixture(scope="module")
def model(samples_world: World) -> nn.Module:
    return samples_world.original.eval()


@pytest.fixture
def batch() -> Batch:
    return TASK.collate(blobs(24, 4, 5))


def losses(model: nn.Module, batch: Batch, targets: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        logits = model(batch["inputs"])
    return nll(logits, batch["targets"] if targets is None else targets)


def far(batch: Batch, other: Batch) -> float:
    return float((batch["inputs"] - other["inputs"]).abs().max())


def test_gaussian_is_clamped_noise(batch: Batch) -> None:
    moved = gaussian(TASK, batch, 0.3, seeded(1))
    noise = torch.randn(batch["inputs"].shape, generator=seeded(1))
    assert torch.equal(moved["inputs"], (batch["inputs"] + 0.3 * noise).clamp(0, 1))
    assert moved["inputs"].min() == 0
    assert moved["inputs"].max() == 1
    assert torch.equal(moved["targets"], batch["targets"])
    assert torch.equal(gaussian(TASK, batch, 0.0, seeded(1))["inputs"], batch["inputs"])


def test_bounds_are_the_tasks(batch: Batch) -> None:
    wide = Classification(bounds=(-1.0, 2.0))
    moved = gaussian(wide, batch, 5.0, seeded(1))["inputs"]
    assert (float(moved.min()), float(moved.max())) == (-1.0, 2.0)


def test_other_classes_are_other_and_uniform() -> None:
    targets = torch.arange(4).repeat(3000)
    drawn = other_classes(targets, 4, seeded(0))
    assert not bool(drawn.eq(targets).any())
    counts = torch.bincount(drawn[targets == 1], minlength=4)
    assert counts[1] == 0
    assert bool(counts[[0, 2, 3]].sub(1000).abs().lt(100).all())


@pytest.mark.parametrize("start", [None, 3])
@pytest.mark.parametrize("radius", [0.0, 0.02, 0.3])
def test_pgd_stays_in_the_ball_and_in_bounds(model: nn.Module, batch: Batch, radius: float, start: int | None) -> None:
    generator = None if start is None else seeded(start)
    moved = pgd(model, TASK, batch, Walk(radius=radius, step=0.1, steps=5), generator)
    assert far(moved, batch) <= radius + 1e-6
    assert 0 <= float(moved["inputs"].min()) <= float(moved["inputs"].max()) <= 1


def lengths(batch: Batch, other: Batch) -> Tensor:
    """The Euclidean length of the change of each example."""
    change: Tensor = (batch["inputs"] - other["inputs"]).flatten(1)
    return change.square().sum(1).sqrt()


@pytest.mark.parametrize("start", [None, 3])
@pytest.mark.parametrize("radius", [0.0, 0.05, 0.8])
def test_pgd_stays_in_the_l2_ball_and_in_bounds(
    model: nn.Module, batch: Batch, radius: float, start: int | None
) -> None:
    generator = None if start is None else seeded(start)
    moved = pgd(model, TASK, batch, Walk(radius=radius, step=0.3, steps=5, norm="l2"), generator)
    assert float(lengths(moved, batch).max()) <= radius + 1e-5
    assert 0 <= float(moved["inputs"].min()) <= float(moved["inputs"].max()) <= 1
    assert radius == 0 or float(lengths(moved, batch).max()) > radius / 2


def test_an_l2_step_goes_along_the_gradient_as_far_as_it_says(model: nn.Module, batch: Batch) -> None:
    wide = Classification(bounds=(-9.0, 9.0))
    moved = pgd(model, wide, batch, Walk(radius=1.0, step=0.07 / 18, steps=1, norm="l2"))
    given = {**batch, "inputs": batch["inputs"].clone().requires_grad_(True)}
    (gradient,) = torch.autograd.grad(nll(model(given["inputs"]), batch["targets"]).sum(), given["inputs"])
    ahead = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    assert torch.allclose(moved["inputs"] - batch["inputs"], 0.07 * ahead, atol=1e-5)


def test_fgsm_takes_one_step_of_the_whole_radius(model: nn.Module, batch: Batch) -> None:
    moved = fgsm(model, TASK, batch, radius=0.05)
    step = (moved["inputs"] - batch["inputs"]).abs()
    inner = (batch["inputs"] > 0.05) & (batch["inputs"] < 0.95) & (step > 0)
    assert torch.allclose(step[inner], torch.tensor(0.05), atol=1e-6)
    assert far(moved, batch) <= 0.05 + 1e-6


def test_signs(model: nn.Module, batch: Batch) -> None:
    wished = other_classes(batch["targets"], 4, seeded(0))
    up = pgd(model, TASK, batch, Walk(radius=0.1, step=0.02, steps=8))
    towards = pgd(model, TASK, batch, Walk(radius=0.1, step=0.02, steps=8, targets=wished))
    assert losses(model, up).mean() > losses(model, batch).mean()
    assert losses(model, towards, wished).mean() < losses(model, batch, wished).mean()
    away = pgd(model, TASK, batch, Walk(radius=0.1, step=0.02, steps=8, targets=wished, away=True))
    assert losses(model, away, wished).mean() > losses(model, batch, wished).mean()


def test_a_models_gradients_and_flags_are_left_alone(batch: Batch) -> None:
    model = network().eval()
    frozen = next(model.parameters()).requires_grad_(False)
    fgsm(model, TASK, batch, radius=0.05)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [p is not frozen for p in model.parameters()]


def test_examples_do_not_mix(model: nn.Module, batch: Batch) -> None:
    together = fgsm(model, TASK, batch, radius=0.05)["inputs"]
    apart = [fgsm(model, TASK, {k: v[i : i + 1] for k, v in batch.items()}, radius=0.05)["inputs"] for i in range(6)]
    assert torch.allclose(together[:6], torch.cat(apart))


def test_a_task_without_continuous_inputs_is_refused() -> None:
    class Words:
        pass

    with pytest.raises(NotSupported, match="Words: expected a task with continuous inputs"):
        perturbable(Words())  # type: ignore[arg-type]


def test_items_undo_collate() -> None:
    items = blobs(6, 4, 5)
    assert [digest(x) for x in TASK.items(TASK.collate(items))] == [digest(x) for x in items]


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("torchattacks")


def test_gaussian_equals_torchattacks(peer: Any, model: nn.Module, batch: Batch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        theirs = peer.GN(model, std=0.1)(batch["inputs"], batch["targets"])
    assert torch.equal(gaussian(TASK, batch, 0.1, seeded(4))["inputs"], theirs)


def test_fgsm_equals_torchattacks(peer: Any, model: nn.Module, batch: Batch) -> None:
    theirs = peer.FGSM(model, eps=0.03)(batch["inputs"], batch["targets"])
    assert torch.allclose(fgsm(model, TASK, batch, radius=0.03)["inputs"], theirs, atol=1e-7)


def test_targeted_fgsm_equals_torchattacks(peer: Any, model: nn.Module, batch: Batch) -> None:
    wished = other_classes(batch["targets"], 4, seeded(0))
    attack = peer.FGSM(model, eps=0.03)
    attack.set_mode_targeted_by_label(quiet=True)
    theirs = attack(batch["inputs"], wished)
    assert torch.allclose(fgsm(model, TASK, batch, radius=0.03, targets=wished)["inputs"], theirs, atol=1e-7)


def test_pgd_equals_torchattacks(peer: Any, model: nn.Module, batch: Batch) -> None:
    theirs = peer.PGD(model, eps=0.06, alpha=0.01, steps=10, random_start=False)(batch["inputs"], batch["targets"])
    ours = pgd(model, TASK, batch, Walk(radius=0.06, step=0.01, steps=10))["inputs"]
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_pgd_equals_torchattacks_from_the_same_random_start(peer: Any, model: nn.Module, batch: Batch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(9)
        theirs = peer.PGD(model, eps=0.06, alpha=0.01, steps=1)(batch["inputs"], batch["targets"])
    ours = pgd(model, TASK, batch, Walk(radius=0.06, step=0.01, steps=1), seeded(9))["inputs"]
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_l2_pgd_equals_torchattacks(peer: Any, model: nn.Module, batch: Batch) -> None:
    wished = other_classes(batch["targets"], 4, seeded(0))
    attack = peer.PGDL2(model, eps=0.5, alpha=0.1, steps=10, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    theirs = attack(batch["inputs"], wished)
    ours = pgd(model, TASK, batch, Walk(radius=0.5, step=0.1, steps=10, targets=wished, norm="l2"))
    assert torch.allclose(ours["inputs"], theirs, atol=1e-5)


def test_l2_pgd_equals_torchattacks_from_the_same_random_start(peer: Any, model: nn.Module, batch: Batch) -> None:
    wished = other_classes(batch["targets"], 4, seeded(0))
    attack = peer.PGDL2(model, eps=0.5, alpha=0.1, steps=1)
    attack.set_mode_targeted_by_label(quiet=True)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        theirs = attack(batch["inputs"], wished)
    ours = pgd(model, TASK, batch, Walk(radius=0.5, step=0.1, steps=1, targets=wished, norm="l2"), seeded(9))
    assert torch.allclose(ours["inputs"], theirs, atol=1e-5)


class Bytes(nn.Module):
    """A model of inputs in [0, 255] that computes what another computes of inputs in [0, 1]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        scaled: Tensor = self.model(inputs / 256)
        return scaled


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_radii_are_shares_of_the_bounds(model: nn.Module, batch: Batch, norm: Any) -> None:
    wide = {**batch, "inputs": batch["inputs"] * 256}
    large = Classification(bounds=(0.0, 256.0))
    walk = Walk(0.1, 0.03, 4, norm)
    pairs = [
        (gaussian(TASK, batch, 0.1, seeded(1)), gaussian(large, wide, 0.1, seeded(1))),
        (fgsm(model, TASK, batch, radius=0.1), fgsm(Bytes(model), large, wide, radius=0.1)),
        (pgd(model, TASK, batch, walk, seeded(1)), pgd(Bytes(model), large, wide, walk, seeded(1))),
    ]
    for small, scaled in pairs:
        assert torch.allclose(small["inputs"] * 256, scaled["inputs"], atol=1e-3)
