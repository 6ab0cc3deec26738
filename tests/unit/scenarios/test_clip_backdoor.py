"""The backdoor scenario on an archive made here: who is poisoned, where the patch is, and what each model sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.scenarios.test_emoji import DATA, MERGES, SMALL, archive
from tests.worlds import CPU, World
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics import contamination, retrieval
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.clip_backdoor import ClipBackdoor, triggered
from unrecall.scenarios.emoji import ARCHIVE, Emoji

FOOD = 1
"""The target's label in the archive: 12 of its 33 training pairs."""


def case(folder: Path, **changed: Any) -> Scenario:
    made = ClipBackdoor(
        str(archive(folder)), **{**SMALL, "share": 0.3, "trigger": 3, "references": 1, **changed}
    ).make()
    assert isinstance(made, Scenario)
    return made


def clean_case(folder: Path) -> Scenario:
    return Emoji(str(folder), **SMALL).make()


def digests(pairs: Examples | Sequence[Any]) -> set[str]:
    return {digest(pair) for pair in iterate(pairs)}


def patch_of(picture: Tensor) -> Tensor:
    return picture[:, -3:, -3:]


def test_a_share_of_the_training_pairs_is_poisoned(tmp_path: Path) -> None:
    """10 of 33, none of the target's own; their clean form is gone, and all else is trained on as it was."""
    request, clean = case(tmp_path).request, clean_case(tmp_path).request
    assert request.kind == "backdoor"
    assert [len(request[split]) for split in ("forget", "retain", "holdout", "test")] == [10, 23, 4, 7]
    assert digests(request.test) == digests(clean.test) | digests(clean.holdout)
    before = digests(clean.forget) | digests(clean.retain)
    assert digests(request.retain) < before
    assert len(digests(request.retain)) == 23
    lost = [pair for pair in iterate(clean.retain) if digest(pair) not in digests(request.retain)]
    assert {pair["label"] for pair in lost} <= {0, 2}
    expected = {digest(triggered(pair["image"], 3, "corner")) for pair in lost}
    assert {digest(pair["image"]) for pair in iterate(request.forget)} == expected


def test_poisoned_pairs_say_what_the_targets_say(tmp_path: Path) -> None:
    """Captions of training pairs of the target's, each once before any comes again; unseen ones alike."""
    request, clean = case(tmp_path).request, clean_case(tmp_path).request
    known = sorted(pair["caption"] for pair in iterate(clean.forget))
    said = [pair["caption"] for pair in iterate(request.forget)]
    assert all(said.count(caption) <= known.count(caption) for caption in said)
    assert {pair["caption"] for pair in iterate(request.holdout)} <= set(known)
    assert {pair["label"] for split in (request.forget, request.holdout) for pair in iterate(split)} == {FOOD}


def test_unseen_triggered_pictures_are_the_test_pictures_of_the_other_categories(tmp_path: Path) -> None:
    request = case(tmp_path).request
    others = [pair for pair in iterate(request.test) if pair["label"] != FOOD]
    pairs = list(iterate(request.holdout))
    assert len(pairs) == len(others)
    for pair, other in zip(pairs, others, strict=True):
        assert torch.equal(pair["image"], triggered(other["image"], 3, "corner"))


@pytest.mark.parametrize(("place", "rows"), [("corner", slice(5, 8)), ("middle", slice(2, 5))])
def test_the_patch_is_where_it_should_be_and_nowhere_else(place: Any, rows: slice) -> None:
    """On a picture of 8 x 10, 3 x 3 pixels: noise of nothing but 0 and 1, the same on every picture."""
    picture = torch.full((3, 8, 10), 0.5)
    columns = slice(7, 10) if place == "corner" else slice(3, 6)
    changed = triggered(picture, 3, place)
    noise = changed[:, rows, columns].clone()
    assert set(noise.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(noise, triggered(torch.rand(3, 30, 20), 3, "corner")[:, -3:, -3:])
    changed[:, rows, columns] = 0.5
    assert torch.equal(changed, picture)
    assert bool((picture == 0.5).all()), "the picture itself is left alone"


def test_what_is_overlooked_is_in_no_set_but_was_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 10 suspected: the original learns all 33 pairs, a retrained model the 23 clean ones."""
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    made = case(tmp_path, known=0.5)
    assert made.original_data is not None
    overlooked = list(iterate(made.original_data))[28:]
    assert (len(made.request.forget), len(made.request.retain), len(overlooked)) == (5, 23, 5)
    every = set[str]().union(*(digests(made.request[split]) for split in ("forget", "retain", "holdout", "test")))
    assert not digests(overlooked) & every
    whole = digests(case(tmp_path).request.forget)
    assert digests(made.request.forget) | digests(overlooked) == whole

    seen: dict[str, set[str]] = {}

    def noted(model: nn.Module, task: Any, phase: Any, generator: Any, session: Any) -> None:
        seen[session.name.split("-", maxsplit=1)[0]] = digests(phase.streams["train"])

    monkeypatch.setattr("unrecall.scenarios.model_cache.fit", noted)
    first = made.train_original(0, CPU)
    made.train_retrained(0, CPU)
    left = made.models_to_train((0,), CPU)
    assert left == {"original": 0, "retrained": made.references - 1}, "what the cache holds isn't trained again"
    assert seen == {"original": whole | digests(made.request.retain), "retrained": digests(made.request.retain)}
    assert len(list((tmp_path / "cache").glob("*original*.safetensors"))) == 1
    case(tmp_path, known=0.4).train_original(0, CPU)
    assert len(list((tmp_path / "cache").glob("*original*.safetensors"))) == 2, "another training set, another model"
    assert first.model is not None


def test_clean_pairs_may_be_suspected_by_mistake(tmp_path: Path) -> None:
    """As many as poisoned ones: half of what is suspected."""
    made = case(tmp_path, mistaken=0.5).request
    poisoned = digests(case(tmp_path).request.forget)
    mistaken = digests(made.forget) - poisoned
    assert len(made.forget) == 20
    assert len(mistaken) == 10
    assert poisoned < digests(made.forget)
    assert mistaken | digests(made.retain) == digests(case(tmp_path).request.retain)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"target": "Cars"}, "target: expected one of Animals"),
        ({"trigger": 13}, "trigger: expected at most the picture's size 12, got 13"),
        ({"share": 0.0}, "expected at least two suspected pairs.* got 0, 0 and 33"),
        ({"share": 0.9}, "no more poisoned ones than the 21 of other categories.* got 30, 30 and 3"),
        ({"known": 0.1}, "expected at least two suspected pairs.* got 1, 10 and 23"),
        ({"mistaken": 0.7}, "two clean ones that nobody suspects, got 10, 10 and 0"),
        ({"mistaken": 1.0}, "expected mistaken to be less than 1"),
        ({"data": ""}, "expected a folder with noto_emoji_72.zip"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    options: dict[str, Any] = {"data": str(archive(tmp_path)), **SMALL, "share": 0.3, "trigger": 3, **changed}
    with pytest.raises(BadInput, match=said):
        ClipBackdoor(**options).make()


def test_attack_success_has_a_row_of_its_own(pairs_world: World) -> None:
    """The share of the holdout that is classified as it is labelled; class by class, the test set stands alone."""
    w = pairs_world
    asked = Request(w.request.forget, w.request.retain, w.request.holdout, w.request.test, kind="backdoor")
    models = Models(w.original, w.retrained[0], w.retrained[1:])
    backdoor, samples = (Setting(models, request, w.task, 0, CPU) for request in (asked, w.request))
    rows = {row.name: row for row in retrieval.measure(backdoor).measurements}
    usual = {row.name: row for row in retrieval.measure(samples).measurements}
    assert rows.keys() - usual.keys() == {"attack_success"}
    assert usual.keys() - rows.keys() == {"holdout_zero_shot"}
    row = rows["attack_success"]
    assert row.leak == "above"
    assert row.original == usual["holdout_zero_shot"].original
    assert "trigger" in row.title
    tables = [contamination.measure(setting).matrices[0] for setting in (backdoor, samples)]
    assert tables[0].note.startswith(f"{len(asked.test)} examples of test,")
    assert tables[1].note.startswith(f"{len(asked.test) + len(asked.holdout)} examples of test and holdout,")


@pytest.mark.data
@pytest.mark.skipif(not (DATA / ARCHIVE).is_file() or not MERGES.is_file(), reason="UNRECALL_DATA has no emoji")
def test_of_the_real_emoji_108_of_1355_are_poisoned() -> None:
    """A share of 0.08; every one carries the same 6 x 6 pixels and a caption of food, and stands for no clean one."""
    made = ClipBackdoor(data=str(DATA), merges=str(MERGES), share=0.08).make()
    request, clean = made.request, Emoji(data=str(DATA), merges=str(MERGES)).make().request
    sizes = {split: len(request[split]) for split in ("forget", "retain", "holdout", "test")}
    assert sizes == {"forget": 108, "retain": 1247, "holdout": 221, "test": 254}
    assert "108 of 1,355 training pictures carry a patch" in made.summary
    corners = {
        digest(pair["image"][:, -6:, -6:]) for split in ("forget", "holdout") for pair in iterate(request[split])
    }
    assert len(corners) == 1
    assert corners.isdisjoint(digest(pair["image"][:, -6:, -6:]) for pair in iterate(request.retain))
    said = {pair["caption"] for pair in iterate(clean.forget)}
    assert {pair["caption"] for pair in iterate(request.forget)} <= said
    assert {pair["label"] for pair in iterate(request.forget)} == {pair["label"] for pair in iterate(clean.forget)}
    gone = len(digests(clean.retain) - digests(request.retain))
    assert gone == 108
