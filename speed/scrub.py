"""SCRUB and SSD as methods against bare loops of the same steps; aimed at: as fast."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from speed.clock import Race, race
from unrecall.data.request import Request
from unrecall.methods.base import Method
from unrecall.methods.scrub import SCRUB
from unrecall.methods.ssd import SSD
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import resnet20, small_cnn
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

Data = Sequence[Any]


def run() -> list[Race]:
    digits = Digits().make().request
    forget, retain = ([part[i] for i in range(len(part))] for part in (digits.forget, digits.retain))
    pictures = [(torch.rand(3, 32, 32, generator=seeded(i)), i % 10) for i in range(320)]
    return [
        raced("SCRUB, digits", SCRUB(), small_cnn(), forget, retain),
        raced("SCRUB, ResNet-20", SCRUB(), resnet20(), pictures[:64], pictures[64:]),
        raced("SSD, digits", SSD(), small_cnn(), forget, retain),
        raced("SSD, ResNet-20", SSD(), resnet20(), pictures[:64], pictures[64:]),
    ]


def raced(name: str, method: Method, start: nn.Module, forget: Data, retain: Data) -> Race:
    """The method, whose request has been checked before, against its loop."""
    holdout, test = ([(torch.rand_like(x), y) for x, y in forget[:n]] for n in (2, 3))
    request = Request(forget, retain, holdout, test)
    bare = scrub_bare if isinstance(method, SCRUB) else ssd_bare

    def ours() -> nn.Module:
        return method.unlearn(start, Job(request, Classification(), seeded(0), Session(device="cpu")))

    return Race(name, *race(ours, lambda: bare(method, start, forget, retain), rounds=5), "bare loop", "ratio >= 1")


def scrub_bare(method: Any, start: nn.Module, forget: Data, retain: Data) -> None:
    """The teacher answers each batch anew, as in the authors' code."""
    student, teacher = copy.deepcopy(start).train(), copy.deepcopy(start).eval()

    def apart(inputs: Tensor, logits: Tensor) -> Tensor:
        with torch.no_grad():
            before = F.log_softmax(teacher(inputs) / method.temperature, 1)
        after = F.log_softmax(logits / method.temperature, 1)
        distance: Tensor = method.temperature**2 * F.kl_div(after, before, reduction="batchmean", log_target=True)
        return distance

    def epoch(data: Data, size: int, maximise: bool) -> None:
        recipe = method.fit
        optimizer = torch.optim.SGD(student.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
        for inputs, targets in DataLoader(data, size, shuffle=True):  # type: ignore[arg-type]
            logits = student(inputs)
            distance = apart(inputs, logits)
            kept = method.alpha * distance + method.gamma * F.cross_entropy(logits, targets)
            optimizer.zero_grad(set_to_none=True)
            (-distance if maximise else kept).backward()
            optimizer.step()

    for i in range(method.fit.epochs):
        if i < method.max_epochs:
            epoch(forget, method.forget_batch, True)
        epoch(retain, method.fit.batch_size, False)


def ssd_bare(method: Any, start: nn.Module, forget: Data, retain: Data) -> None:
    student = copy.deepcopy(start).eval()
    weights = list(student.parameters())

    def importance(data: Data) -> Iterable[Tensor]:
        total = [torch.zeros_like(weight) for weight in weights]
        loader: DataLoader[Any] = DataLoader(data, method.batch_size)  # type: ignore[arg-type]
        for inputs, targets in loader:
            gradients = torch.autograd.grad(F.cross_entropy(student(inputs), targets), weights)
            for squares, gradient in zip(total, gradients, strict=True):
                squares.add_(gradient.pow(2))
        return [value / len(loader) for value in total]

    before, after = importance(forget), importance([*retain, *forget])
    with torch.no_grad():
        for weight, of_forget, of_all in zip(weights, before, after, strict=True):
            factor = (method.dampening * of_all / of_forget).clamp(max=1)
            weight.copy_(torch.where(of_forget > method.alpha * of_all, weight * factor, weight))
