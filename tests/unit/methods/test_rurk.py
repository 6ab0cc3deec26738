"""RURK's three ways of making copies, and what they leave alone."""

import copy
from typing import Literal

import pytest
import torch
from torch import nn

from tests.worlds import World, caption_tokenizer, pairs, small_clip
from unrecall.data.request import Request
from unrecall.methods.rurk import RURK
from unrecall.models.perturb import other_classes
from unrecall.nn.functional import nll
from unrecall.tasks import Contrastive
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy


@pytest.mark.parametrize("attack", ["gaussian", "fgsm", "pgd"])
def test_statistics_move_thrice_a_step_however_copies_are_made(
    samples_world: World, attack: Literal["gaussian", "fgsm", "pgd"]
) -> None:
    w = samples_world
    student = copy.deepcopy(w.original)
    (phase,) = RURK(attack=attack).phases(student, frozen_copy(w.original), Job(w.request, w.task, seeded(0)))
    norm = next(m for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked is not None
    before = int(norm.num_batches_tracked)
    student.train()
    sets = {"retain": w.request.retain, "forget": w.request.forget}
    phase.loss(student, {name: w.task.collate([data[i] for i in range(16)]) for name, data in sets.items()})
    assert int(norm.num_batches_tracked) - before == 3, "retain, forget, copies; crafting leaves them alone"
    assert student.training


@pytest.mark.parametrize("v", [1, 3])
@pytest.mark.parametrize("attack", ["gaussian", "fgsm", "pgd"])
def test_copies_of_a_pair_are_not_each_others_mates(attack: Literal["gaussian", "fgsm", "pgd"], v: int) -> None:
    task = Contrastive(caption_tokenizer())
    model = frozen_copy(small_clip(len(task.tokenizer), initializer_factor=4.0))
    request = Request(pairs(0, 8), pairs(8, 16), pairs(16, 18), pairs(18, 20))
    generator, same = seeded(5), seeded(5)
    method = RURK(tau=0.0, lambda_f=0.0, lambda_a=1.0, v=v, attack=attack)
    (phase,) = method.phases(model, model, Job(request, task, generator))
    batches = {"retain": task.collate(pairs(8, 16)), "forget": task.collate(pairs(0, 8))}
    retain, forget = (task.rows(model, batches[name]) for name in ("retain", "forget"))
    expected = []
    for _ in range(v):
        if attack == "gaussian":
            expected.append(-forget.losses().mean())
            continue
        wished = other_classes(forget.targets, 8, same)
        expected.append(nll(forget.logits, wished).mean())
        if attack == "pgd":  # its random start, of radius 0
            torch.rand(batches["forget"]["images"].shape, generator=same)
    by_hand = retain.losses().mean() + torch.stack(expected).mean()
    assert float(phase.loss(model, batches)) == pytest.approx(float(by_hand), abs=1e-5)
