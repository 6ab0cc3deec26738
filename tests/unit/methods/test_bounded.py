"""A bound on retain: when it ends another method, and when it doesn't."""

from dataclasses import replace

import pytest
from torch import nn

from tests.laws.test_methods import same
from tests.worlds import CPU, World
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import GradientMethod
from unrecall.methods.bounded import SPENT, Bounded
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.lora import LoRA
from unrecall.training.disruption import disruption
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

BASE = GradDiff(fit=Fit(lr=0.02, batch_size=10, epochs=20, check_every=1, batchnorm="frozen"))


def unlearned(method: GradientMethod, world: World, session: Session = CPU) -> nn.Module:
    return method.unlearn(world.original, Job(world.request, world.task, seeded(0), session))


def test_it_ends_at_the_first_look_above_the_bound(samples_world: World) -> None:
    """And the weights are those of the base after as many steps."""
    w, session = samples_world, Session(device="cpu")
    ended = unlearned(Bounded(base=BASE, kl=0.02), w, session)
    effort, measured = session.efforts[-1], disruption(w.original, Job(w.request, w.task, seeded(0), CPU))
    looks = effort.notes[SPENT]
    assert len(looks) == effort.steps < 40
    assert looks[-1] > 0.02
    assert all(value <= 0.02 for value in looks[:-1])
    assert measured(ended) == pytest.approx(looks[-1], rel=1e-4)
    assert same(ended, unlearned(replace(BASE, fit=replace(BASE.fit, steps=effort.steps)), w))


def test_a_bound_that_is_never_reached_changes_nothing(samples_world: World) -> None:
    short = replace(BASE, fit=replace(BASE.fit, epochs=2))
    assert same(unlearned(Bounded(base=short, kl=1e6), samples_world), unlearned(short, samples_world))


def test_around_a_low_rank_change(text_world: World) -> None:
    w, session = text_world, Session(device="cpu")
    fit = Fit(optimizer="adamw", lr=1e-2, weight_decay=0.0, batch_size=10, epochs=20)
    LoRA(r=2, base=Bounded(base=GradDiff(fit=fit), kl=0.05)).unlearn(
        w.original, Job(w.request, w.task, seeded(0), session)
    )
    assert session.efforts[-1].steps < 20
    assert session.efforts[-1].notes[SPENT][-1] > 0.05


def test_refusals(samples_world: World) -> None:
    with pytest.raises(NotSupported, match="Bounded: expected a base that trains on forget, got Finetune"):
        unlearned(Bounded(base=Finetune()), samples_world)
    with pytest.raises(BadInput, match="expected kl to be greater than 0"):
        Bounded(kl=0.0)
