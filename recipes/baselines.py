"""What methods at the strengths of their lines leave, with no audit: accuracies on forget, retain and test.

digits: `digits:forget=REQUEST`, means over three seeds. cats: the real ResNet-20 on CIFAR-10, where 500 cats must go,
beside 1,500 other pictures as retain and 1,000 test pictures without cats, one seed.

python recipes/baselines.py digits REQUEST METHOD [METHOD ...]
python recipes/baselines.py cats DATA_FOLDER METHOD [METHOD ...]

DATA_FOLDER holds cifar10/ and resnet_cifar10/. Prints a Markdown row a method; results/baselines/README.md has them.
"""

import sys
from pathlib import Path

import numpy as np
from torch import nn

from unrecall.data.examples import Selection
from unrecall.data.request import Request
from unrecall.models.observe import accuracy
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.cifar_data import ARCHITECTURES, CLASSES, load_resnet, read_cifar10
from unrecall.scenarios.digits import Digits
from unrecall.spec.lines import parse
from unrecall.tasks import Classification
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

SESSION = Session(device="cpu")
CAT = CLASSES.index("cat")


def accuracies(model: nn.Module, task: Task, request: Request) -> list[float]:
    """In per cent: on forget, retain and test."""
    return [100 * float(accuracy(model, task, request[split]).mean()) for split in ("forget", "retain", "test")]


def digits(request: str, methods: list[str]) -> dict[str, list[list[float]]]:
    """The accuracies by method and seed; "original" is one of the methods."""
    cells: dict[str, list[list[float]]] = {}
    for seed in range(3):
        scenario = Digits(forget=request, seed=seed).make()
        original = scenario.train_original(seed, SESSION).model
        job = Job(scenario.request, scenario.task, seeded(seed), SESSION)
        cells.setdefault("original", []).append(accuracies(original, scenario.task, scenario.request))
        for line in methods:
            model = parse(line, "methods").unlearn(original, job.seeded(seed))
            cells.setdefault(line, []).append(accuracies(model, scenario.task, scenario.request))
    return cells


def cats(data: Path, methods: list[str]) -> dict[str, list[list[float]]]:
    """The same on CIFAR-10, by the pretrained network."""
    cifar, task = read_cifar10(data / "cifar10"), Classification(classes=CLASSES)
    original = load_resnet(ARCHITECTURES["resnet20"](10), data / "resnet_cifar10" / "resnet20-12fca82f.th")
    parts = []
    for examples, most in ((cifar.train, (500, 1500)), (cifar.test, (200, 1000))):
        order = shuffled(range(10_000), 0)
        for wanted, count in zip((True, False), most, strict=True):
            parts.append(Selection(examples, [i for i in order if (examples[i][1] == CAT) is wanted][:count]))
    forget, retain, holdout, test = parts
    request = Request(forget, retain, holdout, test, kind="class", masked=(CAT,))
    cells = {"original": [accuracies(original, task, request)]}
    for line in methods:
        model = parse(line, "methods").unlearn(original, Job(request, task, seeded(0), SESSION))
        cells[line] = [accuracies(model, task, request)]
    return cells


def main(case: str, where: str, methods: list[str]) -> None:
    """Prints the table."""
    cells = digits(where, methods) if case == "digits" else cats(Path(where), methods)
    print("| method | forget | retain | test |\n|---|---|---|---|")
    for line, rows in cells.items():
        print(f"| `{line}` | " + " | ".join(f"{mean:.1f}" for mean in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
