"""The whole line in one call: what it takes, what it says before it starts, and what it gives."""

from pathlib import Path
from typing import Any

import pytest
import torch

import unrecall as ur
from tests.worlds import CPU, World
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput
from unrecall.training.session import Session

SHOWN = Session(device="cpu", show=True)


def test_a_model_a_request_and_a_line_are_enough(samples_world: World, tmp_path: Path) -> None:
    w, before = samples_world, digest_of(samples_world.original)
    one, two = ([w.retrained[0]], list(w.retrained[:2]))
    rest: dict[str, Any] = {"tune": False, "session": CPU}
    outcome = ur.forget(w.original, w.request, "random_label:lr=0.01", attacks="loss", retrained=two, **rest)
    assert outcome.record.method == "random_label:lr=0.01"
    assert (outcome.record.verdict.basis, outcome.record.tuning) == ("retrained", None)
    assert outcome.record.provenance.weights["unlearned"] == digest_of(outcome.model) != before == digest_of(w.original)
    outcome.page(tmp_path / "audit.html")
    ur.report.write(outcome.record, tmp_path / "same.html")
    assert "Random" in (tmp_path / "audit.html").read_text(encoding="utf-8")
    single = ur.forget(
        w.original,
        w.request,
        ur.methods.RandomLabel(),
        attacks=["loss"],
        tune=False,
        retrained=w.retrained[0],
        session=CPU,
        name="shop",
    )
    assert " on shop: did it forget?" in ur.report.page([single.record])
    listed = ur.forget(
        w.original, w.request, "random_label", attacks=ur.suite("loss"), tune=False, retrained=one, session=CPU
    )
    assert single.record.comparable() == listed.record.model_copy(update={"scenario": "shop"}).comparable()
    assert single.record.verdict.basis == "never trained"


def test_the_strength_is_searched_where_that_can_be(samples_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    w = samples_world
    outcome = ur.forget(w.original, w.request, "ssd", attacks="loss", session=CPU)
    assert outcome.record.tuning is not None
    assert outcome.record.sizes["holdout"] == 20
    assert capsys.readouterr().err == "", "a session decides what is shown"
    bare = ur.Request(w.request.forget, w.request.retain)
    for method, why in (
        ("ssd", "expected a validation set or at least 4 holdout"),
        ("eu_k", "EUk has no strength"),
    ):
        assert ur.forget(w.original, bare, method, attacks="loss", session=SHOWN).record.tuning is None
        said = capsys.readouterr().err
        assert f"not tuned: {why}" in said
        assert "note: no holdout was given" in said
        assert "note: no test set was given" in said
        assert "note: no verdict: that needs a holdout of 4 at least, got 0. Two models" in said
        assert said.splitlines()[-1].startswith("Not judged beside records never trained on: no holdout was given")


def test_a_class_says_that_no_holdout_would_do(class_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    w = class_world
    ur.forget(w.original, w.request, "ssd", attacks="loss", tune=False, session=SHOWN)
    said = capsys.readouterr().err
    assert "note: no verdict: a whole class must go, which forget and holdout share. Two models" in said
    request = ur.Request(w.request.forget, w.request.retain, kind="class", masked=w.request.masked)
    outcome = ur.forget(w.original, request, "ssd", attacks="loss", tune=False, session=SHOWN)
    assert "note: no verdict: a whole class must go, which a holdout would share. Two models" in capsys.readouterr().err
    assert "which a holdout would share. Stated: of forget" in outcome.record.verdict.line


def test_what_tuning_takes_of_the_holdout_counts(samples_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    w = samples_world
    request = ur.Request(w.request.forget, w.request.retain, [w.request.holdout[i] for i in range(6)])
    ur.forget(w.original, request, "ssd", attacks="loss", session=SHOWN)
    assert "note: no verdict: that needs a holdout of 4 at least, got 3. Two models" in capsys.readouterr().err
    ur.forget(w.original, request, "ssd", attacks="loss", tune=False, session=SHOWN)
    assert "note: no verdict" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "scrab"}, r"unknown method 'scrab'\. Did you mean 'scrub'"),
        ({"method": ur.methods.SCRUB}, "forget: expected method to be a method or its line"),
        ({"request": [1]}, "forget: expected request to be a Request"),
        (
            {"model": "a.pt"},
            r"forget: expected model to be a trained torch\.nn\.Module, got 'a\.pt'\. Load the file's weig",
        ),
        (
            {"model": {"fc.weight": 0}},
            r"forget: expected model .*, got dict\. Load the weights into the network, model\.lo",
        ),
        ({"model": None}, r"forget: expected model .*, got NoneType\. Build the network"),
        ({"retrained": 3}, "forget: expected retrained to be a model, or a list of models"),
        ({"attacks": "los"}, r"unknown attack 'los'\. Did you mean 'loss'"),
        ({"attacks": 3}, "attacks: expected a suite, names or attacks"),
        ({"task": ur.tasks.Classification}, "forget: expected task to be a Task"),
        ({"seed": "x"}, "forget: expected seed to be a whole number from 0"),
        ({"seed": -1}, "forget: expected seed to be a whole number from 0"),
    ],
)
def test_what_is_none_of_it_is_refused(samples_world: World, changed: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"model": samples_world.original, "request": samples_world.request, "method": "ssd"}
    with pytest.raises(BadInput, match=message):
        ur.forget(**{**usual, **changed})


def test_inputs_of_another_range_are_taken_as_they_lie(samples_world: World) -> None:
    w = samples_world

    class Pixels(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs / 255

    large = ur.Request(*([(255 * x, y) for x, y in w.request[s]] for s in ("forget", "retain", "holdout", "test")))  # type: ignore[attr-defined]
    outcome = ur.forget(
        torch.nn.Sequential(Pixels(), w.original), large, "rurk", attacks="loss", tune=False, session=CPU
    )
    assert outcome.record.measurement("forget_accuracy").original.value == 1.0  # type: ignore[union-attr]


def test_an_input_that_is_no_number_is_named(samples_world: World) -> None:
    w, nan = samples_world, torch.tensor(torch.nan)
    forget: list[Any] = [w.request.forget[i] for i in range(len(w.request.forget))]
    for broken in ([5], range(len(forget)), [3, 4]):
        sets = [(nan * x, y) if i in broken else (x, y) for i, (x, y) in enumerate(forget)]
        with pytest.raises(BadInput, match=rf"^forget\[{broken[0]}\]: expected finite inputs, got NaN or infinity\."):
            ur.forget(w.original, ur.Request(sets, w.request.retain), "ssd", attacks="loss", session=CPU)
