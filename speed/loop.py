"""The loop against a bare PyTorch loop that does the same passes; aimed at: at most 1.05 times its time."""

import copy

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from speed.clock import Race, race
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import resnet20, small_cnn
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


def run() -> list[Race]:
    digits = Digits().make()
    data = [digits.request.retain[i] for i in range(len(digits.request.retain))]
    pictures = [(torch.rand(3, 32, 32), i % 10) for i in range(256)]
    return [
        _against_bare("loop, small CNN on digits", small_cnn(), data, epochs=4),
        _against_bare("loop, ResNet-20 on 32 x 32 pictures", resnet20(), pictures, epochs=1),
    ]


def _against_bare(name: str, start: torch.nn.Module, data: list[tuple[torch.Tensor, int]], epochs: int) -> Race:
    task = Digits().make().task
    recipe = Fit(lr=0.01, epochs=epochs, batch_size=64)

    def ours() -> None:
        phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": data}, recipe)
        fit(copy.deepcopy(start), task, phase, seeded(0), Session(device="cpu"))

    def bare() -> None:
        model = copy.deepcopy(start).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
        for _ in range(epochs):
            for inputs, targets in DataLoader(data, 64, shuffle=True):  # type: ignore[arg-type]
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()

    times = race(ours, bare, rounds=7)
    return Race(name, *times, "bare PyTorch loop", "ratio >= 0.95")
