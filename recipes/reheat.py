"""Reheat on worlds that it was not made on, beside hot fine-tuning, short retraining and retraining for the same time.

glyphs-share, glyphs-class: 40 generated letters of 20 pictures each, a small CNN; a tenth or one letter must go.
vit: a Vision Transformer on a quarter of the digits.
resnet20: the real ResNet-20, fine-tuned on 2,500 pictures of CIFAR-10, of which 500 must go (`verdict_real.py`).
customers: the real stories260K, fine-tuned on facts about 60 customers, of whom one must go (`verdict_real.py`).
clip: a small CLIP on 1,609 emoji and their names, of which food and drink must go (the scenario `emoji`).
cost-share, cost-class: the digits, a quarter or class 3, on which Reheat is made cheaper: fewer epochs, larger batches,
and noise in place of what these lack; by the suite `quick`.

python -m recipes.reheat WORLD OUT_FOLDER [SEEDS] [DATA_FOLDER]
python -m recipes.reheat table OUT_FOLDER

Nothing is tuned. One rule, fixed before any new world was tried, gives the recipe of each: the original's own with
twice its rate, 3/8 of its batch and 16 % of its epochs (on the digits that is what the method was found at); where the
original was fine-tuned, its weights are moved towards the pretrained ones. Writes OUT_FOLDER/WORLD.jsonl, a line for
each method and seed with both verdicts, and goes on where an earlier call stopped.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recipes import verdict_real
from unrecall.data.examples import Selection
from unrecall.disk import weights
from unrecall.experiment.run import experiment
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.methods.base import Method
from unrecall.methods.finetune import Finetune
from unrecall.methods.reheat import Reheat
from unrecall.methods.retrain import Retrain
from unrecall.record.schema import Record
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.choice import choose, shuffled
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.emoji import Emoji
from unrecall.scenarios.networks import small_cnn
from unrecall.tasks import Classification
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

LETTERS, EACH, UNSEEN, SIDE = 40, 20, 40, 16
SHARE, TIME_SHARE = 0.16, 0.6
"""Of retraining's epochs, what Reheat takes; and of its time, as small batches are slow (measured on the digits)."""


def glyphs(forget: str) -> Scenario:
    """Letters of three strokes each; every picture moves their ends."""
    random = seeded(7)
    ends = torch.rand(LETTERS, 1, 3, 2, 2, generator=random)
    moved = ends + 0.06 * torch.randn(LETTERS, EACH + UNSEEN, 3, 2, 2, generator=random)
    pictures = drawn(moved.flatten(0, 1)) + 0.15 * torch.randn(LETTERS * (EACH + UNSEEN), SIDE, SIDE, generator=random)
    data = [(picture[None].clamp(0, 1), i // (EACH + UNSEEN)) for i, picture in enumerate(pictures)]
    train = Selection(data, [i for i in range(len(data)) if i % (EACH + UNSEEN) < EACH])
    unseen = shuffled([i for i in range(len(data)) if i % (EACH + UNSEEN) >= EACH], 0)
    labels = [i // EACH for i in range(len(train))]
    chosen = choose(forget, labels, 0, LETTERS)
    alike = [i for i in unseen if data[i][1] in chosen.classes][: 400 if len(chosen.classes) > 1 else UNSEEN]
    test = Selection(data, [i for i in unseen if i not in set(alike)])
    return Scenario(
        name=f"glyphs-{forget.partition(':')[0]}",
        summary=f"{LETTERS} generated letters of {EACH} pictures, a small CNN; forget {forget}",
        task=Classification(classes=tuple(map(str, range(LETTERS)))),
        request=chosen.request(train, Selection(data, alike), test, holdout=250),
        build=lambda _, __: small_cnn(LETTERS),
        recipe=Fit(lr=0.05, epochs=40, batch_size=64, schedule="cosine", weight_decay=5e-4),
        references=6,
    )


def drawn(ends: Tensor) -> Tensor:
    """Pictures [n, SIDE, SIDE] in [0, 1] of strokes [n, strokes, 2 ends, 2 coordinates in 0..1]."""
    ticks = (torch.arange(SIDE) + 0.5) / SIDE
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)[None, None]
    first, way = ends[:, :, 0, None, None], (ends[:, :, 1] - ends[:, :, 0])[:, :, None, None]
    along = ((grid - first) * way).sum(-1) / way.square().sum(-1).clamp_min(1e-6)
    distance = (grid - first - along.clamp(0, 1)[..., None] * way).norm(dim=-1)
    return torch.exp(-((distance / 0.06) ** 2)).amax(1)


class SmallViT(nn.Module):
    """A Vision Transformer of four layers for 8 x 8 pictures, 16 patches each."""

    def __init__(self) -> None:
        from transformers import ViTConfig, ViTForImageClassification

        super().__init__()
        sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_labels": 10}
        config = ViTConfig(image_size=8, patch_size=2, num_channels=1, num_attention_heads=4, **sizes)
        self.vit = ViTForImageClassification(config)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.vit(pictures * 2 - 1).logits
        return logits


def vit(_: Path) -> Scenario:
    """The digits' own split."""
    recipe = Fit(optimizer="adamw", lr=1e-3, epochs=40, batch_size=64, schedule="cosine", weight_decay=0.05)
    return replace(Digits().make(), name="vit-digits", build=lambda _, __: SmallViT(), recipe=recipe)


def clip(data: Path) -> Scenario:
    """The scenario `emoji` on DATA_FOLDER/noto_emoji_captions, with OpenAI's merges."""
    merges = data / "bpe" / "bpe_simple_vocab_16e6.txt.gz"
    return replace(Emoji(data=str(data / "noto_emoji_captions"), merges=str(merges)).make(), name="clip-emoji")


WORLDS: dict[str, Callable[[Path], Scenario]] = {
    "glyphs-share": lambda _: glyphs("share:0.1"),
    "glyphs-class": lambda _: glyphs("class:3"),
    "vit": vit,
    "clip": clip,
    "resnet20": verdict_real.resnet20,
    "customers": verdict_real.customers,
    "cost-share": lambda _: replace(Digits().make(), name="cost-share"),
    "cost-class": lambda _: replace(Digits(forget="class:3").make(), name="cost-class"),
}
FINE_TUNED, COSTS = ("resnet20", "customers"), ("cost-share", "cost-class")
SUITES = dict.fromkeys(COSTS, "quick") | {
    "resnet20": (Path(__file__).parent / "suite-pictures.txt").read_text(encoding="utf-8")
}
"""The attacks on each world, where they aren't the suite `standard`; on the ResNet-20 those of `tables.sh`."""


def methods(scenario: Scenario, towards: str) -> Iterator[tuple[str, Method]]:
    """Reheat, its two ends, fine-tuning as the original was trained, and retraining for the same time."""
    recipe = scenario.recipe
    assert recipe is not None
    epochs = max(1, math.ceil(SHARE * recipe.epochs))
    hot = replace(
        recipe, lr=2 * recipe.lr, batch_size=round(3 / 8 * recipe.batch_size), epochs=epochs, schedule="cosine"
    )
    yield "reheat", Reheat(fit=hot, towards=towards)
    yield "hot fine-tuning (keep 1)", Reheat(keep=1.0, fit=hot, towards=towards)
    yield "short retraining (keep 0)", Reheat(keep=0.0, fit=hot, towards=towards)
    yield "fine-tuning", Finetune(fit=replace(recipe, epochs=epochs))
    longer = replace(recipe, epochs=max(1, round(TIME_SHARE * recipe.epochs)))
    yield "retraining for 60 % of its epochs", Reheat(keep=0.0, fit=longer) if towards else Retrain(fit=longer)


def cheaper() -> Iterator[tuple[str, Method]]:
    """Reheat at its defaults, and at less: what each epoch costs in time hangs on how many batches it has."""
    usual = Reheat().fit
    for epochs, batch_size, noise in (
        (4, 24, 0.0),
        (2, 24, 0.0),
        (1, 24, 0.0),
        (4, 96, 0.0),
        (4, 96, 1.0),
        (4, 96, 3.0),
        (2, 96, 1.0),
    ):
        recipe = replace(usual, epochs=epochs, batch_size=batch_size)
        yield f"{epochs} epochs of batches of {batch_size}, noise {noise:g}", Reheat(noise=noise, fit=recipe)


def line(name: str, seed: int, beside: Record, alone: Record) -> dict[str, object]:
    """What is kept of both audits of a model."""
    rows = [m for m in beside.measurements if m.judged]
    costs = {m.name: m.unlearned.value for m in beside.measurements if m.name in ("cost_time", "cost_passes")}
    tested = alone.never_trained
    return {
        "method": name,
        "seed": seed,
        "label": beside.verdict.label,
        "rows": {m.name: [m.verdict, m.unlearned.value, [e.value for e in m.references]] for m in rows},
        "alone": alone.verdict.label,
        "p": None if tested is None else tested.leak,
        "left": None if tested is None else {attack.name: attack.rho for attack in tested.attacks},
        "seconds": beside.costs["unlearned"].seconds,
        **costs,
    }


def table(out: Path) -> Iterator[str]:
    """A Markdown row for each world and method: the labels over its seeds, rows outside the bounds, and costs."""
    yield "| world | method | seeds | labels | rows outside | passes | time | seconds |\n" + "|---" * 8 + "|"
    for path in sorted(out.glob("*.jsonl")):
        rows = [json.loads(text) for text in path.read_text().splitlines()]
        for name in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == name]
            labels = Counter(row["label"] for row in own)
            outside = Counter(m for row in own for m, of in row["rows"].items() if of[0] in ("leaks", "over-forgets"))
            times = [row["cost_time"] for row in own if row.get("cost_time")]
            seconds = [row["seconds"] for row in own if row.get("seconds")]
            cells = [
                path.stem,
                name,
                str(len(own)),
                ", ".join(f"{label} {n}" for label, n in labels.items()),
                ", ".join(f"{m} {n}" for m, n in outside.items()),
                f"{own[0]['cost_passes']:.2f}",
                f"{times[0]:.2f}" if times else "",
                f"{np.mean(seconds):.2f}" if seconds else "",
            ]
            yield f"| {' | '.join(cells)} |"


def main(world: str, out: str, seeds: str = "3", data: str = "") -> None:
    """Every method and seed of one world; or the table of all that was run."""
    if world == "table":
        print(*table(Path(out)), sep="\n")
        return
    torch.set_num_threads(1)
    scenario = WORLDS[world](Path(data))
    session = Session(folder=Path(out) / world, device="cpu")
    path, towards = Path(out) / f"{world}.jsonl", ""
    path.parent.mkdir(parents=True, exist_ok=True)
    if world in FINE_TUNED:
        towards = str(Path(out) / f"{world}.safetensors")
        weights.save(scenario.untrained_model(0, session), Path(towards))
    written = path.read_text().splitlines() if path.exists() else []
    done = {(row["method"], row["seed"]) for row in map(json.loads, written)}
    for seed in range(int(seeds)):
        original = scenario.train_original(seed, session).model
        for name, method in cheaper() if world in COSTS else methods(scenario, towards):
            if (name, seed) in done:
                continue
            model, beside = experiment(scenario, method, suite(*SUITES.get(world, "standard").split()), seed, session)
            alone = audit(
                original=original,
                unlearned=model,
                request=scenario.request,
                task=scenario.task,
                attacks=suite("loss"),
                seed=seed,
                session=session.quiet(),
            )
            with path.open("a") as file:
                file.write(json.dumps(line(name, seed, beside, alone)) + "\n")
            print(f"{name}, seed {seed} | {beside.verdict.line} | {alone.verdict.line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
