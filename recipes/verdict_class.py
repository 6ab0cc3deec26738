"""How often the novel-class rank test is right, on generated faces: 20 people, one to be forgotten, 30 never seen.

python recipes/verdict_class.py [SPLITS] [NOISE]

Prints a Markdown row for each copy: how often it was said to leak, to stand out, or neither.
"""

import copy
import sys
from collections import Counter, defaultdict

import torch
from torch import nn

import unrecall as ur
from unrecall.harness.novel_class import novel_class
from unrecall.methods import GradAscent, GradDiff, RandomLabel
from unrecall.tasks import Classification
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded

TRAINED, UNSEEN, SHOTS = 20, 30, 20
RECIPE = Fit(optimizer="adam", lr=0.003, epochs=20, batch_size=64, weight_decay=0.0)
SESSION = ur.Session(device="cpu")
Picture = tuple[torch.Tensor, int]


def people(split: int, noise: float) -> list[list[Picture]]:
    """Generated faces, 20 pictures of each person; the first `TRAINED` are the model's.

    An unseen person's label says nothing.
    """
    random = torch.Generator().manual_seed(split)
    n = TRAINED + UNSEEN
    faces = nn.functional.interpolate(torch.rand(n, 1, 4, 4, generator=random), size=16, mode="bilinear")
    shift = noise * torch.randn(n, SHOTS, 1, 16, 16, generator=random)
    return [[((faces[i] + shift[i, k]).clamp(0, 1), min(i, TRAINED - 1)) for k in range(SHOTS)] for i in range(n)]


def trained(pictures: list[Picture], seed: int) -> nn.Sequential:
    """A network with two hidden layers, trained on these pictures."""
    with own_randomness(seed):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, TRAINED)
        )
    fit(model, Classification(), Phase(loss_on("d", Classification()), {"d": pictures}, RECIPE), seeded(seed), SESSION)
    return model.eval()


def without_row(model: nn.Sequential, row: int) -> nn.Module:
    """A copy whose head never names this class; its body is as it was."""
    copied = copy.deepcopy(model)
    head = copied[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight[row] = 0
        head.bias[row] = -100
    return copied


def main(splits: int, noise: float) -> None:
    """Counts what is said of each copy."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for split in range(splits):
        persons = people(split, noise)
        forget, unseen = persons[0], persons[TRAINED:]
        retain = [picture for person in persons[1:TRAINED] for picture in person]
        request = ur.Request(forget, retain, kind="class", masked=(0,))
        task, original = Classification(), trained(forget + retain, split)
        copies = {
            "original": original,
            "head only": without_row(original, 0),
            "retrained": trained(retain, 1000 + split),
        }
        for method in (GradAscent(), GradDiff(), RandomLabel()):
            outcome = ur.forget(original, request, method, attacks="loss", session=SESSION, seed=split)
            copies[f"{type(method).__name__}, tuned"] = outcome.model
        for name, model in copies.items():
            result = novel_class(task, model, retain, forget, unseen)
            said[name][result.line.split(":")[0].split(" (")[0]] += 1
    for name, counts in said.items():
        print(f"| {name} | " + ", ".join(f"{label} {n}" for label, n in counts.most_common()) + " |")


if __name__ == "__main__":
    splits, noise = [*sys.argv[1:], *("20", "0.5")[len(sys.argv) - 1 :]]
    main(int(splits), float(noise))
