"""What only real data can show; runs where UNRECALL_DATA names a folder that has them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from unrecall.data.examples import Selection
from unrecall.data.request import Request
from unrecall.methods.roka import ROKA
from unrecall.methods.rurk import RURK
from unrecall.models.observe import accuracy, observe
from unrecall.scenarios import Cifar10, SmallCifar5
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

DATA = Path(os.environ.get("UNRECALL_DATA", "/nowhere"))
WEIGHTS = DATA / "resnet_cifar10" / "resnet20-12fca82f.th"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (DATA / "cifar10").is_dir() or not WEIGHTS.is_file(), reason="UNRECALL_DATA has no CIFAR-10"
    ),
]


def test_the_pretrained_resnet_knows_cifar10() -> None:
    case = Cifar10(data=str(DATA), weights=str(WEIGHTS), arch="resnet20").make()
    assert case.original is not None
    assert {len(case.request[s]) for s in ("forget", "retain")} == {2500, 47500}
    assert accuracy(case.original, case.task, Selection(case.request.test, range(500))).mean() > 0.88
    assert accuracy(case.original, case.task, Selection(case.request.forget, range(200))).mean() > 0.97


def test_small_cifar5_is_the_papers() -> None:
    case = SmallCifar5(data=str(DATA), weights=str(WEIGHTS), arch="resnet20").make()
    assert {s: len(case.request[s]) for s in ("forget", "retain", "test")} == {
        "forget": 100,
        "retain": 900,
        "test": 1000,
    }
    assert all(case.request.forget[i][1] == 0 for i in range(100))


def test_rurk_makes_the_real_resnet_forget_more_than_it_loses() -> None:
    case = Cifar10(data=str(DATA), weights=str(WEIGHTS), arch="resnet20").make()
    whole, session = case.request, Session(device="cpu")
    assert case.original is not None
    request = Request(
        forget=Selection(whole.forget, range(96)),
        retain=Selection(whole.retain, range(0, len(whole.retain), 120)),
        holdout=Selection(whole.holdout, range(50)),
        test=Selection(whole.test, range(0, len(whole.test), 50)),
    )
    case.task.check(case.original, request)
    method = RURK(lambda_f=0.3, lambda_a=0.3)
    changed = method.unlearn(case.original, Job(request, case.task, seeded(0), session))
    lost = {
        split: accuracy(case.original, case.task, request[split]).mean()
        - accuracy(changed, case.task, request[split]).mean()
        for split in ("forget", "retain")
    }
    assert lost["forget"] > 0.2
    assert lost["retain"] < 0.5 * lost["forget"]


def test_a_small_vit_learns_a_few_real_pictures_and_unlearns_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained through the scenario on 32 pictures of class 0 and 64 others, 12 steps; then ROKA, 4 steps."""
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path))
    case, session = Cifar10(data=str(DATA), arch="small-vit", forget="class:0").make(), Session(device="cpu")
    whole = case.request
    assert (len(whole.forget) + len(whole.retain), whole.kind, case.original) == (40_000, "class", None)
    assert case.recipe is not None
    request = replace(
        whole,
        forget=Selection(whole.forget, range(32)),
        retain=Selection(whole.retain, range(64)),
        holdout=Selection(whole.holdout, range(32)),
        test=Selection(whole.test, range(32)),
    )
    case = replace(case, request=request, recipe=replace(case.recipe, epochs=4, batch_size=32, schedule="constant"))
    original = case.train_original(0, session).model
    assert accuracy(original, case.task, request.forget).mean() > 0.5
    method = ROKA(fit=replace(ROKA().fit, steps=4, lr=0.02, batch_size=32))
    changed = method.unlearn(original, Job(request, case.task, seeded(0), session))
    losses = {
        split: observe(changed, case.task, request[split]).loss.mean()
        - observe(original, case.task, request[split]).loss.mean()
        for split in ("forget", "retain")
    }
    assert losses["forget"] > 0.1
    assert losses["retain"] < losses["forget"]
