"""When a request is forgotten, what is watched meanwhile, and whether a model knows what must go."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, World, small_llama
from unrecall.data.digests import digest
from unrecall.data.examples import Absent, iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.experiment.goal import (
    Goal,
    Guard,
    check_memorised,
    goal_of,
    guards_of,
    nearest,
    right,
    stopping,
    why_not_memorised,
)
from unrecall.experiment.starting_point import StartingPoint
from unrecall.experiment.tune import Search, tune, tuning_request
from unrecall.methods.base import GradientMethod, phase_over
from unrecall.methods.grad_ascent import GradAscent
from unrecall.models.observe import observe
from unrecall.record.schema import Trial
from unrecall.scenarios.base import Scenario
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase
from unrecall.training.randomness import seeded


def test_a_text_is_right_as_a_whole_or_not_at_all(text_world: World) -> None:
    w = text_world
    signals = observe(w.original, w.task, w.request.forget)
    halves = replace(signals, correct=np.array([1.0, 0.99, 0.5, 0.0]))
    assert right(w.task, halves).tolist() == [1, 0, 0, 0]
    assert right(Classification(), halves).tolist() == [1.0, 0.99, 0.5, 0.0]


def test_a_recommender_is_watched_by_the_likelihood_of_what_it_is_taught_again(tastes_world: World) -> None:
    """At half its weights its items are less likely; what it isn't taught again it forgets even if retrained."""
    w = tastes_world
    whole = w.request.with_validation()
    request = tuning_request(whole, whole.validation or (), 0)
    guards = guards_of(w.task, w.original, request, request.holdout, 0.05)
    assert guards.validation is None, "held-back items of users who leave are forgotten with theirs"
    assert guards.retained.examples is request.retain
    signals = observe(w.original, w.task, guards.near.examples)
    less = replace(signals, loss=signals.loss + 0.5 / len(guards.near.examples))
    assert replace(guards.near, most=0.0).change_of(less).excessive, "one example is no share of a likelihood"
    duller = copy.deepcopy(w.original)
    with torch.no_grad():
        for p in duller.parameters():
            p.mul_(0.5)
    before, after = (observe(model, w.task, request.retain) for model in (w.original, duller))
    change = guards.retained.change(duller)
    assert change.lost == pytest.approx(float(after.loss.mean() - before.loss.mean()))
    assert change.excessive
    assert not guards.retained.change(w.original).excessive
    assert not guards.retained.change(w.retrained[0]).excessive, "which knows retain as well"


def test_the_gap_of_texts_counts_whole_answers_too(text_world: World) -> None:
    w = text_world
    request = w.request.with_validation()
    goal = goal_of(w.task, request, request.validation or ())
    own, other = (observe(w.original, w.task, examples) for examples in (request.forget, request.validation or ()))
    whole = float(right(w.task, own).mean() - right(w.task, other).mean())
    mean = float(own.confidence.mean() - other.confidence.mean())
    assert goal.gap(goal.signals(w.original)) == pytest.approx(max(whole, mean))
    assert not goal(w.original)
    assert goal(w.retrained[0]) == (goal.gap(goal.signals(w.retrained[0])) <= 0)


class Line(nn.Module):
    """Features are the two inputs; the class is the sign of their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x)
        return out


def at(degrees: float, label: int = 1, radius: float = 1.0) -> tuple[torch.Tensor, int]:
    """A point by its direction, which decides the cosine."""
    angle = torch.deg2rad(torch.tensor(degrees))
    return radius * torch.stack([torch.cos(angle), torch.sin(angle)]), label


def test_neighbours_are_nearest_by_cosine() -> None:
    retain = [at(d, radius=r) for d, r in ((0, 9), (40, 1), (44, 5), (50, 0.1), (90, 1), (120, 1))]
    request = Request([at(45)], retain, [at(20)], [at(30)])
    near = nearest(Classification(), Line(), request)
    assert near.indices == [1, 2, 3]


def test_a_guard_lets_one_example_go_and_counts_gains_only_where_told() -> None:
    task, model = Classification(), Line()
    examples = [at(45), at(40), at(50), at(30, label=0)]  # 3 of 4 are right
    assert Guard(task, examples, before=1.0, most=0.1).change(model) == (0.25, False)
    assert Guard(task, [*examples, at(20, label=0)], before=1.0, most=0.1).change(model) == (pytest.approx(0.4), True)
    assert Guard(task, examples, before=0.25, most=0.1).change(model) == (-0.5, False)
    assert Guard(task, examples, before=0.25, most=0.1, both_ways=True).change(model) == (-0.5, True)


def test_validation_is_no_guard_of_a_class(class_world: World, samples_world: World) -> None:
    for world, watched in ((class_world, False), (samples_world, True)):
        request = world.request.with_validation()
        validation = request.validation
        assert validation is not None
        narrowed = tuning_request(request, validation, 0)
        guards = guards_of(world.task, world.original, narrowed, validation, 0.02)
        assert (guards.validation is not None) == watched
        assert len(guards.near.examples)


def test_a_method_stops_when_the_request_is_forgotten_and_trains_on_when_its_recipe_is_short(
    class_world: World,
) -> None:
    w = class_world
    job = stopping(Job(w.request.with_validation(), w.task, seeded(0), CPU))
    short = GradAscent(fit=Fit(lr=0.02, epochs=1, batch_size=8, check_every=1))
    steps = {}
    for name, enough in (("stops", job.enough), ("doesn't", None)):
        session = replace(CPU, name=name, efforts=[])
        unlearned = short.unlearn(w.original, replace(job.seeded(0), session=session).until(enough))
        steps[name] = sum(effort.steps for effort in session.efforts)
        assert job.enough is not None
        assert job.enough(unlearned) == (name == "stops")
    assert steps["doesn't"] < steps["stops"] < 100


@dataclass(frozen=True)
class TwoPhases(GradientMethod):
    """A phase on forget, one on retain, and a second on forget that has nothing left to do."""

    title: ClassVar[str] = "TwoPhases"
    fit: Fit = Fit(lr=0.0, epochs=1, batch_size=8)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        forget, retain = phase_over("forget", job, self.fit), phase_over("retain", job, self.fit)
        return [forget, retain, forget]


def test_a_phase_on_forget_does_not_begin_where_enough_is_forgotten(class_world: World) -> None:
    w = class_world
    session = replace(CPU, efforts=[])
    TwoPhases().unlearn(w.original, Job(w.request, w.task, seeded(0), session).until(lambda _: True))
    retain = len(w.request.retain) // 8
    assert [effort.steps for effort in session.efforts] == [len(w.request.forget) // 8, retain, 0]


@dataclass(frozen=True)
class Shifting(GradientMethod):
    """Climbs forget's loss at a rate that hardly moves weights, so that BatchNorm's statistics alone change."""

    title: ClassVar[str] = "Shifting"
    fit: Fit = Fit(lr=1e-12, weight_decay=0.0, epochs=1, batch_size=8)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        return [phase_over("forget", job, self.fit), phase_over("retain", job, self.fit)]


def test_the_null_of_a_method_that_stops_makes_the_passes_that_it_made(class_world: World) -> None:
    """What statistics alone changed, the null shows whole, though the recipe has fewer steps than were taken."""
    w = class_world
    scenario = Scenario("own", "", w.task, w.request, original=w.original, references=0)
    start = StartingPoint(scenario, w.original, 0, replace(CPU, efforts=[]), True)
    unlearned = start.unlearned(Shifting())
    assert unlearned.cost is not None
    assert unlearned.cost.phases[0] > len(w.request.forget) // 8
    null = start.null(Shifting(), unlearned.cost)
    assert null is not None
    for name, value in null.state_dict().items():
        assert torch.allclose(value, unlearned.model.state_dict()[name], atol=1e-6), name


def test_a_tuning_says_how_long_it_took_where_this_run_made_it(
    class_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    w = class_world
    scenario = Scenario("own", "", w.task, w.request, original=w.original, references=0)
    method = GradAscent(fit=Fit(lr=1e-3, epochs=1, batch_size=8))
    sessions = [replace(CPU, folder=tmp_path / name, efforts=[]) for name in ("first", "again")]
    first, again = (StartingPoint(scenario, w.original, 7, session, True).tuning(method) for session in sessions)
    assert first.seconds is not None
    assert first.seconds > 0
    assert again.seconds is None
    assert again == first.model_copy(update={"seconds": None})


def test_the_test_set_serves_where_there_is_no_holdout(samples_world: World) -> None:
    w = samples_world
    request = replace(w.request, holdout=Absent("none"), validation=None).with_validation()
    whole = [digest(item) for item in iterate(w.request.test)]
    drawn = {digest(item) for item in iterate(request.validation or ())}
    assert len(drawn) == (len(whole) + 1) // 2
    assert request.digests["test"] == [each for each in whole if each not in drawn]
    with pytest.raises(MissingReference):
        replace(request, test=Absent("none"), validation=None).with_validation()


def test_what_the_original_does_not_know_is_not_forgotten(text_world: World) -> None:
    w = text_world
    assert why_not_memorised(w.task, w.original, w.request) == ""
    untrained = small_llama(len(w.task.tokenizer), seed=9)
    reason = why_not_memorised(w.task, untrained, w.request)
    assert "says none of" in reason
    assert "texts that it never saw" in reason
    with pytest.raises(BadInput, match="go on with --anyway"):
        check_memorised(w.task, untrained, w.request)
    alone = replace(w.request, holdout=Absent("none"), test=Absent("none"))
    assert "word by word" in why_not_memorised(w.task, untrained, alone)
    assert why_not_memorised(w.task, w.original, alone) == ""


def test_a_classifier_is_not_asked(samples_world: World) -> None:
    w = samples_world
    assert why_not_memorised(w.task, w.original, w.request) == ""


@pytest.mark.parametrize(
    ("gaps", "sparing", "tried", "met"),
    [
        ({4: -0.02}, True, [1, 4], True),  # a tenth of .5 may be overshot
        ({4: -0.2, 2: -0.01}, True, [1, 2, 4], True),
        ({4: -0.2, 2: 0.3}, True, [1, 2, 4], False),  # nothing between too little and too much
        ({}, True, [1, 4, 16], False),  # nothing was forgotten
        ({0.25: 0.0}, False, [0.0625, 0.25, 1], False),  # all that was tried did damage
    ],
)
def test_a_search_ends_where_it_is_good_enough_and_says_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
    samples_world: World,
    gaps: dict[float, float],
    sparing: bool,
    tried: list[float],
    met: bool,
) -> None:
    """The original's gap is .5, and so is that of each strength without one of its own; three are tried at most."""
    w = samples_world

    def trial(_: Search, factor: float) -> Trial:
        return Trial(strength=factor, gap=gaps.get(factor, 0.5), retain_drop=0.0, sparing=sparing)

    monkeypatch.setattr(Search, "trial", trial)
    monkeypatch.setattr(Goal, "gap", lambda *_: 0.5)
    tuned = tune(GradAscent(), w.original, Job(w.request, w.task, seeded(0), CPU), trials=3)
    assert [t.strength for t in tuned.trials] == tried
    assert tuned.criterion.endswith("what comes nearest") is not met


def test_one_retain_example_is_too_few_to_tune_on(samples_world: World) -> None:
    w = samples_world
    request = w.request.with_own(retain=[w.request.retain[0]])
    with pytest.raises(NotSupported, match="at least 2 retain examples"):
        tune(GradAscent(), w.original, Job(request, w.task, seeded(0), CPU))


@pytest.mark.parametrize(("others", "tuning", "audited"), [(22, 3, 19), (45, 23, 22), (20, 1, 19)])
def test_tuning_leaves_enough_persons_to_compare_one_with(others: int, tuning: int, audited: int) -> None:
    names = [f"p{i // 2}" for i in range(2 * others)]
    request = Request(
        [at(i) for i in (1, 2)], [at(i) for i in range(10, 20)], [at(100 + i) for i in range(2 * others)],
        [at(i + 0.5) for i in range(6)], groups={"forget": ["one", "one"], "holdout": names},
    ).with_validation()  # fmt: skip
    assert request.groups is not None
    assert len(set(request.groups["holdout"])) == audited
    assert len(request.validation or ()) == 2 * tuning


def test_with_nobody_to_spare_the_test_set_serves() -> None:
    names = [f"p{i}" for i in range(19)]
    request = Request(
        [at(1)], [at(i) for i in range(10, 20)], [at(100 + i) for i in range(19)],
        [at(i + 0.5) for i in range(6)], groups={"forget": ["one"], "holdout": names},
    ).with_validation()  # fmt: skip
    assert request.groups is not None
    assert (len(request.holdout), len(request.validation or ()), len(request.test)) == (19, 3, 3)
    assert list(request.groups["holdout"]) == names
