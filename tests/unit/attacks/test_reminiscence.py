"""The reminiscence attack in both forms: by hand, by law, and with a positive and a negative control."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks import running
from tests.unit.attacks.running import draw_of, job_of, setting_of
from tests.worlds import CPU, World, blobs, word_tokenizer
from unrecall.attacks.lira import Lira
from unrecall.attacks.rea_class import ReaClass, first, relabelled, shuffled
from unrecall.attacks.rea_sample import ReaSample
from unrecall.data.batches import Batch, concatenated
from unrecall.data.digests import digest
from unrecall.data.examples import Absent, iterate
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import accuracy, observe
from unrecall.nn.hooks import batchnorms
from unrecall.tasks import CausalLM, Classification
from unrecall.training.loop import Batches, Fit, Phase, fit
from unrecall.training.randomness import seeded

QUICK = ReaClass(share=0.25, learning_rates=(0.006, 0.012))
"""Ten examples to be reminded of: a share of 0.03 would be one."""
SMALL = ReaSample(fit=Fit(batch_size=16, epochs=3))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# Class form, by hand.


def test_the_first_step_at_the_threshold() -> None:
    assert first([0.0, 0.5, 0.9, 0.2], 0.9, 75) == 3
    assert first([1.0], 0.9, 75) == 1
    assert first([0.0, 0.89], 0.9, 75) == 75
    assert first(iter(()), 0.9, 75) == 75, "a rate that diverges at once reaches nothing"


def test_a_class_that_never_was_is_made_by_one_permutation() -> None:
    task, data = Classification(), blobs(6, 4, 0)
    moved = shuffled(task, data)
    assert [label for _, label in moved] == [label for _, label in data]
    for (new, _), (old, _) in zip(moved, data, strict=True):
        assert new.shape == old.shape
        assert torch.equal(new.flatten().sort().values, old.flatten().sort().values), "the same values"
        assert not torch.equal(new, old)
    places = torch.arange(16.0).view(1, 4, 4) / 16
    ((first_moved, _),) = shuffled(task, [(places, 0)])
    for (new, _), (old, _) in zip(moved, data, strict=True):
        assert torch.equal(new.flatten(), old.flatten()[(first_moved.flatten() * 16).long()]), "in the same places"


def test_unseen_examples_get_the_labels_of_the_probe() -> None:
    task, probe, unseen = Classification(), blobs(3, 4, 0), blobs(5, 1, 1)
    found = relabelled(task, unseen, probe)
    assert [label for _, label in found] == [0, 1, 2]
    assert all(torch.equal(new, old) for (new, _), (old, _) in zip(found, unseen, strict=False))
    with pytest.raises(BadInput, match=r"ReaClass: expected at least 3 unseen examples.*got 2"):
        relabelled(task, unseen[:2], probe)


def test_batches_are_joined() -> None:
    task = Classification()
    one, more = task.collate(blobs(1, 4, 0)), task.collate(blobs(3, 4, 1))
    both = concatenated([one, more])
    assert both["targets"].tolist() == [0, 0, 1, 2]
    assert torch.equal(both["inputs"][:1], one["inputs"])


class Watched(Classification):
    """Keeps the labels of every batch that a model in training mode is shown."""

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        if model.training:
            SHOWN.append(batch)
        return super().rows(model, batch)


SHOWN: list[Batch] = []


def test_a_step_is_one_example_of_the_probe_and_fourteen_of_retain(class_world: World) -> None:
    """The probe's examples come round in order, for retain holds none of class 0."""
    w, attack = class_world, ReaClass(share=0.25, steps=12, learning_rates=(0.01, 0.005))
    SHOWN.clear()
    found = [
        (one.budget, one.variant, len(one.tested[0]))
        for one in running.attacked(attack, w.original, replace(w, task=Watched()))
    ]
    assert found == [(k, f"lr={rate:g}", 10) for rate in (0.01, 0.005) for k in range(1, 13)]
    assert all(batch["targets"].eq(0).sum() == 1 for batch in SHOWN)
    assert [len(batch["targets"]) for batch in SHOWN[:8]] == [15] * 8
    probe = [digest(item[0]) for item in iterate(draw_of(attack, w).pool.taught)]
    met = [digest(batch["inputs"][0]) for batch in SHOWN]
    assert met == 2 * (probe + probe[:2])


def test_the_recipe_is_the_papers() -> None:
    attack = ReaClass()
    assert attack.learning_rates == (0.001, 0.005, 0.006, 0.01, 0.012)
    assert (attack.steps, attack.threshold, attack.share) == (75, 0.9, 0.03)
    assert (attack.fit.optimizer, attack.fit.momentum, attack.fit.weight_decay, attack.fit.batch_size) == (
        "sgd", 0.9, 0.0, 14,
    )  # fmt: skip


# Class form, its laws and controls.


def test_the_model_is_left_alone_and_the_seed_decides(class_world: World) -> None:
    w, attack = class_world, replace(QUICK, steps=5)
    before, modes = state(w.retrained[0]), [m.training for m in w.retrained[0].modules()]

    def run(seed: int) -> list[tuple[float, str, float]]:
        steps = running.attacked(attack, w.retrained[0], w, seed)
        return [(one.budget, one.variant, float(sum(p.sum() for p in one.model.parameters()).item())) for one in steps]  # type: ignore[union-attr]

    assert run(0) == run(0) != run(1)
    assert same(before, state(w.retrained[0]))
    assert modes == [m.training for m in w.retrained[0].modules()]


def test_memory_comes_back_sooner_than_a_class_that_never_was(class_world: World) -> None:
    """Positive control: the original behind a spoilt head. Negative control: models that never met the class."""
    w = class_world
    hidden = QUICK.disguise(w.original, job_of(w))
    assert hidden is not None
    assert 0.2 < accuracy(hidden, w.task, w.request.forget).mean() < 0.8
    moved = {name for name, value in state(hidden).items() if not torch.equal(value, w.original.state_dict()[name])}
    assert moved == {"6.weight", "6.bias"}
    known = QUICK.statistic(hidden, job_of(w))
    assert list(known) == [0.006, 0.012]
    assert min(known.values()) > 3
    attack = replace(QUICK, share=0.5, learning_rates=(0.012,))
    assert attack.statistic(hidden, job_of(w))[0.012] > 3
    never = [list(attack.statistic(m, job_of(w)).values()) for m in w.retrained]
    assert np.mean(never) < 1


def test_real_unseen_examples_may_be_the_control(class_world: World) -> None:
    """Others of the class come back as fast as the probe where the class is only hidden; shuffled inputs do not."""
    w, attack = class_world, replace(QUICK, learning_rates=(0.012,))
    hidden = QUICK.disguise(w.original, job_of(w))
    assert hidden is not None
    alike = list(iterate(w.request.holdout))
    real = attack.statistic(hidden, job_of(w), unseen=alike)[0.012]
    shuffled = attack.statistic(hidden, job_of(w))[0.012]
    assert abs(real) <= 2
    assert shuffled >= 4


def test_the_harness_shows_both_beside_each_other(class_world: World, samples_world: World) -> None:
    w, attack = class_world, replace(QUICK, learning_rates=(0.012,), steps=40)
    setting = Setting(Models(w.original, w.retrained[0], w.retrained[1:]), w.request, w.task, 0, CPU)
    report = score_finding(attack, setting).report
    assert report.name == "rea_class_0.25"
    assert report.positive_holds is True, report.positive_control
    assert report.negative_holds is True, report.negative_control
    lines = {line.role: line for line in report.curves[0].series}
    assert lines["unlearned on shuffled inputs"].x == list(range(41))
    assert lines["original"].y[0] == 1
    other = score_finding(attack, replace(setting, request=samples_world.request))
    assert other.measurements[0].unlearned.value is None
    assert "works on class requests" in other.report.note


def test_the_control_meets_shuffled_inputs_and_is_measured_on_them(class_world: World) -> None:
    """Not on the probe, whose examples it shares nothing with but labels."""
    w, attack = class_world, replace(QUICK, learning_rates=(0.012,), steps=12)
    beside = attack.contrast()
    assert beside is not None
    split, control = beside
    assert split == "shuffled inputs"
    pool = draw_of(attack, w).pool
    probe: Any = pool.taught
    assert draw_of(control, w).pool.taught.indices == probe.indices  # type: ignore[attr-defined]
    assert pool.tested[0].indices == probe.indices  # type: ignore[attr-defined]
    moved = shuffled(w.task, probe)
    met: dict[str, list[str]] = {}
    for name, one in (("probe", attack), ("control", control)):
        SHOWN.clear()
        last = running.attacked(one, w.original, replace(w, task=Watched()))[-1]
        met[name] = [digest(batch["inputs"][0]) for batch in SHOWN]
        asked = probe if one is attack else moved
        expected = accuracy(last.model, w.task, asked)
        assert one.success(last.model, w.task, last.tested[0]).shown.tolist() == expected.tolist()
    assert met["control"] == [digest(moved[i % 10][0]) for i in range(12)]
    assert met["probe"] == [digest(probe[i % 10][0]) for i in range(12)]
    assert not set(met["control"]) & set(met["probe"])
    assert (
        control.success(w.original, w.task, probe).shown.mean() < attack.success(w.original, w.task, probe).shown.mean()
    )
    assert control.contrast() is None


def test_a_rate_that_diverges_reaches_nothing(class_world: World) -> None:
    w, attack = class_world, replace(QUICK, learning_rates=(1e30,), steps=4)
    assert len(running.attacked(attack, w.original, w)) < 4
    assert attack.statistic(w.retrained[0], job_of(w)) == {1e30: 0}


class Mixing(Classification):
    """One that says its rows depend on the batch."""

    rows_depend_on_batch = True


def test_it_needs_inputs_that_can_be_moved(class_world: World) -> None:
    w = class_world
    for task, why in ((CausalLM(word_tokenizer(), template=None), "continuous inputs"), (Mixing(), "its batch")):
        with pytest.raises(NotSupported, match=why):
            list(QUICK.recover(w.original, draw_of(QUICK, w).pool, setting_of(replace(w, task=task))))
        with pytest.raises(NotSupported, match=why):
            QUICK.statistic(w.original, job_of(w, task=task))


# Sample form.


def test_the_copy_is_fine_tuned_on_retain_at_each_rate(samples_world: World) -> None:
    w, attack = samples_world, replace(SMALL, learning_rates=(0.02, 0.01))
    before = state(w.original)
    extra = attack.extra_signals(w.original, job_of(w, seed=7))
    assert same(before, state(w.original))
    generator, student = seeded(7), copy.deepcopy(w.original)

    def loss(model: nn.Module, drawn: Batches) -> torch.Tensor:
        return w.task.rows(model, drawn["retain"]).losses().mean()

    for rate in (0.02, 0.01):
        recipe = Fit(lr=rate, batch_size=16, epochs=3)
        fit(student, w.task, Phase(loss, {"retain": w.request.retain}, recipe), generator, CPU)
    assert set(extra) == {"forget", "holdout"}
    for split, found in extra.items():
        assert found == pytest.approx(observe(student, w.task, w.request[split]).loss)
    again = attack.extra_signals(w.original, job_of(w, seed=7))
    assert all(np.array_equal(extra[split], again[split]) for split in extra)


def test_the_score_is_liras_of_the_copy(samples_world: World) -> None:
    w = samples_world
    one = setting_of(w).evidence["unlearned"]
    plain = {split: one.signals[split].loss for split in ("forget", "holdout")}
    for split in ("forget", "holdout"):
        unmoved = ReaSample().score(replace(one, extra=plain), split)  # type: ignore[arg-type]
        assert unmoved == pytest.approx(Lira().score(one, split))  # type: ignore[arg-type]
    surer = {**plain, "forget": plain["forget"] / 10}
    assert (ReaSample().score(replace(one, extra=surer), "forget") > Lira().score(one, "forget")).all()


def test_the_recipe_of_the_sample_form_is_the_papers() -> None:
    attack = ReaSample()
    assert attack.learning_rates == (0.01, 0.005)
    assert (attack.fit.batch_size, attack.fit.epochs, attack.fit.momentum, attack.fit.weight_decay) == (
        256,
        3,
        0.9,
        5e-4,
    )


def test_retain_alone_brings_back_what_statistics_hid(samples_world: World) -> None:
    """A positive control, and a negative one: retrained models have nothing to be reminded of."""
    w, drifted = samples_world, copy.deepcopy(samples_world.original)
    for norm in batchnorms(drifted):
        assert norm.running_mean is not None
        norm.running_mean += 1.5 * torch.randn(norm.running_mean.shape, generator=seeded(1))
    hidden = observe(drifted, w.task, w.request.forget).loss.mean()
    shown = SMALL.extra_signals(drifted, job_of(w))["forget"].mean()
    unmet = SMALL.extra_signals(w.retrained[0], job_of(w))["forget"].mean()
    assert shown < 0.5 * hidden
    assert shown < 0.5 * unmet
    report = score_finding(SMALL, setting_of(w, drifted)).report
    assert report.positive_holds is True, report.positive_control
    assert report.negative_holds is True, report.negative_control


def test_what_the_sample_form_lacks_is_said(samples_world: World) -> None:
    w = samples_world
    setting = setting_of(replace(w, retrained=w.retrained[:1]))
    assert "at least 2 retrained models" in score_finding(SMALL, setting).measurements[0].unlearned.note
    without = replace(w.request, holdout=Absent("no holdout here"))
    with pytest.raises(MissingReference, match="no holdout here"):
        SMALL.extra_signals(w.original, job_of(w, request=without))
    with pytest.raises(NotSupported, match="ReaSample: expected rates at which fine-tuning stays finite"):
        replace(SMALL, learning_rates=(1e30,)).extra_signals(w.original, job_of(w))
    one: Any = setting.evidence["unlearned"]
    with pytest.raises(NotSupported, match="got 'test'"):
        SMALL.score(one, "test")
