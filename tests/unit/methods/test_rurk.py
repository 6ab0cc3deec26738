"""RURK's three ways of making copies, and what they leave alone."""

import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worlds import CPU, World, caption_tokenizer, pairs, small_clip
from unrecall.data.batches import repeat
from unrecall.data.request import Request
from unrecall.methods.rurk import RURK
from unrecall.models.perturb import gaussian, other_classes
from unrecall.nn.functional import nll
from unrecall.tasks import Contrastive
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy


@pytest.mark.parametrize(("passes", "moves"), [("joint", 1), ("separate", 3)])
@pytest.mark.parametrize("attack", ["gaussian", "fgsm", "pgd"])
def test_statistics_move_once_a_pass_however_copies_are_made(
    samples_world: World, attack: Literal["gaussian", "fgsm", "pgd"], passes: Literal["joint", "separate"], moves: int
) -> None:
    w = samples_world
    student = copy.deepcopy(w.original)
    method = RURK(attack=attack, passes=passes)
    (phase,) = method.phases(student, frozen_copy(w.original), Job(w.request, w.task, seeded(0)))
    norm = next(m for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked is not None
    before = int(norm.num_batches_tracked)
    student.train()
    sets = {"retain": w.request.retain, "forget": w.request.forget}
    phase.loss(student, {name: w.task.collate([data[i] for i in range(16)]) for name, data in sets.items()})
    assert int(norm.num_batches_tracked) - before == moves, "retain, forget, copies; crafting leaves them alone"
    assert student.training


@pytest.mark.parametrize("v", [1, 3])
@pytest.mark.parametrize("passes", ["joint", "separate"])
def test_loss_by_hand(samples_world: World, passes: Literal["joint", "separate"], v: int) -> None:
    """One batch is normalised by its own statistics; three by theirs. In eval mode both are the same."""
    w = samples_world
    method = RURK(tau=0.1, lambda_f=0.3, lambda_a=0.5, v=v, passes=passes)
    sets = {name: w.task.collate([w.request[name][i] for i in range(8)]) for name in ("retain", "forget")}
    copies = gaussian(w.task, repeat(sets["forget"], v), 0.1, seeded(4))
    parts = [sets["retain"]["inputs"], sets["forget"]["inputs"], copies["inputs"]]
    for training in (True, False):
        student = copy.deepcopy(w.original).train(training)
        (phase,) = method.phases(student, w.original, Job(w.request, w.task, seeded(4)))
        found = phase.loss(student, sets).item()
        again = copy.deepcopy(w.original).train(training)
        joint = again(torch.cat(parts)).split([len(part) for part in parts])
        logits = joint if passes == "joint" else [again(part) for part in parts]
        targets = (sets["retain"]["targets"], sets["forget"]["targets"], copies["targets"])
        retain, forget, moved = (F.cross_entropy(z, y) for z, y in zip(logits, targets, strict=True))
        assert found == pytest.approx((retain - 0.3 * forget - 0.5 * moved).item(), rel=1e-4)


def test_without_lambda_and_statistics_nothing_but_retain_teaches(samples_world: World) -> None:
    """At lambda 0, separate passes still move statistics by forget; with frozen ones the layout makes no difference."""
    w = samples_world
    frozen = replace(RURK().fit, batchnorm="frozen")
    one, three = (
        RURK(passes=passes, fit=frozen).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))  # type: ignore
        for passes in ("joint", "separate")
    )
    for a, b in zip(one.state_dict().values(), three.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


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
