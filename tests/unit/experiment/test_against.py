"""Strengths that are tuned against an attack: what it brings back by hand, the budget, and what is refused."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from tests.unit.experiment.test_tune import Dial
from tests.worlds import CPU, World, blobs
from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.kinds import Kind
from unrecall.data.request import NO_VALIDATION
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.experiment.against import Against, Judge, choose, tune_against
from unrecall.experiment.tune import Search, tuning_request
from unrecall.methods import NegGradPlus, Retrain
from unrecall.models.observe import accuracy, observe
from unrecall.record.schema import Trial
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.randomness import seeded


@dataclass(frozen=True)
class Fixed(RecoveryAttack):
    """Brings back the models of `BROUGHT`, whatever is attacked."""

    title = "Fixed"
    axis = "steps"

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        for step, brought in enumerate(BROUGHT, 1):
            yield Attacked(step, brought, pool.tested)


BROUGHT: list[nn.Module] = []


@pytest.fixture(autouse=True)
def nothing_brought() -> None:
    BROUGHT.clear()


class By(Against):
    """With the attack above."""

    def attack_on(self, task: Task, kind: Kind) -> RecoveryAttack:
        return Fixed()


def job_of(w: World) -> Job:
    """With validation, which the audit doesn't see."""
    return Job(replace(w.request, validation=blobs(80, 4, 5)[::4]), w.task, seeded(0), CPU)


def judge_of(w: World, against: Against) -> Judge:
    request = job_of(w).request
    assert request.validation is not None
    return Judge(w.original, job_of(w).on(tuning_request(request, request.validation, 0)), 0, against)


def test_what_comes_back_is_forget_beyond_validation_at_the_attackers_best(samples_world: World) -> None:
    w = samples_world
    request = job_of(w).request

    def excess(model: nn.Module) -> float:
        parts = (request.forget, request.validation or ())
        forget, validation = (float(accuracy(model, w.task, part).mean()) for part in parts)
        return forget - validation

    ruin = Dial(force=20.0).unlearn(w.original, job_of(w))
    assert excess(w.original) > 0.05 + excess(ruin), "the models differ, or nothing is shown"
    assert judge_of(w, By()).brought_back(ruin) == pytest.approx(excess(ruin))
    BROUGHT.extend((w.original, ruin))
    assert judge_of(w, By()).brought_back(ruin) == pytest.approx(excess(w.original))


def test_by_loss_what_comes_back_is_how_far_it_lies_below_that_on_validation(samples_world: World) -> None:
    w = samples_world
    request = job_of(w).request

    def below(model: nn.Module) -> float:
        parts = (request.forget, request.validation or ())
        forget, validation = (float(observe(model, w.task, part).loss.mean()) for part in parts)
        return validation - forget

    ruin = Dial(force=20.0).unlearn(w.original, job_of(w))
    assert below(w.original) > 0.05 + below(ruin)
    judge = judge_of(w, By(measure="loss"))
    assert judge.brought_back(ruin) == pytest.approx(below(ruin))
    BROUGHT.extend((w.original, ruin))
    assert judge.brought_back(ruin) == pytest.approx(below(w.original))
    tuned = tune_against(Dial(), w.original, job_of(w), By("relearn", 0.1, "loss"), trials=2)
    assert tuned.measure == "loss"
    assert tuned.untouched == pytest.approx(below(w.original))
    assert "lower its loss is than that on validation, in nats" in tuned.criterion


def test_where_no_loss_can_be_had(samples_world: World, class_world: World, text_world: World) -> None:
    w, by_loss = samples_world, Against("relearn", measure="loss")
    with pytest.raises(BadInput, match="taught from forget alone, got relearn:dose=both"):
        replace(by_loss, attack="relearn:dose=both").attack_on(w.task, "samples")
    w = class_world
    job = Job(w.request.with_own(validation=NO_VALIDATION), w.task, seeded(0), CPU)
    with pytest.raises(NotSupported, match="expected validation to hold forget against, got none"):
        tune_against(Dial(), w.original, job, By(measure="loss"))
    w = text_world
    with pytest.raises(NotSupported, match="expected an attack that asks for losses, got few_shot:ks=1"):
        tune_against(
            NegGradPlus(), w.original, Job(w.request, w.task, seeded(0), CPU), replace(by_loss, attack="few_shot:ks=1")
        )


def test_a_broken_model_is_a_ruin_and_a_broken_point_is_left_out(samples_world: World) -> None:
    w = samples_world
    broken = copy.deepcopy(w.original)
    with torch.no_grad():
        for p in broken.parameters():
            p.mul_(1e30)
    judge = judge_of(w, By(measure="loss"))
    assert math.isnan(judge.brought_back(broken))
    BROUGHT.append(broken)
    usual = judge.brought_back(w.original)
    BROUGHT.clear()
    assert usual == judge.brought_back(w.original)
    search = Search(Dial(), w.original, judge.job, 0, "samples", usual, lambda factor, _: judge(factor, broken))
    assert search.trial(1.0) == Trial(strength=1.0, gap=-1.0, retain_drop=1.0, sparing=False)


def test_the_usual_measure_is_not_in_what_keys_are_made_of() -> None:
    assert repr(Against("relearn", 0.5)) == "Against(attack='relearn', kl=0.5)"
    assert repr(Against("relearn", 0.5, "loss")) == "Against(attack='relearn', kl=0.5, measure='loss')"
    with pytest.raises(BadInput, match="--measure: expected shown or loss, got 'los'"):
        Against("relearn", measure="los")  # type: ignore[arg-type]


def test_the_chosen_strength_spends_no_more_than_the_budget(samples_world: World) -> None:
    w = samples_world
    tuned = tune_against(Dial(), w.original, job_of(w), By("relearn", 0.1))
    assert any(not t.sparing for t in tuned.trials) and any(t.sparing for t in tuned.trials)
    for trial in tuned.trials:
        assert trial.kl is None or trial.sparing == (trial.kl <= 0.1)
    chosen = next(t for t in tuned.trials if t.strength == tuned.chosen)
    assert chosen.sparing
    assert max(chosen.gap, 0) == min(max(t.gap, 0) for t in tuned.trials if t.sparing)
    assert "at most 0.1 nats" in tuned.criterion and "none that was tried" not in tuned.criterion


def test_a_budget_that_no_strength_keeps_is_said(samples_world: World) -> None:
    tuned = tune_against(Dial(), samples_world.original, job_of(samples_world), By("relearn", 1e-9), trials=2)
    assert "none that was tried does that" in tuned.criterion


def test_an_attack_that_shows_nothing_of_the_original_is_refused(
    samples_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "brought_back", lambda *_: -0.02)
    with pytest.raises(NotSupported, match="of forget beyond validation in the original, got relearn, which shows no"):
        tune_against(Dial(), samples_world.original, job_of(samples_world), By("relearn", 0.1))


def test_relearning_is_tuned_against(samples_world: World) -> None:
    """The quick suite's own, where nothing else is said; the same again gives the same."""
    w, against = samples_world, Against("relearn", 0.5)
    assert against.attack_on(w.task, "samples").steps == (1, 4, 16)  # type: ignore[attr-defined]
    first, again = (tune_against(NegGradPlus(), w.original, job_of(w), against, trials=2) for _ in range(2))
    assert first == again
    assert len(first.trials) == 2


@pytest.mark.parametrize(
    ("attack", "kl", "message"),
    [
        ("loss", 0.01, "--against: expected an attack that brings the forgotten back, got loss"),
        ("relern", 0.01, "relern"),
        ("relearn", 0.0, "--kl: expected a budget above 0 nats, got 0"),
        ("relearn", float("nan"), "--kl: expected a budget above 0 nats, got nan"),
    ],
)
def test_what_is_refused(attack: str, kl: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Against(attack, kl)


def test_where_it_is_refused(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="tune: expected a method with a strength"):
        tune_against(Retrain(), w.original, job_of(w), Against())
    with pytest.raises(BadInput, match="--against: expected an attack on Classification, got prefix"):
        Against("prefix").attack_on(w.task, "samples")
    with pytest.raises(BadInput, match="expected an attack on samples, got prototypical, which brings back classes"):
        Against("prototypical").attack_on(w.task, "samples")


def trial(strength: float, gap: float, kl: float, *, sparing: bool) -> Trial:
    return Trial(strength=strength, gap=gap, retain_drop=0.0, kl=kl, sparing=sparing)


def test_less_than_nothing_is_nothing_and_the_weaker_of_two_is_chosen() -> None:
    trials = [trial(1, 0.2, 0.01, sparing=True), trial(2, -0.1, 0.02, sparing=True), trial(4, -0.3, 0.03, sparing=True)]
    assert choose(trials).strength == 2
    assert choose([*trials[:1], trial(4, -0.3, 9.0, sparing=False)]).strength == 1


def test_where_all_spend_too_much_the_least_is_chosen() -> None:
    assert choose([trial(1, 0.1, 9.0, sparing=False), trial(2, 0.4, 0.5, sparing=False)]).strength == 2


def test_a_class_without_validation_is_tuned_on_forget_alone(class_world: World) -> None:
    w = class_world
    job = Job(w.request.with_own(validation=NO_VALIDATION), w.task, seeded(0), CPU)
    tuned = tune_against(Dial(), w.original, job, By("relearn", 1.0), trials=2)
    assert "brings back of forget, at its worst" in tuned.criterion
    assert tuned.untouched == pytest.approx(float(accuracy(w.original, w.task, w.request.forget).mean()))
