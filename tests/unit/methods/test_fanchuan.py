"""By hand: Fanchuan's two losses, its phases, and what is in them."""

import math

import pytest
import torch

from tests.worlds import CPU, World
from tests.worlds.interactions import Interactions, by_user, factors, pairs_of
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.data.signals import Rows
from unrecall.methods.fanchuan import Fanchuan, from_uniform, spread
from unrecall.models.observe import batches
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy

TASK, MODEL = Interactions(4), factors(3, 4)


def test_distance_from_uniform_by_hand() -> None:
    """p = (3/4, 1/4): KL = log(1/2) - (log(3/4) + log(1/4)) / 2 = 0.1438; an example's rows are averaged first."""
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0]]).log()
    rows = Rows(logits, torch.zeros(3, dtype=torch.long), torch.tensor([0, 0, 1]), 2)
    one = math.log(0.5) - (math.log(0.75) + math.log(0.25)) / 2
    assert one == pytest.approx(0.1438, abs=1e-4)
    assert from_uniform(rows).item() == pytest.approx((one / 2 + one) / 2)


def test_spread_by_hand() -> None:
    """z.z' / t = (1, 0) for t = 2: -(log sigmoid(1) + log sigmoid(-1)) / 2; at its least where both are alike."""
    forgotten, others = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = -(math.log(1 / (1 + math.exp(-1))) + math.log(1 / (1 + math.e))) / 2
    assert spread(forgotten, others, 2.0).item() == pytest.approx(expected)
    assert spread(forgotten, torch.ones(5, 2), 2.0).item() == pytest.approx(math.log(5))
    assert spread(forgotten, others, 2.0).item() > math.log(2)


def test_phases_come_in_rounds() -> None:
    request = by_user()
    phases = Fanchuan(rounds=3).phases(MODEL, frozen_copy(MODEL), Job(request, TASK, seeded(0), CPU))
    names = [list(phase.streams) for phase in phases]
    assert names == [["forget"], *[["forget", "retain", "cleaned"], ["retain"]] * 3]
    assert list(iterate(phases[1].streams["cleaned"])) == pairs_of((0, 1), (0, 2))
    assert phases[2].fit.steps == math.ceil(32 * 1 / 6), "32 examples, six at a time"


def test_the_contrast_sums_both_parts_by_hand() -> None:
    request = by_user()
    apart = Fanchuan().phases(MODEL, frozen_copy(MODEL), Job(request, TASK, seeded(0), CPU))[1]
    drawn = {name: next(batches(examples, TASK)) for name, examples in apart.streams.items()}
    users = MODEL.users.weight.detach()
    expected = sum(spread(users[:1], users[places], 1.15) for places in ([0, 0, 1, 1, 2, 2], [0, 0]))
    assert apart.loss(MODEL, drawn).item() == pytest.approx(float(expected), rel=1e-6)


def test_a_user_with_nothing_left_has_no_part_in_it() -> None:
    request = Request(pairs_of((0, 0)), pairs_of((1, 0), (1, 3)))
    apart = Fanchuan().phases(MODEL, frozen_copy(MODEL), Job(request, TASK, seeded(0), CPU))[1]
    assert list(apart.streams) == ["forget", "retain"]


def test_a_task_without_users_meets_retain_twice(samples_world: World) -> None:
    w = samples_world
    apart = Fanchuan().phases(w.original, w.original, Job(w.request, w.task, seeded(0), CPU))[1]
    assert len(apart.streams["cleaned"]) == len(apart.streams["retain"]) == len(w.request.retain)
