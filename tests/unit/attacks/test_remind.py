"""REMIND's interval: scores that were cross-fitted on the labels they are held against are no independent sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from tests.unit.attacks.running import job_of, setting_of
from tests.worlds import World
from unrecall.attacks.remind import CLASSES, REMIND, out_of_fold
from unrecall.data.request import Split
from unrecall.evidence.evidence import Evidence
from unrecall.harness.scoring import score_finding
from unrecall.record import stats
from unrecall.training.job import Job


@dataclass(frozen=True)
class Noise(REMIND):
    """Sees 15 numbers that mean nothing."""

    needs: ClassVar[tuple[type, ...]] = ()

    def extra_signals(self, model: nn.Module, job: Job) -> Mapping[Split, np.ndarray]:
        return {split: torch.randn(SIZES[split], 15, generator=job.generator).numpy() for split in CLASSES}


SIZES = {"retain": 20, "holdout": 40, "forget": 20}
"""Of the world's sets, retain cut to the smaller of the others."""


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
    w, attack = samples_world, Noise()
    area = score_finding(attack, setting_of(w, seed=3)).measurements[0].unlearned
    extra = Evidence(w.request, {}, (), {}, attack.extra_signals(w.original, job_of(w, seed=3)))
    plain = stats.auc(attack.score(extra, "forget"), attack.score(extra, "holdout"))
    assert area.value == plain.value is not None
    assert area.low is not None and plain.low is not None and plain.value is not None
    assert plain.value - area.low > 1.4 * (plain.value - plain.low)
