"""Residual knowledge, 11 radii x 100 draws, against torchattacks draw by draw; aimed at: at least 3 times faster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from speed.clock import Race, race
from unrecall.attacks.residual_knowledge import ResidualKnowledge, ratio_of_sums
from unrecall.data.examples import Part
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.digits import Digits
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


def run() -> list[Race]:
    session = Session(device="cpu")
    digits = Digits().make()
    models = digits.train_original(0, session).model, digits.train_retrained(0, session).model
    return [_race(digits, *models, count) for count in (10, 40, 250)]


def _race(digits: Scenario, subject: nn.Module, reference: nn.Module, count: int) -> Race:
    import torchattacks

    session, attack = Session(device="cpu"), ResidualKnowledge()
    request = replace(digits.request, forget=Part(digits.request.forget, range(count)))
    batch = digits.task.collate([request.forget[i] for i in range(count)])
    inputs, targets = batch["inputs"], batch["targets"]
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        one = {"subject": subject}
        result = attack.recognise(one, {"retrained 0": reference}, request, digits.task, seeded(0), session)
        found["ours"] = ratio_of_sums(result["subject"])

    def peer() -> None:
        curve = []
        for radius in attack.radii:
            noise = torchattacks.GN(subject, std=radius)
            hits, base = torch.zeros(count), torch.zeros(count)
            with torch.no_grad():
                for _ in range(attack.draws):
                    moved = noise(inputs, targets)
                    hits += subject(moved).argmax(1).eq(targets)
                    base += reference(moved).argmax(1).eq(targets)
            curve.append(float(hits.sum() / base.sum()))
        found["peer"] = np.array(curve)

    mine, theirs = race(ours, peer, rounds=3)
    gap = float(np.abs(found["ours"] - found["peer"]).max())
    note = f"ratios of sums differ by at most {gap:.4f}"
    return Race(f"residual knowledge, {count} forget digits", mine, theirs, "torchattacks", "ratio >= 3", note)
