"""Soft prompt: one step by hand, who is taught, and both controls."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.unit.attacks.running import attacked, draw_of, setting_of
from tests.worlds import World
from unrecall.attacks.soft_prompt import SoftPrompt
from unrecall.data.examples import Absent, iterate
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import mean_loss
from unrecall.models.soft_prompt import SoftPrompted

FEW = SoftPrompt(vectors=4, rates=(5e-3,), steps=4, every=2)


def test_each_step_goes_the_rate_against_the_gradient(text_world: World) -> None:
    w: Any = text_world
    (one,) = attacked(replace(FEW, steps=1, every=1, rates=(1e-3,)), w.original, w)
    soft: Any = one.model
    start = w.original.get_input_embeddings().weight.detach().mean(0).repeat(4, 1)
    moved = soft.vectors.detach() - start
    assert torch.allclose(moved.abs(), torch.full_like(moved, 1e-3), atol=1e-6)
    taught = draw_of(FEW, w).pool.taught
    before = SoftPrompted(w.original, start)
    assert mean_loss(soft, w.task, taught) < mean_loss(before, w.task, taught)


def test_reads_every_so_many_steps_at_each_rate(text_world: World) -> None:
    w = text_world
    steps = attacked(replace(FEW, rates=(1e-3, 1e-2)), w.original, w)
    assert [(step.budget, step.variant) for step in steps] == [
        (2, "rate=0.001"),
        (4, "rate=0.001"),
        (2, "rate=0.01"),
        (4, "rate=0.01"),
    ]
    assert all(step.tested is steps[0].tested for step in steps)


def test_half_of_both_arms_is_taught_and_the_rest_tested(text_world: World) -> None:
    w = text_world
    pool = draw_of(SoftPrompt(), w).pool
    both = [item for arm in ("forget", "holdout") for item in iterate(w.request[arm])]  # type: ignore[index]
    assert len(pool.taught) == len(pool.tested[0]) == len(both) // 2
    parts = [*iterate(pool.taught), *iterate(pool.tested[0])]
    assert sorted(map(str, parts)) == sorted(map(str, both))
    forget = draw_of(SoftPrompt(dose="forget", share=0.2), w).pool
    assert len(forget.taught) == 2
    assert len(forget.tested[0]) == 8


@pytest.mark.parametrize(
    ("changes", "message"), [({"rates": ()}, "at least one rate"), ({"every": 101}, "every of at most 100, the steps")]
)
def test_impossible_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SoftPrompt(**changes)


def test_what_it_cannot_attack_is_refused(text_world: World) -> None:
    w = text_world
    with pytest.raises(NotSupported, match="leave 55 places of the model's context free"):
        attacked(replace(FEW, vectors=55), w.original, w)
    with pytest.raises(NotSupported, match="at least 2 examples to split, got 1"):
        FEW.teaches(1, w.request)
    with pytest.raises(MissingReference, match="holdout"):
        draw_of(FEW, replace(w, request=replace(w.request, holdout=Absent("none"))))


def test_both_controls_hold(text_world: World) -> None:
    attack = SoftPrompt(steps=20, every=20, rates=(5e-3,), share=0.3)
    report = score_finding(attack, setting_of(text_world)).report
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control
