"""Residual knowledge, 11 radii x 100 draws, against torchattacks draw by draw; aimed at: at least 3 times faster."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.clock import Race, race
from unrecall.attacks.residual_knowledge import ResidualKnowledge, ratio_of_sums
from unrecall.engine import seeded
from unrecall.scenarios.digits import Digits
from unrecall.session import Session


def run() -> list[Race]:
    import torchattacks

    session = Session(device="cpu")
    digits = Digits().make()
    subject, reference = digits.train_original(0, session).model, digits.train_retrained(0, session).model
    attack = ResidualKnowledge()
    batch = digits.task.collate([digits.request.forget[i] for i in range(len(digits.request.forget))])
    inputs, targets = batch["inputs"], batch["targets"]
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        one = {"subject": subject}
        result = attack.recognise(one, {"retrained 0": reference}, digits.request, digits.task, seeded(0), session)
        found["ours"] = ratio_of_sums(result["subject"])

    def peer() -> None:
        curve = []
        for radius in attack.radii:
            noise = torchattacks.GN(subject, std=radius)
            hits, base = torch.zeros(len(targets)), torch.zeros(len(targets))
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
    return [Race(f"residual knowledge, {len(targets)} forget digits", mine, theirs, "torchattacks", "ratio >= 3", note)]
