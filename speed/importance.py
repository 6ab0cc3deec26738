"""Exact per-example importance against a loop over batches of one; aimed at: at least 4 times faster."""

import torch

from speed.clock import Race, race
from unrecall.data.examples import Part
from unrecall.models.importance import exact
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import small_cnn


def run() -> list[Race]:
    digits = Digits().make()
    task, examples = digits.task, Part(digits.request.retain, range(512))
    model = small_cnn().eval()

    def loop() -> dict[str, torch.Tensor]:
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for i in range(len(examples)):
            model.zero_grad(set_to_none=True)
            task.rows(model, task.collate([examples[i]])).losses().mean().backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    total[name] += p.grad.square()
        return {name: value / len(examples) for name, value in total.items()}

    at_once, one_by_one = exact(model, task, examples), loop()
    worst = max(float((at_once[name] - one_by_one[name]).abs().max()) for name in one_by_one)
    times = race(lambda: exact(model, task, examples), loop, rounds=5)
    return [
        Race(
            "per-example importance, 512 digits",
            *times,
            "loop, batch of one",
            "ratio >= 4",
            f"differ by {worst:.0e}",
        )
    ]
