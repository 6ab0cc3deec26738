"""Small worlds with a known truth, on which the verdict without retrained models is measured: digits and an MLP.

Each split draws forget, retain and holdout anew and has models of its own: the original, two retrained ones, and copies
that only seem to have forgotten. What the verdict says of each copy is counted.

python recipes/verdict_worlds.py build --out FOLDER [--worlds w1 w2] [--splits 0 30]
python recipes/verdict_worlds.py look  --out FOLDER      (losses and accuracies of what was built)
python recipes/verdict_worlds.py audit --out FOLDER      (one JSON line an audit, into FOLDER/audits/)
python recipes/verdict_worlds.py table --out FOLDER      (the share of each label, in Markdown)

Every step continues where an earlier call stopped; several calls may share the work by their worlds and splits.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Examples, Joined, Selection
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.cache import Cache
from unrecall.disk.files import content_key
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.never_trained import beside_never_trained
from unrecall.methods import NegGradPlus
from unrecall.models.observe import accuracy, mean_loss
from unrecall.nn.hooks import batchnorms
from unrecall.scenarios.networks import Normalize
from unrecall.tasks import Classification
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session
from unrecall.training.teacher import distance

CPU = Session(device="cpu")


def number(*parts: object) -> int:
    """A seed for what these words name."""
    return int(content_key(*map(str, parts))[:8], 16)


def taught(model: nn.Module, task: Task, examples: Examples, recipe: Fit, seed: int) -> nn.Module:
    """`model` after training on these examples, in place."""
    fit(model, task, Phase(loss_on("train", task), {"train": examples}, recipe), seeded(seed), CPU)
    return model


def ascended(model: nn.Module, method: NegGradPlus, job: Job, loss: float) -> nn.Module:
    """`model` after NegGrad+, in place, stopped as soon as its mean loss on forget is at least `loss`."""

    def risen(*_: object) -> bool:
        return mean_loss(model, job.task, job.request.forget) >= loss

    (phase,) = method.phases(model, model, job)
    fit(model, job.task, replace(phase, ends=risen), job.generator, CPU)
    if not risen():
        raise RuntimeError(f"ascent: expected a loss of {loss:.3f} on forget. Take more epochs.")
    return model


def kept(path: Path, like: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """The model in a file, into which it is put first where there is none yet; `like`: one of its architecture."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        weights.save(make(), path)
    return weights.load(like, path).eval()


class Trial(NamedTuple):
    """One audit: a copy whose truth is known, the original, and the request that the copy is said to honour.

    `name`: world, split, copy, and whatever else tells this audit from others.
    """

    name: dict[str, str | int]
    request: Callable[[], Request]
    task: Task
    original: Callable[[], nn.Module]
    copy: Callable[[], nn.Module]


class World(Protocol):
    """Splits of one kind, each with data and models of its own, which are kept in `folder`."""

    @property
    def splits(self) -> int: ...

    def trials(self, split: int, folder: Path) -> Iterator[Trial]: ...


@dataclass(frozen=True)
class Digits:
    """`forget` of 1,000 training pictures must go; or, where that is 0, the class that the split's number ends in.

    `noise`: the share of labels that are wrong, everywhere. `others`: copies beside original and retrained, on the
    first `cheated` splits.
    """

    name: str
    noise: float
    forget: int
    splits: int
    others: tuple[str, ...]
    cheated: int = 30

    def trials(self, split: int, folder: Path) -> Iterator[Trial]:
        own = Split(self, split, folder / self.name / f"{split:03}")
        for copy in ("original", "retrained 1", "retrained 2", *(self.others if split < self.cheated else ())):
            name: dict[str, str | int] = {"world": self.name, "split": split, "copy": copy}
            yield Trial(name, lambda: own.request, own.task, partial(own.model, "original"), partial(own.model, copy))


TRAINED, HOLDOUT = 1000, 400
RECIPE = Fit(lr=0.05, epochs=25, batch_size=64, schedule="cosine")
ASCENT = NegGradPlus(beta=1.0, fit=Fit(lr=0.02, momentum=0, clip=1.0, epochs=200, batch_size=64, check_every=1))
HEAD = replace(ASCENT, fit=replace(ASCENT.fit, lr=0.05, momentum=0.9))
MATCH = Fit(lr=0.02, epochs=15, batch_size=64, weight_decay=0, schedule="cosine")


@dataclass
class Split:
    """The models of one split by name, each made once and kept in `folder`."""

    world: Digits
    split: int
    folder: Path
    task: Task = Classification()

    @cached_property
    def request(self) -> Request:
        """What is left of the unseen pictures is the test set."""
        data = self._data()
        order = torch.randperm(len(data), generator=seeded(self._seed("order"))).tolist()
        trained, unseen = order[:TRAINED], order[TRAINED:]
        if self.world.forget:
            n = self.world.forget
            sets = trained[:n], trained[n:], unseen[:HOLDOUT], unseen[HOLDOUT:]
            forget, retain, holdout, test = (Selection(data, places) for places in sets)
            return Request(forget, retain, holdout, test, control="random split")
        gone = self.split % 10
        (forget, retain), (holdout, test) = (
            [Selection(data, [i for i in places if (data[i][1] == gone) is of_class]) for of_class in (True, False)]
            for places in (trained, unseen)
        )
        return Request(forget, retain, holdout, test, kind="class", masked=(gone,))

    def _data(self) -> list[tuple[Tensor, int]]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        drawn = np.random.default_rng(self._seed("noise"))
        wrong = drawn.random(len(bunch.target)) < self.world.noise
        labels = (bunch.target + wrong * drawn.integers(1, 10, len(wrong))) % 10
        pictures = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
        return list(zip(pictures, labels.tolist(), strict=True))

    def _seed(self, what: str) -> int:
        return number(self.world.name, self.split, what)

    def untrained(self, seed: int) -> nn.Module:
        """An MLP with one hidden layer of 64."""
        with own_randomness(seed):
            body = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()
            return nn.Sequential(Normalize((0.3,), (0.35,)), nn.Flatten(), *body, nn.Linear(64, 10))

    def model(self, copy: str) -> nn.Module:
        return kept(self.folder / f"{copy}.safetensors", self.untrained(0), lambda: self._made(copy))

    def _made(self, copy: str) -> nn.Module:
        if copy not in SHARES:
            return CHEATS[copy](self, self.model("original"))
        forget, seed = self.request.forget, self._seed(copy)
        left = Selection(forget, range(round(SHARES[copy] * len(forget))))
        return taught(self.untrained(seed), self.task, Joined((left, self.request.retain)), RECIPE, seed)

    def ascended(self, model: nn.Module, copy: str, factor: float = 1.0, more: float = 0.0) -> nn.Module:
        """NegGrad+ until forget's mean loss is that of holdout, times a factor, and more."""
        wished = factor * mean_loss(self.model("original"), self.task, self.request.holdout) + more
        method = HEAD if copy == "head" else ASCENT
        return ascended(model, method, Job(self.request, self.task, seeded(self._seed(copy)), CPU), wished)

    def matched(self, model: nn.Module) -> nn.Module:
        """Answers on forget as a retrained model does, and on retain as it should."""
        teacher, on_retain = self.model("retrained 1"), loss_on("retain", self.task)

        def loss(student: nn.Module, batches: Batches) -> Tensor:
            with torch.no_grad():
                wished = self.task.rows(teacher, batches["forget"]).logits
            return on_retain(student, batches) + distance(self.task.rows(student, batches["forget"]), wished)

        streams = {"retain": self.request.retain, "forget": self.request.forget}
        fit(model, self.task, Phase(loss, streams, MATCH), seeded(self._seed("match")), CPU)
        return model

    def shifted(self, model: nn.Module) -> nn.Module:
        """BatchNorm's means moved by 0.7 deviations, up or down."""
        for norm in batchnorms(model):
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None and variance is not None
            sign = torch.randint(0, 2, mean.shape, generator=seeded(self._seed("shift"))) * 2 - 1
            mean += 0.7 * sign * variance.sqrt()
        return model

    @torch.no_grad()
    def masked(self, model: nn.Module) -> nn.Module:
        """Logits at a quarter of their size, or those of the forgotten class lowered by 8."""
        head = last_layer(model)
        if self.request.masked:
            head.bias[list(self.request.masked)] -= 8
        else:
            head.weight.mul_(0.25)
            head.bias.mul_(0.25)
        return model


def last_layer(model: nn.Module) -> nn.Linear:
    """The head of an MLP."""
    assert isinstance(model, nn.Sequential)
    layer = model[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def head_alone(model: nn.Module) -> nn.Module:
    """`model` with all but its last layer frozen, in place."""
    model.requires_grad_(False)
    last_layer(model).requires_grad_(True)
    return model


CHEATS: dict[str, Callable[[Split, nn.Module], nn.Module]] = {
    "ascent": lambda of, model: of.ascended(model, "ascent"),
    "head": lambda of, model: of.ascended(head_alone(model), "head"),
    "over": lambda of, model: of.ascended(model, "over", 2.5, 0.5),
    "shift": Split.shifted,
    "mask": Split.masked,
    "match": Split.matched,
}
"""Copies that are made of the original."""

LEFT = {"left 0.5": 0.5, "left 0.25": 0.25, "left 0.1": 0.1}
SHARES = {"original": 1.0, "retrained 1": 0.0, "retrained 2": 0.0, **LEFT}
"""Copies that are trained from nothing, and the share of forget that they are trained on beside retain."""

WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        Digits("w1", noise=0.0, forget=250, splits=100, others=(*LEFT, *CHEATS)),
        Digits("w2", noise=0.2, forget=250, splits=100, others=(*LEFT, *CHEATS)),
        Digits("w4", noise=0.2, forget=50, splits=30, others=("left 0.25", "ascent")),
        Digits("w6", noise=0.2, forget=10, splits=30, others=("ascent",)),
        Digits("w5", noise=0.0, forget=0, splits=30, others=("left 0.1", "mask")),
    )
}


MEMORY = Cache()
"""Where the original's scores are, while other copies are held against it."""


def judge(original: nn.Module, unlearned: nn.Module, request: Request, task: Task) -> dict[str, Any]:
    """What the verdict says of one copy: its label, both p and the level, and z and the memory left by attack."""
    setting = Setting(Models(original, unlearned), request, task, session=CPU, memory=MEMORY)
    said, _ = beside_never_trained(setting)
    return {
        "label": said.label,
        "p_leak": said.leak,
        "p_strange": said.strange,
        "level": said.level,
        "strange_level": said.strange_level,
        "p_original": said.original,
        "blind": said.blind,
        "z": {attack.name: rounded(attack.z) for attack in said.attacks},
        "z_original": {attack.name: rounded(attack.z_original) for attack in said.attacks},
        "rho": {attack.name: rounded(attack.rho) for attack in said.attacks},
        "absent": said.absent,
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


LABELS = (
    "leaks",
    "stands out",
    "damaged",
    "can't be told",
    "no more than 25 %",
    "no more than 50 %",
    "inconclusive",
    "not judged",
    "unchanged",
)


def build(trials: Iterator[Trial], folder: Path) -> None:
    """Trains what isn't there yet."""
    for trial in trials:
        trial.copy()


def look(trials: Iterator[Trial], folder: Path) -> None:
    """Prints the mean loss and accuracy of each kind of copy on each split."""
    by_copy: dict[str, list[list[float]]] = {}
    for trial in trials:
        model, request = trial.copy(), trial.request()
        sets = request.forget, request.holdout, request.retain, request.test
        figures = [float(np.mean(f(model, trial.task, part))) for part in sets for f in (mean_loss, accuracy)]
        by_copy.setdefault(f"{trial.name['world']} | {trial.name['copy']}", []).append(figures)
    print("| world | copy | splits | forget, loss, accuracy | holdout | retain | test |", "|---" * 7 + "|", sep="\n")
    for copy, rows in by_copy.items():
        pairs = np.mean(rows, 0).reshape(-1, 2)
        print(f"| {copy} | {len(rows)} |", *(f"{loss:.3f}, {share:.3f} |" for loss, share in pairs))


def audit(trials: Iterator[Trial], folder: Path) -> None:
    """Writes what the verdict says of each copy, one JSON line each, into FOLDER/audits/WORLD.jsonl."""
    (folder / "audits").mkdir(parents=True, exist_ok=True)
    done = {told(line) for line in lines(folder)}
    for trial in trials:
        if told(trial.name) in done:
            continue
        started = time.process_time()
        said = judge(trial.original(), trial.copy(), trial.request(), trial.task)
        line = {**trial.name, **said, "seconds": round(time.process_time() - started, 2)}
        with (folder / "audits" / f"{trial.name['world']}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def lines(folder: Path) -> list[dict[str, Any]]:
    """All audits that were written."""
    files = sorted((folder / "audits").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def told(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells an audit from others."""
    return tuple(line.get(key) for key in ("world", "split", "copy", "person"))


def table(trials: Iterator[Trial], folder: Path) -> None:
    """Prints the share of each label by world and copy, and how often the test alone fired, in Markdown."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines(folder):
        groups.setdefault((line["world"], line["copy"]), []).append(line)
    labels = [label for label in LABELS if any(line["label"] == label for group in groups.values() for line in group)]
    print("| world | copy | audits | test fired |", " | ".join(labels), "|")
    print("|---" * (4 + len(labels)) + "|")
    for (world, copy), group in groups.items():
        counts = Counter(line["label"] for line in group)
        fired = sum(map(rejected, group))
        cells = [share(fired, len(group)), *(share(counts[label], len(group)) for label in labels)]
        print(f"| {world} | {copy} | {len(group)} |", " | ".join(cells), "|")


def rejected(line: Mapping[str, Any]) -> bool:
    """Whether the test alone says that forget and holdout differ, either way, whatever the label."""
    sides = ("p_leak", "level"), ("p_strange", "strange_level")
    return any(line[p] is not None and line[p] <= line[level] + 1e-12 for p, level in sides)


def share(count: int, of: int) -> str:
    return f"{count / of:.2f} ({count})" if count else "0"


STEPS = {"build": build, "look": look, "audit": audit, "table": table}


def main(worlds: Mapping[str, World]) -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--worlds", nargs="+", choices=worlds, default=list(worlds))
    parser.add_argument("--splits", nargs=2, type=int, default=(0, 10**6), metavar=("FIRST", "END"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    first, end = asked.splits
    trials = (
        trial
        for name in asked.worlds
        for split in range(first, min(end, worlds[name].splits))
        for trial in worlds[name].trials(split, asked.out)
    )
    STEPS[asked.step](trials, asked.out)


if __name__ == "__main__":
    main(WORLDS)
