"""The few lines of the README, on somebody's own model and data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unrecall as ur
from tests.worlds import World, blobs, network, train
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput
from unrecall.harness.suites import Suite
from unrecall.training.job import Job
from unrecall.training.session import Session

FAST = ("recalibration", "rmia", "loss")


def fast() -> Suite:
    return ur.suite(*FAST)


def test_own_model_and_data_in_a_few_lines(tmp_path: Path) -> None:
    data, unseen = blobs(120, 4, 1), blobs(120, 4, 2)
    forget, retain = data[:16], data[16:]
    model, again = train(data, 0), [train(retain, 1), train(retain, 2)]
    request = ur.Request(forget=forget, retain=retain, holdout=unseen[:40], test=unseen[40:])
    task = ur.tasks.Classification()
    unlearned = ur.methods.RURK(tau=0.03).unlearn(model, Job(request, task, torch.Generator().manual_seed(0)))
    before = [digest_of(m) for m in (model, unlearned, *again)]
    record = ur.audit(
        original=model,
        unlearned=unlearned,
        retrained=again,
        request=request,
        task=task,
        attacks=fast(),
        seed=np.int64(1),
    )
    assert (record.method, record.method_title, record.parameters) == ("not stated", "An unlearned model", {})
    ur.report.write([record], tmp_path / "audit.html")
    assert "An unlearned model" in (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert (tmp_path / "audit.html").stat().st_size > 10_000
    assert isinstance(record, ur.Record)
    assert all(isinstance(m, ur.Measurement) for m in record.measurements)
    assert before == [digest_of(m) for m in (model, unlearned, *again)], "the models are left as they were"
    assert record.provenance.weights["unlearned"] == before[1]
    assert record.sizes == {"forget": 16, "retain": 104, "holdout": 40, "test": 80}


def test_a_record_names_the_method_that_it_was_told(samples_world: World, tmp_path: Path) -> None:
    w, method = samples_world, ur.methods.RURK(tau=0.05)
    record = ur.audit(
        original=w.original, unlearned=w.original, request=w.request, task=w.task, attacks=fast(), method=method,
        run=ur.Run(scenario="mine", reported={"forget_accuracy": 0.5}),
    )  # fmt: skip
    assert (record.method, record.method_title) == ("rurk:tau=0.05", ur.methods.RURK.title)
    assert record.parameters == method.as_dict()
    assert (record.scenario, record.reported) == ("mine", {"forget_accuracy": 0.5})
    ur.report.write([record], tmp_path / "audit.html")
    assert f"{ur.methods.RURK.title} on mine" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_names_stay_what_they_are_whatever_was_imported_before() -> None:

    assert callable(ur.audit)
    assert callable(ur.audit)
    for name in ur.__all__:
        assert getattr(ur, name) is getattr(ur, name)
    with pytest.raises(AttributeError, match="no attribute 'adit'"):
        ur.adit  # noqa: B018


def test_an_audit_is_repeatable_and_needs_no_retrained_model(samples_world: World) -> None:
    w = samples_world

    def once(*retrained: nn.Module, seed: int = 0) -> ur.Record:
        return ur.audit(
            original=w.original, unlearned=w.original, retrained=retrained, request=w.request, task=w.task,
            attacks=fast(), seed=seed, session=Session(device="cpu"),
        )  # fmt: skip

    assert once(*w.retrained).comparable() == once(*w.retrained).comparable()
    bare = once()
    assert (bare.verdict.label, bare.verdict.basis) == ("unchanged", "never trained")
    assert "unchanged" in {doubt.id for doubt in bare.doubts}
    rmia = bare.measurement("rmia_auc")
    assert rmia is not None
    assert rmia.unlearned.value is None
    assert "expected at least 1 retrained model" in rmia.unlearned.note


def test_a_model_that_forgot_nothing_leaks(class_world: World) -> None:
    w = class_world
    record = ur.audit(
        original=w.original, unlearned=w.original, retrained=w.retrained, request=w.request, task=w.task, attacks=fast()
    )
    assert record.verdict.label == "leaks"
    assert record.verdict.counts["leaks"] >= 2, record.verdict.line


def test_a_retrained_model_passes_an_audit(samples_world: World) -> None:
    w = samples_world
    first, *others = w.retrained
    record = ur.audit(
        original=w.original, unlearned=first, retrained=others, request=w.request, task=w.task, attacks=fast()
    )
    assert record.verdict.label not in ("leaks", "over-forgets")


@pytest.mark.parametrize("role", ["original", "unlearned", "retrained"])
def test_models_that_do_not_fit_are_refused_before_anything_is_measured(samples_world: World, role: str) -> None:
    w = samples_world
    models = {"original": w.original, "unlearned": w.original, "retrained": w.retrained[0]}
    models[role] = nn.Sequential(network(), nn.Softmax(1))
    with pytest.raises(BadInput, match="expected logits, got probabilities"):
        ur.audit(
            original=models["original"], unlearned=models["unlearned"], retrained=[models["retrained"]],
            request=w.request, task=w.task,
        )  # fmt: skip
