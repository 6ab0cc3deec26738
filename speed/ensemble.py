"""Five references trained together by torch.func against one after another: why the cache trains them in turn."""

import copy

import torch
import torch.nn.functional as F
from torch.func import functional_call, stack_module_state, vmap

from speed.clock import Race, race
from unrecall.scenarios.networks import small_cnn

STEPS = 20


def run() -> list[Race]:
    models = [small_cnn().train() for _ in range(5)]
    inputs, targets = torch.rand(5, 64, 1, 8, 8), torch.randint(0, 10, (5, 64))
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")

    def together() -> None:
        for _ in range(STEPS):
            logits = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))(parameters, buffers, inputs)
            F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()

    def in_turn() -> None:
        for _ in range(STEPS):
            for model, x, y in zip(models, inputs, targets, strict=True):
                F.cross_entropy(model(x), y).backward()

    times = race(together, in_turn, rounds=3)
    return [Race("five references as one ensemble", *times, "one after another", "no target")]
