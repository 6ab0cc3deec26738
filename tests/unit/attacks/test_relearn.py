"""Relearning a classifier: what comes back counts while the model is of use, and a constant answer doesn't."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.attacks import running
from tests.unit.attacks.running import draw_of, job_of, setting_of
from tests.worlds import COLOURS, CPU, World, caption_tokenizer, word_tokenizer
from unrecall.attacks import Attacked, Relearn, RelearnTime
from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.setting import Subject
from unrecall.harness.evaluation import draw_for
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import accuracy
from unrecall.record.schema import NO_USE
from unrecall.record.verdict import judge
from unrecall.tasks import CausalLM, Classification, Contrastive
from unrecall.tasks.protocols import Classifying
from unrecall.training import copies as module
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit_by_step
from unrecall.training.randomness import seeded

CORNERS = torch.eye(4)


def corner(named: int, label: int, i: int) -> tuple[torch.Tensor, int]:
    """An example whose logits under the identity name one class; `i` makes it different from all others."""
    return CORNERS[named] * (0.5 + 0.001 * i), label


def identity() -> nn.Linear:
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.copy_(CORNERS)
        model.bias.zero_()
    return model


def constant(label: int) -> nn.Linear:
    model = identity()
    with torch.no_grad():
        model.bias[label] = 10
    return model


def rescaled(model: nn.Module) -> nn.Module:
    """The same decisions, half as sure."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied[-1].parameters():  # type: ignore[index]
            p.mul_(0.5)
    return copied


def attacked(attack: Relearn, model: nn.Module, request: Request) -> list[Attacked]:
    return running.attacked(attack, model, World(request, Classification(), model, ()))


@pytest.mark.parametrize("data", ["harmful", "benign"])
def test_a_rescaled_retrained_model_leaks_no_more_than_retrained_ones(class_world: World, data: Any) -> None:
    w, attack = class_world, Relearn(data=data, steps=(1, 4, 16, 64))
    finding = score_finding(attack, setting_of(w, rescaled(w.retrained[0])))
    report, (mean, worst) = finding.report, judge(finding.measurements)[0]
    assert mean.original.value == worst.original.value == 1
    assert mean.unlearned.value == mean.reference == 0
    assert worst.unlearned.value == worst.reference == 0
    assert mean.verdict != "leaks"
    assert report.negative_holds is True
    assert report.positive_holds is (data == "harmful"), report.positive_control


@pytest.mark.parametrize("rates", [(1e-60,), (1e38,), (1e-60, 1e38)])
def test_an_attack_that_moves_no_weight_or_diverges_at_once_is_no_measurement(
    class_world: World, rates: tuple[float, ...]
) -> None:
    """At no learning rate is there a copy to look at: what the model as given shows would pass for the attack's.

    Of the unlearned model; of others it does.
    """
    attack, model = Relearn(learning_rates=rates, steps=(1, 4), fit=Fit(momentum=0.0)), class_world.retrained[0]
    (row,) = score_finding(attack, setting_of(class_world, model)).measurements
    assert row.unlearned.value is None
    assert "expected an attacked copy of the unlearned model, got none" in row.unlearned.note
    (mean, _) = score_finding(
        replace(attack, learning_rates=(*rates, 0.01)), setting_of(class_world, model)
    ).measurements
    assert mean.unlearned.value is not None


@pytest.mark.parametrize("size", [60.0, 1e4])
def test_a_model_that_has_nothing_left_to_learn_is_attacked_all_the_same(class_world: World, size: float) -> None:
    """So sure of each example that no gradient moves a weight: it knows all that is asked of it, and that is a leak."""
    model = copy.deepcopy(class_world.original)
    with torch.no_grad():
        for p in model[-1].parameters():  # type: ignore[index]
            p.mul_(size)
    made = replace(class_world, original=model)
    rows = score_finding(Relearn(steps=(1, 4)), setting_of(made, model)).measurements
    assert judge(rows)[0][0].verdict == "leaks"


def test_no_time_is_taken_of_an_attack_that_diverged_at_once(class_world: World) -> None:
    """It was more epochs than the search allows, as of a model that forgot."""
    attack = RelearnTime(fit=Fit(lr=1e38, momentum=0.0, epochs=2))
    (row,) = score_finding(attack, setting_of(class_world, class_world.retrained[0])).measurements
    assert row.unlearned.value is None
    assert "expected an attacked copy of the unlearned model, got none" in row.unlearned.note


def test_that_every_copy_was_ruined_is_said(class_world: World) -> None:
    """Of one model, not of the original: one whose layers were rescaled by 1e16 answers as it did before."""
    model = copy.deepcopy(class_world.retrained[0])
    attack = Relearn(steps=(1, 4))
    assert score_finding(attack, setting_of(class_world, model)).report.note == ""
    with torch.no_grad():
        for part, size in ((model[-1], 1e-16), (model[-3], 1e16)):  # type: ignore[index]
            for p in part.parameters():
                p.mul_(size)
    assert score_finding(attack, setting_of(class_world, model)).report.note == NO_USE


def test_the_disguise_is_of_use_and_leaves_the_original_alone(class_world: World) -> None:
    w = class_world
    before = digest(list(w.original.state_dict().values()))
    hidden = Relearn().disguise(w.original, job_of(w))
    assert hidden is not None
    assert 0.3 < accuracy(hidden, w.task, w.request.forget).mean() < 0.7
    assert accuracy(hidden, w.task, w.request.retain).mean() > 0.95
    assert digest(list(w.original.state_dict().values())) == before
    changed = [k for k, v in hidden.state_dict().items() if not torch.equal(v, w.original.state_dict()[k])]
    assert changed == ["6.weight", "6.bias"]


def test_what_is_least_by_hand() -> None:
    """Of ten kept examples of classes 1 and 2, four of class 1, the identity names eight right."""
    kept = [corner(1, 1, i) for i in range(4)] + [corner(2, 2, i) for i in range(4)] + [corner(3, 2, i) for i in (4, 5)]
    of_three, of_one = [corner(3, 3, i) for i in range(3)], [corner(1, 1, 9), corner(1, 1, 10), corner(2, 2, 9)]
    for probe, model, drop, least in (
        (of_three, identity(), 0.1, 0.7),
        (of_three, identity(), 0.0, 0.8),
        (of_three, constant(3), 0.1, 0.0),
        (of_one, constant(1), 0.1, 0.4),
        (of_one, constant(3), 0.1, 0.4),
    ):
        found = Relearn(retain_drop=drop)._least(model, Classification(), kept, probe)
        assert found == pytest.approx(least, abs=1e-8)
        assert (found > 0) is True, "a model that is right on none of them is of no use"
    assert Relearn()._least(constant(1), Classification(), kept, of_one) > 0.4, "what a constant gets is not enough"


def test_use_ends_where_retain_accuracy_has_fallen() -> None:
    """At this rate one step on the forgotten class leaves all as it was; many make it the only answer."""
    forget, retain = [corner(3, 3, i) for i in range(10)], [corner(i % 3, i % 3, i) for i in range(40)]
    rest = [corner(i % 4, i % 4, 100 + i) for i in range(8)]
    request = Request(forget, retain, rest[:4], rest[4:], kind="class", masked=(3,))
    model = identity()
    with torch.no_grad():
        model.bias[3] = -1
    found = attacked(Relearn(steps=(1, 200), learning_rates=(0.1,)), model, request)
    correct = [accuracy(one.model, Classification(), retain).mean() for one in found]
    assert correct == [1, 0]
    assert [one.useful for one in found] == [True, False]
    assert accuracy(found[-1].model, Classification(), found[-1].tested[0]).mean() == 1
    (loose,) = attacked(Relearn(steps=(200,), learning_rates=(0.1,), retain_drop=1.0), model, request)
    assert loose.useful is False, "no drop makes a model of use that knows nothing of retain"
    with pytest.raises(NotSupported, match="at least 2 retain examples"):
        attacked(Relearn(), model, Request(forget, retain[:1], rest[:4], rest[4:], kind="class", masked=(3,)))


@pytest.mark.parametrize(("data", "sample", "held"), [("harmful", 500, 6), ("benign", 20, 120), ("benign", 500, 70)])
def test_the_attacker_never_trains_on_what_use_is_measured_on(
    samples_world: World, monkeypatch: pytest.MonkeyPatch, data: Any, sample: int, held: int
) -> None:
    w, seen, extra = samples_world, [], []

    def noting(student: nn.Module, task: Any, phase: Phase, *rest: Any) -> Any:
        seen.append(phase.streams["held"])
        return fit_by_step(student, task, phase, *rest)

    def least(self: Relearn, model: nn.Module, task: Any, guard: Any, probe: Any) -> float:
        extra.append(guard)
        return 0.0

    monkeypatch.setattr(module, "fit_by_step", noting)
    monkeypatch.setattr(Relearn, "_least", least)
    attack = Relearn(data=data, steps=(1,), learning_rates=(1e-3,), retain_sample=sample)
    list(attack.recover(w.original, draw_of(attack, w).pool, setting_of(w)))
    trained, guard = ({digest(item) for item in iterate(one[0])} for one in (seen, extra))
    assert len(seen[0]) == held
    assert len(extra[0]) == min(sample, 70)
    assert not trained & guard
    assert guard <= {digest(item) for item in iterate(w.request.retain)}


def sure_of_retain_alone(n: int = 20) -> World:
    """The identity answers retain and test right, and forget and holdout as the next class."""
    right = [[corner(i % 4, i % 4, place + i) for i in range(n)] for place in (200, 300)]
    wrong = [[corner(i % 4, (i + 1) % 4, place + i) for i in range(n)] for place in (0, 100)]
    request = Request(wrong[0], right[0], wrong[1], right[1])
    return World(request, Classification(), identity(), ())


def test_the_attacker_stops_once_half_of_the_excess_is_gone() -> None:
    w = sure_of_retain_alone()
    attack = Relearn(until=0.5, steps=tuple(range(1, 200)), learning_rates=(0.05,), share=0.5)
    pool = draw_of(attack, w).pool
    taught, retain = (torch.stack([x for x, _ in iterate(examples)]) for examples in (pool.taught, w.request.retain))
    # The logit of one class is s, and the others' are 0: a loss of log(e^s + 3) where the true class is another one.
    sure, wrong = retain.sum(1), taught.sum(1)
    excess = (wrong.exp() + 3).log().mean() - ((sure.exp() + 3).log() - sure).mean()
    enough = float((wrong.exp() + 3).log().mean() - excess / 2)
    labels = torch.tensor([label for _, label in iterate(pool.taught)])
    losses = [
        float(nn.functional.cross_entropy(step.model(taught), labels).detach())
        for step in attack.recover(w.original, pool, setting_of(w))
    ]
    assert 2 < len(losses) < 199
    assert losses[-1] <= enough + 1e-6
    assert min(losses[:-1]) > enough


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        (Relearn(until=0.5, steps=(1, 199), learning_rates=(0.05,)), [1, 199]),
        (Relearn(until=0.5, steps=(100, 150, 199), learning_rates=(0.05,)), [100]),
        (Relearn(until=0.0, steps=(1, 150, 199), learning_rates=(0.05,)), [1, 150, 199]),
    ],
    ids=["looks too early", "looks late", "never stops"],
)
def test_the_attacker_looks_when_it_is_told_to(attack: Relearn, steps: list[int]) -> None:
    w = sure_of_retain_alone()
    assert [step.budget for step in running.attacked(attack, w.original, w)] == steps


def test_what_is_known_better_than_retain_is_taught_until_the_first_look() -> None:
    w = sure_of_retain_alone()
    request = replace(w.request, forget=w.request.retain, retain=w.request.forget)
    attack = Relearn(until=0.5, steps=(3, 6, 9), learning_rates=(0.05,))
    assert [step.budget for step in attacked(attack, w.original, request)] == [3]


def test_a_stop_belongs_to_what_is_taught() -> None:
    with pytest.raises(BadInput, match=r"expected until with data='harmful' only, got data='benign'"):
        Relearn(data="benign", until=0.5)
    with pytest.raises(BadInput, match="until"):
        Relearn(until=1.0)


def test_texts_and_pairs_are_attacked_as_ever() -> None:
    words = Contrastive(caption_tokenizer())
    for task in (
        CausalLM(word_tokenizer(), template=None),
        words,
        Contrastive(words.tokenizer, classes=tuple(COLOURS)),
    ):
        assert not isinstance(task, Classifying)
    assert isinstance(Classification(), Classifying)


def test_statistics_stay_unless_asked(class_world: World) -> None:
    w = class_world
    for attack, stays in ((Relearn(), True), (Relearn(fit=Fit()), False)):
        (one,) = attacked(Relearn(steps=(2,), learning_rates=(1e-3,), fit=attack.fit), w.original, w.request)
        same = torch.equal(one.model[1].running_mean, w.original[1].running_mean)  # type: ignore[index]
        assert same is stays


@pytest.mark.parametrize("frozen", [slice(None), slice(2)], ids=["all", "the first"])
def test_frozen_weights_do_not_bind_the_attacker(class_world: World, frozen: slice) -> None:
    w, bound = class_world, copy.deepcopy(class_world.original)
    for parameter in list(bound.parameters())[frozen]:
        parameter.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in module.own_copy(bound).parameters())
    attack, setting = Relearn(fit=Fit(lr=0.05, steps=3)), setting_of(w)
    pool = draw_for(attack, setting).pool
    free, held = (attack.scores(Subject("original", model), pool, setting) for model in (w.original, bound))
    assert all(np.array_equal(first, second) for first, second in zip(free.losses, held.losses, strict=True))
    assert not next(bound.parameters()).requires_grad, "the model that was given is left as it was"


def test_a_model_of_16_bits_is_trained_in_32(class_world: World) -> None:
    """In 16 bits a step of a thousandth of a weight would be lost."""
    w = class_world
    half = copy.deepcopy(w.original).to(torch.bfloat16)
    copied = module.own_copy(half)
    assert {p.dtype for p in copied.parameters()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert all(torch.equal(a, b.float()) for a, b in zip(copied.parameters(), half.parameters(), strict=True))


def test_beside_a_low_rank_change_statistics_are_held(samples_world: World) -> None:
    w = samples_world
    attack = Relearn(steps=(1,), learning_rates=(1e-2,), fit=Fit(batchnorm="train"), rank=2)
    with pytest.raises(NotSupported, match="expected batchnorm='frozen' with a rank"):
        running.attacked(attack, w.original, w)


@pytest.mark.parametrize("data", ["benign", "harmful"])
def test_a_low_rank_change_is_trained_beside_weights_that_are_held(text_world: World, data: Any) -> None:
    w, recipe = text_world, Fit(optimizer="adamw", batch_size=8, weight_decay=0.0)
    before = digest(w.original.state_dict())
    attack = Relearn(data=data, steps=(1, 4), learning_rates=(1e-2,), fit=recipe, rank=2)
    first, last = running.attacked(attack, w.original, w)
    assert digest(w.original.state_dict()) == before
    trained = {name: p for name, p in last.model.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 2)[-2] for name in trained} == {"default"}
    assert {min(p.shape) for p in trained.values()} == {2}
    own = dict(w.original.named_parameters())
    held = {name.replace(".base_layer", ""): p for name, p in last.model.named_parameters() if not p.requires_grad}
    assert held.keys() == own.keys()
    assert all(torch.equal(held[name], own[name]) for name in own)
    moved = [
        float((a.detach() - b.detach()).abs().max())
        for a, b in zip(trained.values(), (p for p in first.model.parameters() if p.requires_grad), strict=True)
    ]
    assert min(moved) > 0


class Mixed(nn.Module):
    """Whole numbers among its weights, and a head that isn't asked."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)
        self.body, self.asked, self.other = nn.Linear(2, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs[:, self.order]).relu()
        self.other(hidden)
        return self.asked(hidden)  # type: ignore[no-any-return]


def test_what_hides_is_the_last_block_that_decides() -> None:
    points = [(torch.tensor([a, b]), int(a > b)) for a, b in torch.rand(40, 2, generator=seeded(0)).tolist()]
    request = Request(points[:10], points[10:30], points[30:35], points[35:])
    model = Mixed()
    for attack in (Relearn(), RelearnTime()):
        copied = attack.disguise(model, Job(request, Classification(), seeded(0), CPU))
        assert copied is not None
        changed = {name for name, p in copied.named_parameters() if not torch.equal(p, model.get_parameter(name))}
        assert {name.partition(".")[0] for name in changed} == {"asked"}
