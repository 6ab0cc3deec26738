"""RURK's ablation (the paper's Table C.4, its rows of tau and lambda) on small CIFAR-5, a ResNet-20, under each layout.

The paper does not say whether retain, forget and perturbed copies go through the network as one batch or as three, nor
whether BatchNorm's statistics move meanwhile. Each answer is tried on the whole table.

python recipes/rurk_ablation.py CIFAR10_FOLDER RESNET20_CHECKPOINT

Writes results/rurk-ablation/layouts.jsonl, one line a run, and continues where an earlier call stopped.
"""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from unrecall.methods import RURK
from unrecall.models.observe import accuracy
from unrecall.scenarios.small_cifar5 import SmallCifar5
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

OUT = Path(__file__).parent.parent / "results" / "rurk-ablation" / "layouts.jsonl"
LAYOUTS = {
    "joint": RURK(passes="joint"),
    "frozen": RURK(passes="joint", fit=replace(RURK().fit, batchnorm="frozen")),
    "separate": RURK(passes="separate"),
}
REPORTED = {
    "tau=0.03, lambda=0.03": (99.52, 94.33, 93.83),
    "tau=0, lambda=0.03": (99.93, 100.0, 95.10),
    "tau=0.03, lambda=0": (99.96, 100.0, 95.00),
    "tau=0.1, lambda=0.03": (96.89, 70.33, 87.80),
    "tau=0.03, lambda=0.1": (85.04, 23.33, 76.87),
    "tau=0.04, lambda=0.03": (98.96, 86.67, 92.37),
    "tau=0.03, lambda=0.04": (98.89, 86.67, 92.50),
    "tau=0.02, lambda=0.03": (99.89, 97.67, 94.27),
    "tau=0.03, lambda=0.02": (99.89, 97.33, 94.17),
    "tau=0.01, lambda=0.03": (99.93, 100.0, 94.63),
    "tau=0.03, lambda=0.01": (99.93, 100.0, 94.60),
}
"""Accuracy in percent on retain, forget (100 minus the paper's unlearn accuracy) and test, by setting."""


def numbers(setting: str) -> list[float]:
    return [float(part.split("=")[1]) for part in setting.split(", ")]


def main(data: str, weights: str) -> None:
    torch.set_num_threads(1)
    session = Session(device="cpu")
    made = SmallCifar5(data=data, weights=weights, arch="resnet20").make()
    original = made.train_original(0, session).model
    OUT.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["run"] for line in OUT.read_text().splitlines()} if OUT.exists() else set()
    for layouts in (("joint", "frozen"), ("separate",)):
        for setting, layout in itertools.product(REPORTED, layouts):
            if (run := f"{setting}: {layout}") in done:
                continue
            tau, weight = numbers(setting)
            tried = replace(LAYOUTS[layout], tau=tau, lambda_f=weight, lambda_a=weight)
            model = tried.unlearn(original, Job(made.request, made.task, seeded(0), session))
            splits = [made.request[split] for split in ("retain", "forget", "test")]
            found = [round(100 * float(accuracy(model, made.task, examples).mean()), 2) for examples in splits]
            line = {"setting": setting, "layout": layout, "reported": REPORTED[setting], "measured": found, "run": run}
            with OUT.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(run, found, REPORTED[setting], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
