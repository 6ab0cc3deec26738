"""Importance against loops: per example, aimed at 4 times a loop over batches of one; of batches, and SSD, as fast."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from speed.clock import Race, race
from unrecall.data.examples import Selection
from unrecall.models.importance import batch_mean, exact
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import resnet20, small_cnn
from unrecall.tasks import Classification
from unrecall.tasks.base import Task

Importance = dict[str, Tensor]


def run() -> list[Race]:
    digits = Digits().make()
    retain = [digits.request.retain[i] for i in range(len(digits.request.retain))]
    pictures = [(torch.rand(3, 32, 32), i % 10) for i in range(256)]
    return [
        _per_example(digits.task, Selection(digits.request.retain, range(512))),
        _by_batches("importance by batches, digits", small_cnn(), digits.task, retain),
        _by_batches("importance by batches, ResNet-20", resnet20(), Classification(), pictures),
    ]


def _per_example(task: Task, examples: Selection) -> Race:
    model = small_cnn().eval()

    def loop() -> Importance:
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for i in range(len(examples)):
            model.zero_grad(set_to_none=True)
            task.rows(model, task.collate([examples[i]])).losses().mean().backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    total[name] += p.grad.square()
        return {name: value / len(examples) for name, value in total.items()}

    name = f"per-example importance, {len(examples)} digits"
    return _raced(name, lambda: exact(model, task, examples), loop, "loop, batch of one", "ratio >= 4")


def _by_batches(name: str, model: nn.Module, task: Task, data: Sequence[Any]) -> Race:
    """What SSD computes, against the same sums of `autograd.grad` over a DataLoader."""
    model = copy.deepcopy(model).eval()

    def bare() -> Importance:
        names, weights = zip(*model.named_parameters(), strict=True)
        total = [torch.zeros_like(weight) for weight in weights]
        loader: DataLoader[Any] = DataLoader(data, 128)  # type: ignore[arg-type]
        for inputs, targets in loader:
            gradients = torch.autograd.grad(F.cross_entropy(model(inputs), targets), weights)
            for squares, gradient in zip(total, gradients, strict=True):
                squares.add_(gradient.pow(2))
        return {name: value / len(loader) for name, value in zip(names, total, strict=True)}

    return _raced(name, lambda: batch_mean(model, task, data), bare, "bare autograd.grad", "ratio >= 1")


def _raced(
    name: str, ours: Callable[[], Importance], theirs: Callable[[], Importance], rival: str, target: str
) -> Race:
    pairs = [(ours()[key], value) for key, value in theirs().items()]
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    return Race(name, *race(ours, theirs, rounds=5), rival, target, f"differ by {worst:.0e} of the largest")
