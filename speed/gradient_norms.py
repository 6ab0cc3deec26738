"""Norms of single examples' gradients against one backward pass an example, as the peers compute them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from speed.clock import Race, race
from speed.membership import _llama, _task, _texts
from unrecall.models.gradient_norms import gradient_norms
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import resnet20, small_cnn
from unrecall.tasks import Classification
from unrecall.tasks.base import Task


def run() -> list[Race]:
    digits = Digits().make()
    retain = [digits.request.retain[i] for i in range(512)]
    pictures = [(torch.rand(3, 32, 32), i % 10) for i in range(128)]
    return [
        _raced("512 digits, small CNN", small_cnn(), digits.task, retain, "ratio >= 4"),
        _raced("128 pictures, ResNet-20", resnet20(), Classification(), pictures, "ratio > 1"),
        _raced("100 texts, small Llama", _llama(0), _task(), _texts(100), "ratio > 1"),
    ]


def _raced(name: str, model: nn.Module, task: Task, examples: Sequence[Any], target: str) -> Race:
    model.eval()
    norms: dict[str, np.ndarray] = {}

    def ours() -> None:
        norms["ours"] = gradient_norms(model, task, examples)

    def theirs() -> None:
        values = []
        for item in examples:
            model.zero_grad(set_to_none=True)
            task.rows(model, task.collate([item])).losses().sum().backward()
            squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
            values.append(float(torch.stack(squares).sum().sqrt()))
        norms["theirs"] = np.array(values)

    times = race(ours, theirs, rounds=3)
    gap = float(np.abs(norms["ours"] / norms["theirs"] - 1).max())
    return Race(f"gradient norms, {name}", *times, "backward an example", target, f"differ by {gap:.0e}")
