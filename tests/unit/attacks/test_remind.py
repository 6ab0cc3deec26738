"""REMIND's interval: scores that were cross-fitted on the labels they are held against are no independent sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from unrecall.harness.findings import Models

from tests.worlds import World
from unrecall.attacks.remind import CLASSES, REMIND, out_of_fold
from unrecall.data.request import Request, Split
from unrecall.data.signals import Evidence
from unrecall.harness.scored import evidence, membership
from unrecall.record import stats
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded


@dataclass(frozen=True)
class Noise(REMIND):
    """Sees 15 numbers that mean nothing."""

    def look(
        self, model: nn.Module, request: Request, task: Task, generator: torch.Generator
    ) -> Mapping[Split, np.ndarray]:
        return {split: torch.randn(30, 15, generator=generator).numpy() for split in CLASSES}


def test_noise_is_rarely_called_a_leak() -> None:
    """Nominal: 2.5 % a side. Taking scores for independent, as DeLong does, fails about three times as often."""
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 30)
    outside = {1.0: np.zeros(2), REMIND.inflation: np.zeros(2)}
    for _ in range(150):
        chance = out_of_fold(rng.normal(size=(90, 15)), labels, LogisticRegression(max_iter=300))
        score = chance[:, 2] / (chance[:, 1] + chance[:, 2])
        for inflation in outside:
            found = stats.auc(score[labels == 2], score[labels == 1], inflation=inflation)
            assert found.low is not None and found.high is not None
            outside[inflation] += (found.low > 0.5, found.high < 0.5)
    assert outside[1.0].sum() / 150 > 0.1
    assert outside[REMIND.inflation].sum() / 150 < 0.08
    assert outside[REMIND.inflation][0] / 150 < 0.04


def test_an_audit_prints_the_wider_interval(samples_world: World) -> None:
    w = samples_world
    models = Models(w.original, w.original)
    seen = evidence(models, w.request, w.task)
    area = membership(Noise(), models, seen, w.task, 3).measurements[0].unlearned
    one = Evidence(w.request, {}, (), {}, Noise().look(w.original, w.request, w.task, seeded(3)))
    plain = stats.auc(Noise().score(one, "forget"), Noise().score(one, "holdout"))
    assert area.value == plain.value is not None
    assert area.low is not None and plain.low is not None and plain.value is not None
    assert plain.value - area.low > 1.4 * (plain.value - plain.low)
