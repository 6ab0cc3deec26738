"""What is constant over an audit: who is held against whom, and that each model is asked once."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, World, network
from unrecall.data.examples import Absent
from unrecall.data.request import Split
from unrecall.data.signals import View
from unrecall.errors import BadInput, MissingReference
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import audit
from unrecall.harness.checking import _counts
from unrecall.models.observe import observe
from unrecall.record.schema import Record
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.session import Session


def setting_of(world: World, session: Session = CPU, **changes: Any) -> Setting:
    models = Models(world.original, world.retrained[0], world.retrained[1:], world.original)
    return Setting(models, replace(world.request, **changes), world.task, 0, session)


class Passes:
    """Counts the forward passes of models while it lasts."""

    def __init__(self, *models: nn.Module) -> None:
        self.count = 0
        self.handles = [model.register_forward_hook(self.counted) for model in models]

    def counted(self, *_: object) -> None:
        self.count += 1

    def __enter__(self) -> "Passes":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def test_subjects_stand_in_the_order_of_a_record(samples_world: World) -> None:
    setting = setting_of(samples_world)
    assert [role for role, _ in setting.subjects] == ["original", "unlearned", "null", "retrained 0", "retrained 1"]
    assert list(Models(nn.Linear(1, 1), nn.Linear(1, 1)).by_role()) == ["original", "unlearned"]


def test_a_retrained_model_is_held_against_the_others_and_not_itself(samples_world: World) -> None:
    setting, w = setting_of(samples_world), samples_world
    first, second = (observe(model, w.task, w.request.forget).loss for model in w.retrained[1:])
    references = {
        role: [reference["forget"].loss.tolist() for reference in evidence.references]
        for role, evidence in setting.evidence.items()
    }
    both = [first.tolist(), second.tolist()]
    assert references == {
        "original": both,
        "unlearned": both,
        "null": both,
        "retrained 0": both[1:],
        "retrained 1": both[:1],
    }
    original = observe(w.original, w.task, w.request.test).loss
    assert all(np.array_equal(evidence.original["test"].loss, original) for evidence in setting.evidence.values())


def test_a_split_that_is_absent_says_so_when_it_is_read(samples_world: World) -> None:
    evidence = setting_of(samples_world, holdout=Absent("nothing was held out")).evidence["unlearned"]
    with pytest.raises(MissingReference, match="nothing was held out"):
        evidence.signals["holdout"]
    with pytest.raises(MissingReference, match="nothing was held out"):
        evidence.references[0]["holdout"]


def test_a_model_that_has_diverged_is_refused(samples_world: World) -> None:
    w = samples_world
    setting = Setting(Models(w.original, broken_copy(w.original)), w.request, w.task, 0, CPU)
    with pytest.raises(BadInput, match="unlearned: expected finite outputs, got NaN or infinity"):
        _ = setting.evidence


def broken_copy(model: nn.Module) -> nn.Module:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        list(broken.parameters())[-1].fill_(float("nan"))
    return broken


def test_every_model_is_asked_once_whatever_seed_and_role_it_has(samples_world: World) -> None:
    w = samples_world
    setting = setting_of(w)
    models = (w.original, *w.retrained)
    with Passes(*models) as passes:
        evidence = setting.evidence
    batches = sum(-(-len(w.request[split]) // w.task.at_once) for split in ("forget", "retain", "holdout", "test"))
    assert passes.count == len(models) * (batches + 1), "the null is the original, by another name; one for its key"
    with Passes(*models) as passes:
        other = setting.with_seed(7)
        assert other.evidence is evidence
        assert other.digests is setting.digests
        assert setting.with_seed(8).job().generator.initial_seed() == 8
    assert passes.count == 0
    assert (setting.seed, other.seed) == (0, 7)


def test_a_setting_with_another_task_asks_anew(samples_world: World) -> None:
    setting = setting_of(samples_world)
    assert setting.with_task(setting.task) is setting
    other = setting.with_task(type(setting.task)(classes=("a", "b", "c", "d")))  # type: ignore[call-arg]
    assert other.evidence is not setting.evidence
    assert setting.key != other.key


def test_the_next_run_reads_what_the_models_showed_from_disk(
    samples_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    session = Session(folder=tmp_path / "run", device="cpu")
    first = setting_of(samples_world, session).evidence
    with Passes(samples_world.original, *samples_world.retrained) as passes:
        second = setting_of(samples_world, session).evidence
    assert passes.count == 1 + len(samples_world.retrained), "a few answers of each model, for its key"
    for role, evidence in first.items():
        for split, signals in evidence.signals.items():
            again = second[role].signals[split]
            assert all(np.array_equal(getattr(signals, name), getattr(again, name)) for name in vars(signals))


def test_what_one_attack_looks_at_is_computed_once_a_model(samples_world: World) -> None:
    setting, calls = setting_of(samples_world), []

    def look(model: nn.Module, job: Job) -> dict[Split, np.ndarray]:
        calls.append(job.generator.initial_seed())
        return {"forget": np.array([float(len(calls))])}

    for subject in setting.subjects:
        for _ in range(2):
            evidence = setting.with_extra(subject, look, ("mine",))
            assert list(evidence.extra) == ["forget"]
    assert calls == [0] * 4, "original, unlearned and two retrained models; from the same seed for all"
    setting.with_extra(setting.subjects[0], look, ("another's",))
    assert len(calls) == 5


class Guarded(nn.Module):
    """A model behind a guard that answers class `instead` in place of class 0: other answers by the same weights."""

    def __init__(self, model: nn.Module, instead: int) -> None:
        super().__init__()
        self.model, self.instead = model, instead

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(inputs)
        moved = logits.clone()
        moved[:, self.instead] = torch.where(logits.argmax(1) == 0, logits.max(1).values + 1, moved[:, self.instead])
        return moved


def test_models_of_equal_weights_that_answer_differently_are_told_apart(samples_world: World) -> None:
    """What was kept of one must never be taken for the other's, in an audit or in the next one."""
    w = samples_world
    guarded, unguarded = Guarded(w.original, 1), Guarded(w.original, 0)
    task = Classification(head_name="model.6")
    setting = Setting(Models(unguarded, guarded), w.request, task, 0, CPU)
    assert setting.digests["original"] == setting.digests["unlearned"]
    own = observe(guarded, task, w.request.forget)
    assert np.array_equal(setting.evidence["unlearned"].signals["forget"].prediction, own.prediction)
    assert own.prediction.tolist().count(0) == 0 < setting.evidence["original"].signals["forget"].correct.sum()


@pytest.mark.parametrize(
    ("make", "who"),
    [
        (lambda w: (w.original, w.retrained[0], (w.original, w.retrained[1])), "retrained 0.*as original"),
        (lambda w: (w.original, w.retrained[0], (w.retrained[1], w.retrained[0])), "retrained 1.*as unlearned"),
        (lambda w: (w.original, w.original, (w.retrained[1],) * 5), "retrained 1.*as retrained 0"),
        (
            lambda w: (w.original, w.original, (w.retrained[1], w.retrained[2], copy.deepcopy(w.retrained[1]))),
            "retrained 2.*as retrained 0",
        ),
        (lambda w: (w.original, w.retrained[0], (copy.deepcopy(w.original),)), "retrained 0.*as original"),
        (lambda w: (w.original, w.retrained[0], (nn.DataParallel(w.original),)), "retrained 0.*as original"),
        (lambda w: (w.original, w.retrained[0], (w.retrained[1], Wrapped(w.retrained[1]))), "retrained 1.*retrained 0"),
    ],
)
def test_a_retrained_model_is_a_model_of_its_own(samples_world: World, make: Any, who: str) -> None:
    w = samples_world
    original, unlearned, retrained = make(w)
    with pytest.raises(BadInput, match=who):
        audit(original=original, unlearned=unlearned, retrained=retrained, request=w.request, task=w.task, session=CPU)


def test_weights_of_half_the_width_are_compared_as_well(samples_world: World) -> None:
    w, half = samples_world, [Cast(network(seed=i), torch.bfloat16) for i in (1, 2)]
    task = Classification(head_name="inner.6")
    Setting(Models(*half), w.request, task, 0, CPU).check_roles()
    with pytest.raises(BadInput, match="retrained 0"):
        Setting(Models(*half, (nn.Sequential(half[1]),)), w.request, task, 0, CPU).check_roles()


def counted(model: nn.Module) -> nn.Module:
    model[1].num_batches_tracked += 1  # type: ignore[index, operator]
    return model


def buffered(model: nn.Module) -> nn.Module:
    wrapped = Wrapped(model)
    wrapped.register_buffer("more", torch.ones(3))
    return wrapped


def noisy(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1e-7 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return model


def reordered(model: nn.Module) -> nn.Module:
    made = Wrapped(model)
    vars(model)["_modules"] = dict(reversed(vars(model)["_modules"].items()))
    model.forward = lambda x: run_in_order(model, x)  # type: ignore[method-assign]
    return made


def run_in_order(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for name in sorted(vars(model)["_modules"]):
        x = vars(model)["_modules"][name](x)
    return x


@pytest.mark.parametrize(
    "dress",
    [
        counted,
        buffered,
        noisy,
        reordered,
        lambda model: Cast(model, torch.float64),
        lambda model: Cast(model, torch.float16),
        lambda model: Cast(model, torch.bfloat16),
    ],
    ids=["counter", "buffer", "noise", "order", "float64", "half", "bfloat16"],
)
def test_the_original_in_another_dress_is_no_retrained_model(samples_world: World, dress: Any) -> None:
    w = samples_world
    retrained = (w.retrained[0], dress(copy.deepcopy(w.original)))
    for model in (w.original, w.retrained[1], *retrained):
        model.eval()
    setting = Setting(Models(w.original, w.retrained[1], retrained), w.request, Features(), 0, CPU)
    with pytest.raises(BadInput, match=r"got the same (answers|weights) as original"):
        setting.check_roles()


def test_models_that_were_trained_nearly_alike_are_two(samples_world: World) -> None:
    """As where there is one best model for the data, and unlearning finds it."""
    w = samples_world
    retrained = (w.retrained[0], noisy(copy.deepcopy(w.retrained[0])))
    for unlearned in (w.retrained[1], noisy(noisy(copy.deepcopy(w.retrained[0])))):
        Setting(Models(w.original, unlearned, retrained), w.request, w.task, 0, CPU).check_roles()


def test_models_that_are_certain_of_everything_are_told_apart(samples_world: World) -> None:
    w = samples_world
    sure = [Scaled(copy.deepcopy(model)) for model in (w.original, *w.retrained)]
    Setting(Models(sure[0], sure[1], tuple(sure[2:])), w.request, Features(), 0, CPU).check_roles()


@dataclass(frozen=True)
class Features(Classification):
    """Finds no head: what enters it plays no part here."""

    def view(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> View:
        rows = self.rows(model, batch)
        return View(rows, rows.logits)


class Cast(nn.Module):
    """A model in another number format, which takes and gives float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = model.to(dtype), dtype

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(inputs.to(self.dtype))
        return outputs


class Scaled(nn.Module):
    """A model that is all but certain of whatever it says."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = 20 * self.inner(inputs)
        return outputs


def test_the_null_of_a_method_that_does_nothing_is_no_reference(samples_world: World) -> None:
    w = samples_world
    Setting(Models(w.original, w.original, w.retrained, w.original), w.request, w.task, 0, CPU).check_roles()
    with pytest.raises(BadInput, match="retrained 0: expected a model of its own, got the same weights as null"):
        Setting(Models(w.original, w.original, w.retrained, w.retrained[0]), w.request, w.task, 0, CPU).check_roles()


class Wrapped(nn.Module):
    """A model by another name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(inputs)
        return outputs


def test_models_are_looked_at_on_a_sample_of_what_is_large(samples_world: World) -> None:
    w = samples_world
    setting = replace(setting_of(w), sample=20)
    whole, part = setting_of(w).evidence["original"].signals, setting.evidence["original"].signals
    assert [len(setting.observed[split]) for split in ("forget", "retain", "holdout", "test")] == [
        len(w.request.forget),
        20,
        len(w.request.holdout),
        20,
    ]
    places = setting.observed.retain.indices  # type: ignore[attr-defined]
    assert sorted(set(places)) == places and places[-1] > 20  # from all over
    assert np.allclose(part["retain"].loss, whole["retain"].loss[places])
    assert setting.key != setting_of(w).key
    assert setting.observed.digests["retain"] == [w.request.digests["retain"][i] for i in places]
    assert setting.observed.fingerprint != w.request.fingerprint


def test_an_audit_says_on_how_many_it_looked_at_models(samples_world: World) -> None:
    w = samples_world

    def record_of(sample: int | None) -> Record:
        models = {"original": w.original, "unlearned": w.retrained[0], "retrained": w.retrained[1:]}
        return audit(**models, request=w.request, task=w.task, attacks="loss svc cka", session=CPU, sample=sample)

    whole, part = record_of(None), record_of(30)
    assert whole.observed == {} and part.observed == {"retain": 30, "test": 30}
    assert whole.sizes == part.sizes
    counts = [r.measurement("retain_accuracy").unlearned.n for r in (whole, part)]  # type: ignore[union-attr]
    assert counts == [len(w.request.retain), 30]
    assert [r.measurement("forget_accuracy") for r in (whole,)] == [part.measurement("forget_accuracy")]
    assert list(_counts(part)) == list(_counts(whole)) == []
    with pytest.raises(BadInput, match="expected sample to be a number of examples from 1 on"):
        record_of(0)
