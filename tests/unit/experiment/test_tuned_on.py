"""A tuned checkpoint says what it was tuned on, or that nobody can say it any more."""

import shutil
from pathlib import Path

import pytest
from torch import nn

from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.experiment.tuned_on import KEY, TUNED_ON, leave, notes, tuned_on

DIGESTS = ["ab" * 32, "cd" * 32]


def left(folder: Path, digests: list[str] = DIGESTS) -> Path:
    """The checkpoint of a run, alone and in a model's folder."""
    (folder / "unlearned").mkdir(parents=True)
    weights.save(nn.Linear(2, 2), folder / "unlearned" / "model.safetensors")
    weights.save(nn.Linear(2, 2), folder / "unlearned.safetensors", notes(digests))
    leave(digests, folder)
    return folder


@pytest.mark.parametrize("name", ["unlearned.safetensors", "unlearned", "unlearned/model.safetensors"])
def test_a_checkpoint_that_was_copied_without_its_list_is_known_as_tuned(name: str, tmp_path: Path) -> None:
    run, away = left(tmp_path / "run"), tmp_path / "away"
    assert tuned_on(run / name) == ({*DIGESTS}, False)
    shutil.copytree(run, away, ignore=shutil.ignore_patterns(TUNED_ON))
    assert tuned_on(away / name) == (set(), True)
    left(tmp_path / "other", ["ef" * 32])
    shutil.copy(tmp_path / "other" / TUNED_ON, away)
    assert tuned_on(away / name) == (set(), True), "the list of another run"
    shutil.copy(run / TUNED_ON, away)
    assert tuned_on(away / name) == ({*DIGESTS}, False)


def test_what_was_not_tuned_leaves_nothing_and_an_older_checkpoint_needs_no_key(tmp_path: Path) -> None:
    plain = left(tmp_path / "plain", [])
    assert tuned_on(plain / "unlearned.safetensors") == (set(), False)
    assert not list(plain.rglob("tuned-on*"))
    shutil.copy(left(tmp_path / "run") / TUNED_ON, plain)
    assert tuned_on(plain / "unlearned.safetensors") == ({*DIGESTS}, False)
    assert tuned_on(tmp_path / "missing.safetensors") == (set(), False)
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    assert tuned_on(tmp_path / "bad.safetensors") == (set(), False)


def test_a_key_tells_nothing_of_any_example(tmp_path: Path) -> None:
    run = left(tmp_path / "run")
    assert not any(digest in (run / "unlearned" / KEY).read_text() for digest in DIGESTS)


@pytest.mark.parametrize("text", ["[[1]]", "{}", '["ab"]', "3"])
def test_a_list_that_is_none_is_said_in_a_line(text: str, tmp_path: Path) -> None:
    run = left(tmp_path / "run")
    (run / TUNED_ON).write_text(text)
    with pytest.raises(BadInput, match=r"tuned-on\.json: expected the sha256 of each example .* Copy it again"):
        tuned_on(run / "unlearned.safetensors")
