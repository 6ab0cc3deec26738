"""Tampered records and folders: `check` refuses or doubts each, or docs/checks.md says that it can't see it."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.fuzz import called, standing
from tests.end_to_end.tampering import WAYS, one_leaf, written
from tests.end_to_end.test_cli import CASE, METHOD, WHO
from tests.worlds import facts, small_llama, word_tokenizer
from unrecall.disk.weights import read
from unrecall.errors import BadInput
from unrecall.harness.checking import check

SUITE = (
    "loss rmia recalibration:counts=16 svc relearn:steps=1+4,learning_rates=0.01 residual_knowledge:points=3,draws=5"
)
DRAWS = range(4)
UNSEEN = {
    "what a record is called": r"scenario|scenario_summary"
    r"|.*\.(title|name|note|reference|labels\.\*)",
    "of which schema it is, where two read it alike": r"schema_version",
    "what a paper reports": r"reported",
    "parameters of attacks": r"attacks\.\*\.parameters.*",
    "where it was made": r"provenance\.(created|command|commit|device|fingerprint|versions\..*|identity\..*)",
    "what original and retrained models cost": r"costs\.(original|retrained)\..*|costs\.unlearned\.notes.*",
    "figures whose scores are not kept": r"attacks\.\*\.curves.*"
    r"|measurements\.\*\.(original|null|references\.\*|unlearned|undefined).*",
    "controls": r"attacks\.\*\.(positive|negative)_.*",
}
"""What docs/checks.md says that a check can't see, and the places in a record."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a real record, its scores and its checkpoint."""
    folder = tmp_path_factory.mktemp("honest") / "work"
    folder.mkdir()
    (folder / "case.py").write_text(CASE)
    with standing(folder):
        outcome = called(["run", *WHO, "--method", METHOD, "--suite", SUITE, "--out", "out"])
    assert outcome.code == 0, outcome
    return folder / "out" / "seed-0"


def off(folder: Path) -> list[str]:
    """What is off about the record in a folder; the reason alone where it is refused."""
    try:
        return check(folder / "record.json").problems
    except BadInput as error:
        return [str(error)]


def test_the_record_that_is_tampered_with_holds(honest: Path) -> None:
    assert off(honest) == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_tampered_with_is_refused_or_doubted(way: Callable[..., None], honest: Path, tmp_path: Path) -> None:
    for draw in DRAWS:
        folder = Path(shutil.copytree(honest, tmp_path / str(draw)))
        data: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        way(data, random.Random(f"{way.__name__} {draw}"), folder)
        written(data, folder)
        assert off(folder), draw


def test_any_single_value_is_checked_or_listed_as_what_a_check_can_not_see(honest: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(honest, tmp_path / "folder"))
    text, seen = (folder / "record.json").read_text(encoding="utf-8"), 0
    for draw in range(200):
        data = json.loads(text)
        place = one_leaf(data, random.Random(draw))
        written(data, folder)
        found = off(folder)
        seen += bool(found)
        assert found or any(re.fullmatch(pattern, place) for pattern in UNSEEN.values()), place
    assert seen >= 100


def test_the_documentation_lists_what_a_check_can_not_see() -> None:
    home = Path(__file__).parents[2]
    listed = (home / "docs" / "checks.md").read_text(encoding="utf-8").partition("## What `check` can't see")[2]
    assert all(f"**{what}**" in listed for what in UNSEEN)


def test_an_exported_folder_must_hold_the_weights_that_were_audited(tmp_path: Path) -> None:
    tokenizer, work = word_tokenizer(), tmp_path / "work"
    work.mkdir()
    tokenizer.save_pretrained(work / "lm")
    small_llama(len(tokenizer)).save_pretrained(work / "lm")
    for name, part in (("f", facts()[:6]), ("r", facts()[6:20])):
        lines = [json.dumps({"question": fact["prompt"], "answer": fact["answer"]}) for fact in part]
        (work / f"{name}.jsonl").write_text("\n".join(lines))
    own = [
        "--model",
        "lm",
        "--forget",
        "f.jsonl",
        "--retain",
        "r.jsonl",
        "--device",
        "cpu",
        "--anyway",
    ]
    with standing(work):
        assert (
            called(["run", *own, "--method", "grad_ascent:epochs=1", "--suite", "quantise", "--out", "out"]).code == 0
        )
    folder = work / "out" / "seed-0"
    assert off(folder) == []
    assert read(folder / "unlearned")
    shutil.copy(work / "lm" / "model.safetensors", folder / "unlearned" / "model.safetensors")
    (problem,) = off(folder)
    assert problem == "unlearned: its weights are not those that were audited."
    (folder / "unlearned" / "model.safetensors").write_bytes(b"cut")
    (problem,) = off(folder)
    assert "unlearned: expected a Transformers model in safetensors" in problem
