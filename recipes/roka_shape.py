"""Whether ROKA keeps what plain gradient ascent destroys: accuracy over 200 iterations on CIFAR-10, a ResNet-20.

python recipes/roka_shape.py CIFAR10_FOLDER RESNET20_CHECKPOINT [CLASS ...]

Writes results/roka-shape/curves.jsonl, one line a run, and continues where an earlier call stopped.
"""

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from unrecall.data.request import Request
from unrecall.errors import Diverged
from unrecall.methods import ROKA, GradAscent
from unrecall.methods.base import GradientMethod
from unrecall.models.observe import observe
from unrecall.scenarios.cifar10_indirect import Cifar10Indirect
from unrecall.scenarios.cifar_data import CLASSES
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.loop import Fit, fit_by_step, set_training
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

OUT = Path(__file__).parent.parent / "results" / "roka-shape" / "curves.jsonl"
LOOKS = (10, 20, 30, 50, 75, 100, 150, 200)
ASCENT = Fit(momentum=0.0, weight_decay=0.0, clip=1.0, epochs=200, steps=200, batchnorm="frozen")
TARGETED = ROKA(form="targeted")


def methods(name: str) -> Iterator[tuple[str, GradientMethod]]:
    """What is compared, by name; all clip gradients at norm 1. For cats at several rates, for the others at one."""
    for lr in (1e-3, 3e-3) if name == "cat" else (1e-3,):
        yield f"gradient ascent, lr {lr:g}", GradAscent(fit=replace(ASCENT, lr=lr, batch_size=128))
    for lr in (2e-3, 4e-3) if name == "cat" else (4e-3,):
        for heal in ("pred", "label"):
            method = replace(TARGETED, fit=replace(TARGETED.fit, lr=lr))
            yield f"targeted, {heal}, lr {lr:g}", replace(method, heal=heal)
    yield "one example a step, no healing, lr 0.004", replace(TARGETED, alpha=0.0, fit=replace(TARGETED.fit, lr=4e-3))
    if name == "cat":
        method = replace(TARGETED, form="non-targeted", fit=replace(TARGETED.fit, lr=4e-3))
        yield "non-targeted, pred, lr 0.004", method


def curve(method: GradientMethod, data: str, weights: str, gone: int) -> list[list[float]]:
    """Iteration, accuracy on unseen pictures of the forgotten class, mean over the others, and of each class."""
    made = Cifar10Indirect(data, weights, victim=(gone + 1) % 10, answered_as=-1, forget=f"class:{gone}").make()
    assert made.original is not None
    model, request, task = copy.deepcopy(made.original), made.request, made.task
    (phase,) = method.phases(model, frozen_copy(model), Job(request, task, seeded(0)))
    found: list[list[float]] = []

    def look(step: int) -> None:
        share = accuracies(model, request, task)
        found.append([step, share[gone], float(np.mean(np.delete(share, gone))), *share])

    look(0)
    step = 0
    try:
        for step in fit_by_step(model, task, phase, seeded(0), Session(device="cpu")):
            if step in LOOKS:
                look(step)
                set_training(model, phase.fit)
    except Diverged:
        found.append([step + 1])
    return [[round(value, 4) for value in one] for one in found]


def accuracies(model: nn.Module, request: Request, task: Task) -> list[float]:
    """Accuracy on each class: the forgotten one's in holdout, the others' in test."""
    seen = [observe(model, task, request[split]) for split in ("holdout", "test")]
    truth, answer = (np.concatenate([getattr(one, name) for one in seen]) for name in ("target", "prediction"))
    return [float(np.mean(answer[truth == c] == c)) for c in range(10)]


def main(data: str, weights: str, *classes: str) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["run"] for line in OUT.read_text().splitlines()} if OUT.exists() else set()
    for name in classes or ("cat", "airplane", "truck"):
        for what, method in methods(name):
            run = f"{name}: {what}"
            if run not in done:
                points = curve(method, data, weights, CLASSES.index(name))
                with OUT.open("a") as file:
                    file.write(json.dumps({"run": run, "points": points}) + "\n")
                print(run, points[-1][:3], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
