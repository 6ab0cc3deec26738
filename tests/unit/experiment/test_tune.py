"""Tuning sees forget, validation and a tenth of retain; what a judge will ask about later stays closed to it."""

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.worlds import COLOURS, CPU, World, blobs, caption_tokenizer, pairs, small_clip, word_tokenizer
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request
from unrecall.disk.weights import digest_of
from unrecall.errors import Diverged, MissingReference, NotSupported
from unrecall.experiment.tune import Search, choose, summary, tune
from unrecall.methods.base import Method, Strength
from unrecall.methods.finetune import Finetune
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.retrain import Retrain
from unrecall.record.schema import Trial, Tuning
from unrecall.spec.parameters import NonNegative
from unrecall.tasks import CausalLM, Contrastive
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy


class Closed:
    """A data set that can be read until it is closed."""

    def __init__(self, items: Any) -> None:
        self.items, self.closed = list(iterate(items)), False

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if self.closed:
            raise AssertionError("tuning read what only a judge may read")
        return self.items[index]


def test_holdout_and_test_are_never_read(samples_world: World) -> None:
    w = samples_world
    holdout, test = Closed(w.request.holdout), Closed(w.request.test)
    validation = blobs(80, 4, 5)[::4]
    request = replace(w.request, holdout=holdout, test=test, validation=validation)
    holdout.closed = test.closed = True
    for method in (
        Dial(),
        NegGradPlus(fit=Fit(lr=1e-9)),
    ):
        tuned = tune(method, w.original, Job(request, w.task, seeded(0), CPU), trials=2)
        assert len(tuned.trials) == 2


@dataclass(frozen=True)
class Dial(Method):
    """Forgets by `force`: mixes the forgotten class's output away from the original, without any training."""

    title: ClassVar[str] = "Dial"
    strength: ClassVar[Strength | None] = Strength(("force",))

    force: NonNegative = 1.0

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        request = job.request
        SEEN.append(request)
        if self.force > 60:
            raise Diverged("dial", 3, "")
        changed = frozen_copy(model)
        with torch.no_grad():
            if self.force > 30:
                changed[6].weight.fill_(torch.nan)  # type: ignore[index, union-attr]
            changed[6].bias[0] -= self.force  # type: ignore[index, union-attr]
        return changed


SEEN: list[Request] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


def test_a_tenth_of_retain_may_hold_all_that_stays_of_a_class(samples_world: World) -> None:
    """The whole request was in order; of a trial's that isn't asked again."""
    w = samples_world
    of_class = [item for item in iterate(w.request.forget) if item[1] == 0]
    others = [item for item in iterate(w.request.retain) if item[1] != 0]
    (single,) = [item for item in iterate(w.request.retain) if item[1] == 0][:1]
    for place in range(0, len(others), 20):
        retain = [*others[:place], single, *others[place:]]
        request = replace(w.request, forget=of_class, retain=retain).with_validation()
        tune(Dial(), w.original, Job(request, w.task, seeded(0), CPU), trials=1)


def test_the_method_gets_nothing_that_an_audit_will_use(samples_world: World) -> None:
    w = samples_world
    request = w.request.with_validation()
    tune(Dial(), w.original, Job(request, w.task, seeded(0), CPU), trials=3)
    assert len(SEEN) == 3
    later = {digest(item) for split in (request.holdout, request.test) for item in iterate(split)}
    retain = {digest(item) for item in iterate(w.request.retain)}
    for narrowed in SEEN:
        for split in (narrowed.holdout, narrowed.test, narrowed.retain, narrowed.forget):
            assert later.isdisjoint(digest(item) for item in iterate(split))
        kept, used = ({digest(item) for item in iterate(part)} for part in (narrowed.test, narrowed.retain))
        assert kept | used == retain
        assert kept.isdisjoint(used), "damage is measured where unlearning can't repair it"
        assert len(kept) == len(request.retain) // 10


def test_it_picks_the_least_gap_that_keeps_retain(samples_world: World) -> None:
    w = samples_world
    before = digest_of(w.original)
    tuned = tune(Dial(), w.original, Job(w.request, w.task, seeded(0), CPU), retain_drop=0.5)
    trials = tuned.trials
    assert [t.strength for t in trials] == sorted(t.strength for t in trials)
    sparing = [t for t in trials if t.sparing]
    assert abs(next(t.gap for t in trials if t.strength == tuned.chosen)) == min(abs(t.gap) for t in sparing)
    assert tuned.parameter == "force"
    assert "50% of accuracy" in tuned.criterion
    gaps = [t.gap for t in trials if t.strength <= 30]
    assert gaps[0] > 0 > gaps[-1], "the search went to where the gap changes sign"
    assert digest_of(w.original) == before


@pytest.mark.parametrize("force", [40.0, 100.0], ids=["noticed by what the model says", "noticed by the loop"])
def test_a_trial_that_diverges_is_too_strong_and_not_the_end(samples_world: World, force: float) -> None:
    w = samples_world
    tuned = tune(Dial(force=force), w.original, Job(w.request, w.task, seeded(0), CPU), retain_drop=1.0)
    diverged = [t for t in tuned.trials if force * t.strength > 30]
    assert diverged
    assert all((t.gap, t.retain_drop, t.sparing) == (-1.0, 1.0, False) for t in diverged)
    assert force * tuned.chosen <= 30


def test_a_trial_is_judged_in_the_format_in_which_the_model_will_be_written(samples_world: World) -> None:
    w = samples_world
    trials = list[dict[str, torch.Tensor]]()

    def judge(factor: float, unlearned: nn.Module) -> Trial:
        trials.append(unlearned.state_dict())
        return Trial(strength=factor, gap=0.5, retain_drop=0.0, sparing=True)

    job = Job(w.request, w.task, seeded(0), CPU, precision="bfloat16")
    Search(Dial(force=0.7), w.original, job, 0, "samples", 1.0, judge).trial(1.0)
    assert all(torch.equal(v, v.to(torch.bfloat16).to(v.dtype)) for v in trials[0].values() if v.is_floating_point())
    assert not torch.equal(trials[0]["6.weight"], w.original.state_dict()["6.weight"]), "the original has more digits"
    large = copy.deepcopy(w.original)
    large.state_dict()["6.bias"].fill_(1e5)
    search = Search(Dial(force=0.7), large, replace(job, precision="float16"), 0, "samples", 1.0, judge)
    assert not search.trial(1.0).sparing, "a weight that the format can't hold is a ruin"


def test_a_class_is_forgotten_at_the_weakest_strength_that_does(class_world: World) -> None:
    w = class_world
    tuned = tune(Dial(), w.original, Job(w.request, w.task, seeded(0), CPU), retain_drop=0.5)
    forgot = [t for t in tuned.trials if t.gap <= 0 and t.sparing]
    assert forgot
    assert tuned.chosen == min(t.strength for t in forgot)
    assert "confidence on forget is at most 0.05" in tuned.criterion


def believed(model: nn.Module, pictures: Any, label: int = 0) -> float:
    """The mean probability of a label, by hand."""
    with torch.no_grad():
        return float(model(torch.stack([picture for picture, _ in iterate(pictures)])).softmax(1)[:, label].mean())


def test_a_backdoor_is_forgotten_once_unseen_triggers_are_not_believed(samples_world: World) -> None:
    w = samples_world
    innocent = [item for item in iterate(w.request.retain) if item[1] == 1][:15]
    retain = [item for item in iterate(w.request.retain) if not any(item is other for other in innocent)]
    suspected = [*iterate(w.request.forget), *innocent]
    request = Request(suspected, retain, w.request.holdout, w.request.test, kind="backdoor").with_validation()
    tuned = tune(Dial(), w.original, Job(request, w.task, seeded(0), CPU), retain_drop=1.0)
    assert tuned.untouched == pytest.approx(believed(w.original, request.validation) - 0.05, abs=1e-6)
    assert tuned.untouched > 0.1, "what it has is no less believed than what it hasn't, and yet not forgotten"
    forgot = [t for t in tuned.trials if t.gap <= 0]
    assert forgot
    assert tuned.chosen == min(t.strength for t in forgot)
    done = Dial().scaled(tuned.chosen).unlearn(w.original, Job(request, w.task, seeded(0), CPU))
    assert believed(done, request.validation) <= 0.05
    assert "attacker" in tuned.criterion
    assert "at most 0.05" in tuned.criterion
    assert "none that was tried" not in tuned.criterion


@dataclass(frozen=True)
class Nothing(Dial):
    """Leaves the model as it is."""

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        return frozen_copy(model)


@pytest.mark.parametrize("kind", ["concept", "backdoor"])
def test_pairs_are_judged_by_their_class_and_chance(kind: Any) -> None:
    task = Contrastive(caption_tokenizer(), classes=tuple(COLOURS), prompt="{}")
    model: Any = small_clip(len(task.tokenizer), initializer_factor=4.0)
    red, rest = pairs(0, 40)[::4], [pair for pair in pairs(0, 40) if pair["label"]]
    request = Request(red[:4], rest[:20], red[7:], rest[20:], red[4:7], kind=kind)
    prompts = task.prompts(model)
    assert prompts is not None

    def taken_for_red(examples: Examples) -> float:
        logits = model.logit_scale.detach().exp() * task.embedded(model, examples).first @ prompts.T
        return float(logits.softmax(1)[:, 0].mean())

    forget, validation = taken_for_red(red[:4]), taken_for_red(red[4:7])
    expected = {"concept": max(forget, validation), "backdoor": validation}[kind] - 1 / 4
    found = tune(Nothing(), model, Job(request, task, seeded(0), CPU), trials=1)
    assert found.untouched == pytest.approx(expected, abs=1e-5)
    assert [t.gap for t in found.trials] == [pytest.approx(expected, abs=1e-5)]
    assert "at most 0.25" in found.criterion
    assert ("none that was tried" in found.criterion) == (expected > 0)


def test_what_comes_nearest_is_called_so(class_world: World) -> None:
    w = class_world
    found = tune(Nothing(), w.original, Job(w.request, w.task, seeded(0), CPU), trials=2)
    assert found.untouched == pytest.approx(believed(w.original, w.request.forget) - 0.05, abs=1e-6)
    assert found.trials[0].gap > 0
    assert "none that was tried" in found.criterion


def test_without_classes_only_samples_can_be_tuned(samples_world: World) -> None:
    w = samples_world
    concept = replace(w.request, kind="concept")
    with pytest.raises(
        NotSupported, match=r"tune: expected examples that have one class each, got CausalLM\. For a con"
    ):
        tune(Dial(), w.original, Job(concept, CausalLM(word_tokenizer(), template=None), seeded(0), CPU))
    with pytest.raises(NotSupported, match="expected the classes' names, got none"):
        tune(Dial(), w.original, Job(concept, Contrastive(caption_tokenizer()), seeded(0), CPU))


def trial(strength: float, gap: float, drop: float = 0.0, sparing: bool = True) -> Trial:
    return Trial(strength=strength, gap=gap, retain_drop=drop, sparing=sparing)


@pytest.mark.parametrize(
    ("trials", "kind", "expected"),
    [
        ([trial(1, 0.3), trial(2, -0.1), trial(4, -0.3)], "samples", 2),
        ([trial(1, 0.3), trial(2, 0.0, 0.5, sparing=False)], "samples", 1),
        ([trial(1, 0.3, 0.5, sparing=False), trial(2, 0.0, 0.4, sparing=False)], "samples", 2),
        ([trial(1, 0.3, 0.5, sparing=False), trial(2, 0.0, 0.5, sparing=False)], "class", 1),
        ([trial(1, 0.3), trial(2, -0.01), trial(4, -0.04)], "class", 2),
        ([trial(1, 0.3), trial(2, 0.2), trial(4, -0.04, 0.5, sparing=False)], "class", 2),
        ([trial(1, 0.3), trial(2, -0.09), trial(4, -0.01)], "backdoor", 2),
        ([trial(1, 0.3), trial(2, -0.09), trial(4, -0.01)], "concept", 2),
    ],
)  # fmt: skip
def test_choose(trials: list[Trial], kind: str, expected: float) -> None:
    assert choose(trials, kind).strength == expected


def test_same_seed_same_choice_and_the_search_is_bounded(samples_world: World) -> None:
    w = samples_world
    first, again = (tune(Dial(), w.original, Job(w.request, w.task, seeded(3), CPU), trials=5) for _ in range(2))
    assert first == again
    assert len(first.trials) <= 5
    assert Dial.strength is not None
    assert all(Dial.strength.low <= t.strength <= Dial.strength.high for t in first.trials)


def test_a_real_method_is_tuned_towards_the_gap(samples_world: World) -> None:
    w = samples_world
    tuned = tune(NegGradPlus(), w.original, Job(w.request, w.task, seeded(0), CPU), trials=5, retain_drop=0.1)
    chosen = next(t for t in tuned.trials if t.strength == tuned.chosen)
    plain = next(t for t in tuned.trials if t.strength == 1.0)
    assert abs(chosen.gap) <= abs(plain.gap)


def test_where_the_original_shows_no_gap_the_first_strength_that_does_no_damage_is_taken(
    samples_world: World,
) -> None:
    """No strength is nearer to 0 for what the weakest does, which is nothing: that was taken, after all trials."""
    w = samples_world
    better_known = replace(w.request, forget=w.request.holdout, holdout=w.request.forget)
    job = Job(better_known, w.task, seeded(0), CPU)
    tuned = tune(Dial(), w.original, job)
    assert tuned.untouched is not None
    assert tuned.untouched < 0
    assert [(trial.strength, trial.sparing) for trial in tuned.trials] == [(1.0, True)]
    said = "the original shows no more of what must go than may be left, so there is nothing to search"
    assert f"; {said}; none that was tried does that" in tuned.criterion
    assert summary(tuned, "samples").endswith(f"before it was {tuned.untouched:+.3f}; {said}")
    damaging = tune(Dial(force=20.0), w.original, job)
    assert [trial.sparing for trial in damaging.trials][::-1] == [False] * (len(damaging.trials) - 1) + [True]
    assert damaging.chosen == damaging.trials[0].strength


def test_what_cannot_be_tuned(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="expected a method with a strength, got Retrain"):
        tune(Retrain(), w.original, Job(w.request, w.task, seeded(0), CPU))
    few = replace(w.request, holdout=list(iterate(w.request.holdout))[:3], test=list(iterate(w.request.test))[:3])
    with pytest.raises(MissingReference, match="expected a validation set or at least 4 holdout examples"):
        tune(Finetune(), w.original, Job(few, w.task, seeded(0), CPU))


def test_the_line_on_tuning_calls_a_gap_what_it_is() -> None:
    """Of a class it is confidence above a limit, and has nothing to do with what was never seen."""
    trials = [Trial(strength=2.0, gap=-0.005, retain_drop=0.0, sparing=True)]
    found = Tuning(parameter="lr", chosen=2.0, untouched=0.9, criterion="", trials=trials)
    assert summary(found, "samples").endswith("the gap to what was never seen is -0.005, before it was +0.900")
    expected = "confidence in what must go, less what may be left of it, is -0.005, before it was +0.900"
    assert summary(found, "class").endswith(expected)
    against = found.model_copy(update={"against": "relearn"})
    assert "what relearn brings back of forget is -0.005" in summary(against, "class")
    left = [trials[0].model_copy(update={"gap": 0.2})]
    unhelped = found.model_copy(update={"untouched": 0.1, "trials": left})
    assert ", and no strength that was tried lowers it: the model as it was is as near" in summary(unhelped, "class")
