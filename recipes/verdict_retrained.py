"""What the verdict beside five retrained models finds, on digits with real retrained models; about ten minutes.

    python recipes/verdict_retrained.py FOLDER [SPLITS]

Each split has its own 250 forgotten of 1,000 pictures, holdout of 400 and models: MLPs with 64 units and BatchNorm, by
SGD. w1: clean labels, weak memory; w2: a fifth of all labels drawn at random, strong memory. Ten retrained models, the
original, and copies with a half, a quarter and a tenth of forget left in. Judged by five of the retrained models, three
draws of them a split: memory left (harness/memory_left.py), and the AUC of the loss by the rule before it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.evidence.pool import Arm
from unrecall.harness.memory_left import rows_of_memory
from unrecall.record import former, stats, verdict
from unrecall.record.row import Row
from unrecall.record.schema import Measurement

LEFT = {"left 50": 125, "left 25": 62, "left 10": 25}
COPIES = ("retrained", "original", *LEFT)
AUC = Row("loss_auc", "Loss threshold, AUC", "privacy", "above", judged=True)
ARMS: tuple[Arm, ...] = ("forget", "holdout")
Losses = dict[str, dict[Arm, np.ndarray]]


def trained(pictures: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """An MLP after 25 epochs of SGD with momentum, its rate falling along a cosine."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = len(pictures) // 64
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 25 * steps)
    for _ in range(25):
        for batch in torch.randperm(len(pictures))[: 64 * steps].split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(pictures[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def world(kind: str, split: int) -> Losses:
    """The losses of forget and holdout under every model of a split."""
    from sklearn.datasets import load_digits

    bunch, rng = load_digits(), np.random.default_rng(split)
    pictures = (torch.tensor(bunch.data, dtype=torch.float32) / 16 - 0.3) / 0.35
    labels, order = torch.tensor(bunch.target), torch.tensor(rng.permutation(len(bunch.target)))
    if kind == "w2":
        noisy = rng.random(len(labels)) < 0.2
        labels[torch.tensor(noisy)] = torch.tensor(rng.integers(0, 10, int(noisy.sum())))
    forget, retain, holdout = order[:250], order[250:1000], order[1000:1400]
    chosen = {f"retrained {i}": retain for i in range(10)} | {"original": torch.cat([forget, retain])}
    chosen |= {name: torch.cat([forget[:count], retain]) for name, count in LEFT.items()}
    losses: Losses = {}
    for i, (name, places) in enumerate(chosen.items()):
        with torch.enable_grad():
            model = trained(pictures[places], labels[places], 1000 * split + i)
        losses[name] = {
            arm: F.cross_entropy(model(pictures[rows]).double(), labels[rows], reduction="none").numpy()
            for arm, rows in zip(ARMS, (forget, holdout), strict=True)
        }
    return losses


def kept(kind: str, split: int, folder: Path) -> Losses:
    """The losses of a split, from the folder where they are there."""
    path = folder / f"{kind}-{split}.npz"
    if not path.exists():
        flat = {f"{name}/{arm}": array for name, arms in world(kind, split).items() for arm, array in arms.items()}
        np.savez_compressed(path, **flat)  # type: ignore[arg-type]
    with np.load(path) as arrays:
        names = dict.fromkeys(key.rpartition("/")[0] for key in arrays.files)
        return {name: {arm: arrays[f"{name}/{arm}"] for arm in ARMS} for name in names}


def rows(losses: Losses, subject: str, references: list[str]) -> tuple[Measurement, Measurement]:
    """Memory left and the loss's AUC of a model beside five retrained ones."""
    roles = {"original": "original", "unlearned": subject}
    roles |= {f"retrained {i}": name for i, name in enumerate(references)}
    by_role = {role: losses[name] for role, name in roles.items()}
    left = next(row for row in rows_of_memory(by_role, "samples") if row.name == "loss_left")
    areas = {role: stats.auc(-arms["forget"], -arms["holdout"]) for role, arms in by_role.items()}
    return left, AUC.measured(areas)


def padded(row: Measurement, families: int) -> list[Measurement]:
    """The row among others of as many families as an audit has, and of seven rows, on which nothing differs."""
    groups = ["utility"] * 2 + ["recovery"] * 4
    others = [row.model_copy(update={"name": f"{i}", "group": group, "prior": 0}) for i, group in enumerate(groups)]
    still = [m.model_copy(update={"unlearned": m.references[0]}) for m in others]
    return [row, *still] if families > 1 else [row]


def main(folder: str, splits: int = 25) -> None:
    """Prints a line for each world and copy."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    print("world | copy | memory left | leaks | like retrained | leaks by the loss's AUC, before")
    for kind in ("w1", "w2"):
        found: dict[str, list[tuple[float, bool, bool, bool]]] = {copy: [] for copy in COPIES}
        for split in range(splits):
            losses, rng = kept(kind, split, place), np.random.default_rng(split)
            for _ in range(3):
                names = [f"retrained {i}" for i in rng.permutation(10)]
                for copy in COPIES:
                    for subject in names[5:] if copy == "retrained" else [copy]:
                        left, area = rows(losses, subject, names[:5])
                        now = verdict.judge(padded(left, 3))[0][0].verdict
                        then = former.judge(padded(area, 3))[0][0].verdict
                        value = left.unlearned.value or 0.0
                        found[copy].append((value, now == "leaks", now == "like retrained", then == "leaks"))
        for copy, lines in found.items():
            print(kind, copy, *(f"{x:.2f}" for x in np.mean(np.array(lines, float), axis=0)), sep=" | ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
