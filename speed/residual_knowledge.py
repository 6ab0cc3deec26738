"""Residual knowledge, 11 radii x 100 draws, against torchattacks draw by draw; aimed at: at least 3 times faster."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from speed.clock import Race, race
from unrecall.attacks.residual_knowledge import ResidualKnowledge, ratio_of_sums
from unrecall.data.examples import Absent, Selection
from unrecall.evidence.pool import draw_pool
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.digits import Digits
from unrecall.training.session import Session


def run() -> list[Race]:
    session = Session(device="cpu")
    digits = Digits().make()
    models = digits.train_original(0, session).model, digits.train_retrained(0, session).model
    exact = [_race(digits, *models, ResidualKnowledge(), count) for count in (10, 40, 250)]
    return [*exact, _race(digits, *models, ResidualKnowledge(precision=0.005), 250)]


def _race(digits: Scenario, subject: nn.Module, reference: nn.Module, attack: ResidualKnowledge, count: int) -> Race:
    import torchattacks

    forget, absent = Selection(digits.request.forget, range(count)), Absent("the rival has none")
    request = replace(digits.request, forget=forget, holdout=absent)
    batch = digits.task.collate([request.forget[i] for i in range(count)])
    inputs, targets = batch["inputs"], batch["targets"]
    curves: dict[str, np.ndarray] = {}

    def ours() -> None:
        setting = Setting(Models(subject, subject, (reference,)), request, digits.task, session=Session(device="cpu"))
        pool, places = draw_pool(request, setting.seed)
        roles = {"unlearned": subject, "retrained 0": reference}
        scores = {role: attack.scores(Subject(role, model), pool, setting) for role, model in roles.items()}
        curves["ours"] = ratio_of_sums(attack.recognition("unlearned", scores, places["forget"]))

    def peer() -> None:
        ratios = []
        for radius in attack.radii:
            noise = torchattacks.GN(subject, std=radius)
            hits, base = torch.zeros(count), torch.zeros(count)
            with torch.no_grad():
                for _ in range(attack.draws):
                    moved = noise(inputs, targets)
                    hits += subject(moved).argmax(1).eq(targets)
                    base += reference(moved).argmax(1).eq(targets)
            ratios.append(float(hits.sum() / base.sum()))
        curves["peer"] = np.array(ratios)

    times = race(ours, peer, rounds=3)
    gap = float(np.abs(curves["ours"] - curves["peer"]).max())
    draws = attack.of_examples(count).draws
    note = f"{draws} draws against {attack.draws}, ratios of sums differ by at most {gap:.4f}"
    name = f"residual knowledge, {count} forget digits" + (f", to {attack.precision}" if attack.precision else "")
    return Race(name, *times, "torchattacks", "ratio >= 2" if attack.precision else "ratio >= 3", note)
