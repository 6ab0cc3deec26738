"""The contracts hold for a modality that no method or attack was written for: each runs as it is, or says why not."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.laws.test_attacks import ATTACKS, small
from tests.laws.test_methods import METHODS, Sealed, same, usual
from tests.worlds import CPU, World
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Defender, Models, Setting
from unrecall.harness.audit import FINDERS
from unrecall.methods.base import Method
from unrecall.training.job import Job
from unrecall.training.randomness import seeded

# Users and items are numbers, which have no gradient and no pixels; an item is no class; nothing is written. There are
# no linear layers before the head. How well the original answers what it never saw is not said.
REFUSED_METHODS = {
    *("rurk", "dpo", "flat", "spotter", "l2ul", "mu_mis", "contrastive_unlearning", "ec", "ubt"),
    *("arm", "boundary_shrink", "jit", "unsir", "certified_removal", "fisher", "ntk", "repselect"),
    *("cir", "mudman", "lotus", "altpo"),
}
# BatchNorm, layers before the head and readouts in between are what matrix factorisation has none of.
REFUSED_ATTACKS = {
    *("residual_knowledge", "uma", "attribution", "logit_lens", "quantise", "recalibration"),
    *("weight_noise", "prune"),
    *(
        "paraphrase",
        "prefix",
        "remind",
        "leak_at_k",
        "few_shot",
        "multi_turn",
        "steering",
        "patching",
        "cmia",
        "traces",
        "soft_prompt",
    ),
    *("head_refit", "indirect", "knowledge_holes", "linear_probe", "prototypical", "rea_class"),
}
FEWER: dict[str, Any] = {"cf_k": {"blocks": 1}, "eu_k": {"blocks": 1}}
"""Two blocks are fewer than these methods train by default."""


def fitted(name: str) -> Method:
    return replace(usual(name), **FEWER.get(name, {}))


def job(world: World) -> Job:
    return Job(world.request, world.task, seeded(0), CPU)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_unchanged_or_refuses(name: str, tastes_world: World) -> None:
    """The given model stays as it was, the same seed gives the same weights, and what the audit looks at stays shut."""
    w, before = tastes_world, copy.deepcopy(tastes_world.original)
    if name in REFUSED_METHODS:
        with pytest.raises(NotSupported):
            fitted(name).unlearn(w.original, job(w))
        return
    sealed = copy.copy(w.request)
    for split in ("holdout", "test"):
        object.__setattr__(sealed, split, Sealed(len(getattr(sealed, split))))
    first, again = (fitted(name).unlearn(w.original, job(w).on(request)) for request in (w.request, sealed))
    assert same(first, again)
    assert same(w.original, before)
    assert type(first) is type(w.original)
    assert all(bool(torch.isfinite(value).all()) for value in first.state_dict().values())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_runs_unchanged_or_is_a_row_with_a_reason(name: str, tastes_world: World) -> None:
    w = tastes_world
    models = Models(w.original, half(w.original), w.retrained)
    defender = Defender("copies", lambda request, seed: half(w.original))
    setting = Setting(models, w.request, w.task, session=CPU, defender=defender)
    attack = small(name)
    report = FINDERS[attack.kind](attack, setting).report
    assert bool(report.note and not report.curves) == (name in REFUSED_ATTACKS), report.note


def half(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(0.5)
    return copied
