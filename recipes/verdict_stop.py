"""When relearning from both arms should stop: z after so many steps, and how much of the pool's excess loss is gone.

python -m recipes.verdict_stop FOLDER [WORLD] [SPLITS]

FOLDER holds the models that `verdict_worlds.py build --out FOLDER` trained; what is missing is trained. Prints a table
in Markdown: the mean over splits of each copy's z, at the default rate and at a quarter of it; in brackets the part of
what the taught records' mean loss exceeds retain's by that is gone. Four minutes of a core for eight splits.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recipes.verdict_worlds import CPU, WORLDS, Trial
from unrecall.attacks import Relearn
from unrecall.data.examples import Selection
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.fixed_suite import RATE, fixed_suite
from unrecall.harness.mixed_arms import mix_arms
from unrecall.harness.never_trained import RETAIN_SAMPLE, confidence, without_arms
from unrecall.models.observe import mean_loss, observe
from unrecall.record.exchange import exchange
from unrecall.record.never_trained import seed_of
from unrecall.record.pool_scores import PoolScores
from unrecall.tasks.difficulty import difficulty
from unrecall.training.randomness import seeded

STEPS = (1, 2, 3, 5, 8, 12, 20)
COPIES = ("ascent", "head", "left 0.5", "original", "retrained 1")


def curves(trial: Trial, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """z, and the part of the excess that is gone, after each number of steps."""
    request, task, model = trial.request(), trial.task, trial.copy()
    seed = seed_of(request.fingerprint, 0)
    setting = Setting(Models(trial.original(), model), request, task, session=CPU).with_seed(seed)
    mixed, alone = mix_arms(request, seed), without_arms(setting, "unlearned")
    attack = fixed_suite(task, rate=rate)[-1].attack
    assert isinstance(attack, Relearn)
    plain = mean_loss(model, task, Selection(request.retain, range(RETAIN_SAMPLE)))
    scores, gone = np.zeros((len(STEPS), len(mixed.examples))), np.zeros(len(STEPS))
    for half in (0, 1):
        lesson, tested = mixed.of_half(half), mixed.of_half(1 - half)
        excess = mean_loss(model, task, lesson) - plain
        pool = Pool(lesson, (tested,), seeded(seed).get_state())
        for i, taught in enumerate(replace(attack, steps=STEPS, until=0.0).recover(model, pool, alone)):
            losses = observe(taught.model, task, tested).loss
            scores[i, mixed.half == 1 - half] = confidence(losses, task)
            gone[i] += (excess - mean_loss(taught.model, task, lesson) + plain) / excess / 2
    hard = difficulty(task, request.retain, mixed.examples, seed)
    rows = (mixed.forget, mixed.half, mixed.stratum, mixed.group)
    pool_scores = PoolScores(tuple(map(str, STEPS)), scores, scores, *rows, hard.values, hard.groups)
    return exchange(pool_scores.tested(scores), pool_scores.labels, seed, 99).z, gone


def main(folder: str, world: str = "w2", splits: str = "8") -> None:
    torch.set_num_threads(1)
    print("| copy | rate |", " | ".join(map(str, STEPS)), "|")
    print("|---" * (2 + len(STEPS)) + "|")
    for copy in COPIES:
        trials = [
            trial
            for split in range(int(splits))
            for trial in WORLDS[world].trials(split, Path(folder))
            if trial.name["copy"] == copy
        ]
        for rate in (RATE, RATE / 4):
            z, gone = np.mean([curves(trial, rate) for trial in trials], axis=0)
            cells = [f"{a:.1f} ({b:.2f})" for a, b in zip(z, gone, strict=True)]
            print(f"| {copy} | {rate:g} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
