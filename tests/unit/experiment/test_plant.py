"""Planted records: fair coins, two files that belong together, and a manifest that can't be forged."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unrecall.errors import BadInput
from unrecall.experiment.plant import Pair, canaries, pairs_of, plant
from unrecall.record.manifest import check_manifest, coins

PAIRS = [Pair({"prompt": f"q{i}", "answer": "a"}, {"prompt": f"q{i}", "answer": "b"}) for i in range(40)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_record_is_trained_on_in_one_wording_and_held_out_in_the_other(tmp_path: Path) -> None:
    key = plant(PAIRS, tmp_path / "planted")
    train, holdout = rows(tmp_path / "planted/train.jsonl"), rows(tmp_path / "planted/holdout.jsonl")
    assert [{a["answer"], b["answer"]} for a, b in zip(train, holdout, strict=True)] == [{"a", "b"}] * 40
    assert [row["prompt"] for row in train] == [row["prompt"] for row in holdout] == [f"q{i}" for i in range(40)]
    assert 5 <= sum(row["answer"] == "a" for row in train) <= 35  # fails once in 10 million
    manifest = tmp_path / "planted/manifest.json"
    assert key == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert check_manifest(manifest, key, train[:5], holdout[4::-1]) == [4, 3, 2, 1, 0]
    assert "q1" not in manifest.read_text(encoding="utf-8")
    assert manifest.stat().st_mode & 0o077 == 0, "its coins are for nobody else"


def test_coins_hang_on_the_seed_alone_and_are_fair() -> None:
    """Each seed has its own coins; of 1,000, between 430 and 570 are 1 (a fair coin leaves that once in 100,000)."""
    assert coins("00" * 32, 8) == coins("00" * 32, 9)[:8]
    assert coins("00" * 32, 64) != coins("01" * 32, 64)
    assert 430 <= sum(coins("ab" * 32, 1000)) <= 570


def forged(manifest: dict[str, Any], name: str) -> None:
    """Changes a manifest as a forger would."""
    pair = manifest["pairs"][0]
    if name == "coin":
        pair["coin"] = 1 - pair["coin"]
    elif name == "swapped":
        pair["trained"], pair["untrained"] = pair["untrained"], pair["trained"]
    elif name == "both":
        pair |= {"coin": 1 - pair["coin"], "trained": pair["untrained"], "untrained": pair["trained"]}
    elif name == "seed":
        manifest["seed"] = "ab" * 32
    elif name == "part":
        del manifest["time"]
    else:
        manifest["pairs"] = []


@pytest.mark.parametrize("name", ["coin", "swapped", "both", "seed", "part", "empty"])
def test_a_forged_manifest_is_refused_even_where_its_own_hash_is_published(name: str, tmp_path: Path) -> None:
    key = plant(PAIRS, tmp_path / "planted")
    place = tmp_path / "planted/manifest.json"
    train, holdout = rows(tmp_path / "planted/train.jsonl"), rows(tmp_path / "planted/holdout.jsonl")
    manifest = json.loads(place.read_text(encoding="utf-8"))
    forged(manifest, name)
    place.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BadInput, match="expected the manifest whose sha256 was published"):
        check_manifest(place, key, train, holdout)
    own = hashlib.sha256(place.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match=r"Forged|expected a manifest of planted records"):
        check_manifest(place, own, train, holdout)


def test_coins_that_a_fair_one_does_not_show_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 of 40: 2 x 2^-40."""
    for home in ("record.manifest", "experiment.plant"):
        monkeypatch.setattr(f"unrecall.{home}.coins", lambda seed, count: [1] * count)
    key = plant(PAIRS, tmp_path / "planted")
    with pytest.raises(BadInput, match="expected fair coins, got 40 of 40"):
        check_manifest(tmp_path / "planted/manifest.json", key, [], [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t, h: (h, t), r"planted wordings alone, got another as forget\[0\]"),
        (lambda t, h: (t, h[1:]), r"the other wording of forget\[0\] in holdout, got none"),
        (lambda t, h: (t[1:], h), "in holdout and no more, got 40 records"),
        (lambda t, h: ([t[0], t[0]], h[:1]), "in holdout and no more, got 1 records"),
        (lambda t, h: ([{"prompt": "q", "answer": "c"}], h), r"got another as forget\[0\]"),
    ],
)
def test_other_records_than_the_planted_ones_are_refused(
    change: Callable[[Any, Any], Any], reason: str, tmp_path: Path
) -> None:
    key = plant(PAIRS, tmp_path / "planted")
    forget, holdout = change(rows(tmp_path / "planted/train.jsonl"), rows(tmp_path / "planted/holdout.jsonl"))
    with pytest.raises(BadInput, match=reason):
        check_manifest(tmp_path / "planted/manifest.json", key, forget, holdout)


def test_records_are_read_with_their_second_wording(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    records = [
        {"prompt": "p", "answer": "a", "second": "b"},
        {"prompt": "p", "answer": "c", "second": {"prompt": "P", "answer": "C"}},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    assert pairs_of(path) == [
        Pair({"prompt": "p", "answer": "a"}, {"prompt": "p", "answer": "b"}),
        Pair({"prompt": "p", "answer": "c"}, {"prompt": "P", "answer": "C"}),
    ]
    for record, reason in (
        ({"prompt": "p", "answer": "a"}, "expected the keys prompt, answer and second, got prompt, answer"),
        ({"prompt": "p", "answer": "a", "second": 3}, "expected second to be an answer, or an object"),
        ({"prompt": "p", "answer": 1, "second": "b"}, "answer: expected text, got int"),
    ):
        path.write_text(json.dumps(record))
        with pytest.raises(BadInput, match=reason):
            pairs_of(path)


def test_wordings_that_are_the_same_and_folders_that_hold_something_are_refused(tmp_path: Path) -> None:
    same = Pair({"prompt": "p", "answer": "a"}, {"prompt": "p", "answer": "a"})
    with pytest.raises(BadInput, match="got that of record 1 again in record 1"):
        plant([same], tmp_path / "new")
    with pytest.raises(BadInput, match="got that of record 1 again in record 41"):
        plant([*PAIRS, PAIRS[0]], tmp_path / "new")
    with pytest.raises(BadInput, match="at least one record, got none"):
        plant([], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    plant(PAIRS, tmp_path / "new")
    with pytest.raises(BadInput, match="expected a new or empty folder"):
        plant(PAIRS, tmp_path / "new")


def test_canaries_are_apart_and_random() -> None:
    pairs = canaries(50)
    answers = {wording["answer"] for pair in pairs for wording in (pair.first, pair.second)}
    assert len(answers) == 100
    assert all(pair.first["prompt"] == pair.second["prompt"] for pair in pairs)
    with pytest.raises(BadInput, match="expected at least one, got 0"):
        canaries(0)
