"""LoTUS: its temperature and its draws by hand, the loss over a mixed batch, when it ends, and what it must be told."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.methods.test_blur import unlearned
from tests.unit.methods.test_mudman import check_resumed
from tests.worlds import CPU, World
from unrecall.data.examples import Selection
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.lotus import LoTUS, drawn, temperature
from unrecall.models.observe import accuracy, batches
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


def test_the_temperature_by_hand_and_within_bounds() -> None:
    assert temperature(8.0, 0.25) == pytest.approx(math.e**2)
    assert temperature(8.0, 0.0) == 1
    assert temperature(2.0, -0.5) == pytest.approx(math.e**-1)
    assert torch.tensor(temperature(1e6, 1.0)).isfinite()


def test_draws_by_hand() -> None:
    """The same uniform numbers give G = -log(-log u): softened for forget, the largest for retain."""
    logits = torch.tensor([[0.5, 1.0, -1.0], [0.0, 2.0, 1.0]])
    uniform = torch.rand(2, 3, generator=seeded(3)).double()
    noisy = logits.double() - torch.log(-torch.log(uniform))
    target = drawn(logits, torch.tensor([True, False]), 2.0, seeded(3))
    assert target[0].tolist() == pytest.approx((noisy[0] / 2).softmax(0).tolist(), abs=1e-5)
    assert target[1].tolist() == [float(k == noisy[1].argmax()) for k in range(3)]


def test_hard_draws_are_the_originals_softmax() -> None:
    """Of 4,000 draws, within five standard errors; at a high temperature a soft draw is flat."""
    p = torch.tensor([0.6, 0.3, 0.1])
    logits = p.log().expand(4000, 3)
    hard = drawn(logits, torch.zeros(4000, dtype=torch.bool), 1.0, seeded(0))
    assert torch.allclose(hard.mean(0), p, atol=0.04)
    soft = drawn(logits, torch.ones(4000, dtype=torch.bool), 1e6, seeded(0))
    assert torch.allclose(soft, torch.full((4000, 3), 1 / 3), atol=1e-3)


def test_the_loss_is_cross_entropy_to_the_draws_of_the_original(samples_world: World) -> None:
    """Forget comes first in the mixture; before the first epoch began tau is 1."""
    w, student = samples_world, copy.deepcopy(samples_world.retrained[0]).eval()
    generator = seeded(5)
    (phase,) = LoTUS(unseen=0.5, share=0.25).phases(student, w.original, Job(w.request, w.task, generator, CPU))
    mixed = phase.streams["mixed"]
    assert len(mixed) == len(w.request.forget) + round(0.25 * len(w.request.retain))
    batch = next(iter(batches(Selection(mixed, [0, 1, 30, 31]), w.task)))
    batch["index"] = torch.tensor([0, 1, 30, 31])
    again = torch.Generator().set_state(generator.get_state())
    with torch.no_grad():
        logits, before = w.task.rows(student, batch).logits, w.task.rows(w.original.eval(), batch).logits
        target = drawn(before, torch.tensor([True, True, False, False]), 1.0, again)
        expected = -(target * logits.log_softmax(1)).sum(1).mean().item()
        assert phase.loss(student, {"mixed": batch}).item() == pytest.approx(expected, rel=1e-5)


def test_it_ends_when_forget_is_answered_no_better_than_the_unseen(class_world: World) -> None:
    """After an epoch, though `until` is checked at each step; accuracy is never below 0: that takes all epochs."""
    fit = Fit(lr=0.05, batch_size=16, epochs=6, weight_decay=0.0, check_every=1)
    soon, never = Session(device="cpu"), Session(device="cpu")
    for unseen, session in ((1.0, soon), (None, never)):
        job = Job(class_world.request, class_world.task, seeded(0), session)
        result = LoTUS(unseen=unseen, fit=fit).unlearn(class_world.original, job)
    epoch = never.efforts[0].steps // 6
    assert soon.efforts[0].steps < never.efforts[0].steps == 6 * epoch
    assert soon.efforts[0].steps % epoch == 0
    before, after = (accuracy(m, class_world.task, class_world.request.forget) for m in (class_world.original, result))
    assert after.mean() < before.mean() - 0.1


def test_it_must_be_told_of_the_unseen_but_where_a_class_goes(samples_world: World, class_world: World) -> None:
    with pytest.raises(NotSupported, match="LoTUS: expected unseen, what forget's accuracy should fall to"):
        unlearned(LoTUS(), samples_world)
    assert LoTUS()._goal(Job(class_world.request, class_world.task)) == 0
    assert LoTUS(unseen=0.7)._goal(Job(samples_world.request, samples_world.task)) == 0.7


@pytest.mark.parametrize("wrong", [{"unseen": 1.5}, {"alpha": 0.0}, {"share": -0.1}])
def test_refuses_values_that_there_are_not(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"expected {next(iter(wrong))} to be"):
        LoTUS(**wrong)


def test_killed_and_resumed_gives_the_same_weights(samples_world: World, tmp_path: Path) -> None:
    recipe = Fit(lr=0.02, weight_decay=0.0, batch_size=16, epochs=4)
    check_resumed(LoTUS(unseen=0.0, fit=recipe), samples_world, tmp_path, killed_at=9)
