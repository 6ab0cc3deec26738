"""RURK's three ways of making copies, and what they leave alone."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
from torch import nn

from tests.conftest import World
from unrecall.engine import frozen_copy, seeded
from unrecall.methods.rurk import RURK


@pytest.mark.parametrize("attack", ["gaussian", "fgsm", "pgd"])
def test_statistics_move_thrice_a_step_however_copies_are_made(
    samples_world: World, attack: Literal["gaussian", "fgsm", "pgd"]
) -> None:
    w = samples_world
    student = copy.deepcopy(w.original)
    (phase,) = RURK(attack=attack).phases(student, frozen_copy(w.original), w.request, w.task, seeded(0))
    norm = next(m for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked is not None
    before = int(norm.num_batches_tracked)
    student.train()
    sets = {"retain": w.request.retain, "forget": w.request.forget}
    phase.loss(student, {name: w.task.collate([data[i] for i in range(16)]) for name, data in sets.items()})
    assert int(norm.num_batches_tracked) - before == 3, "retain, forget, copies; crafting leaves them alone"
    assert student.training
