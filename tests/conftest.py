"""Small worlds that every test can afford: a blob classifier with BatchNorm, and the request that goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from unrecall.engine import Fit, Phase, fit, seeded
from unrecall.session import Session
from unrecall.tasks import Classification
from unrecall.types import Request

CPU = Session(device="cpu")


def blobs(n: int, classes: int, seed: int) -> list[tuple[torch.Tensor, int]]:
    """`n` pictures of 1 x 4 x 4 in [0, 1] around `classes` fixed, overlapping centres."""
    centres = torch.rand(classes, 1, 4, 4, generator=seeded(99))
    generator = seeded(seed)
    labels = torch.arange(n) % classes
    noise = 0.45 * torch.randn(n, 1, 4, 4, generator=generator)
    return [((centres[y] + e).clamp(0, 1), int(y)) for y, e in zip(labels, noise, strict=True)]


def network(classes: int = 4, seed: int = 0) -> nn.Sequential:
    """Conv, BatchNorm, ReLU, hidden layer, head: small enough to train in a blink, with statistics to drift."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 32),
            nn.ReLU(),
            nn.Linear(32, classes),
        )


@dataclass(frozen=True)
class World:
    """A trained original, a retrained reference, and what lies between them."""

    request: Request
    task: Classification
    original: nn.Module
    retrained: tuple[nn.Module, ...]


def train(examples: list[tuple[torch.Tensor, int]], seed: int, classes: int = 4) -> nn.Module:
    task = Classification()
    model = network(classes, seed)
    recipe = Fit(lr=0.05, epochs=12, batch_size=32)
    phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": examples}, recipe)
    fit(model, task, phase, seeded(seed), CPU)
    return model


def make_world(kind: str) -> World:
    data = blobs(160, 4, 1)
    first = [item for item in data if item[1] == 0]
    rest = [item for item in data if item[1] != 0]
    unseen = blobs(240, 4, 2)
    same, other = [x for x in unseen if x[1] == 0], [x for x in unseen if x[1] != 0]
    if kind == "class":
        request = Request(first, rest, same[:40], same[40:] + other, kind="class", masked=(0,))
    else:
        request = Request(first[:20], first[20:] + rest, same[:40], same[40:] + other)
    retain = list(request.retain)  # type: ignore[call-overload]
    return World(request, Classification(), train(data, 0), tuple(train(retain, s) for s in (11, 12, 13)))


@pytest.fixture(scope="session")
def samples_world() -> World:
    return make_world("samples")


@pytest.fixture(scope="session")
def class_world() -> World:
    return make_world("class")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
