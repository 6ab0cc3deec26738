"""Planted records from the command line."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.end_to_end.fuzz import called


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_records_and_canaries_are_planted_and_the_hash_is_printed() -> None:
    records = [{"prompt": f"q{i}", "answer": "yes", "second": "no"} for i in range(8)]
    Path("data.jsonl").write_text("\n".join(map(json.dumps, records)))
    for arguments, count in ((["data.jsonl", "-o", "mine"], 8), (["--canaries", "5", "-o", "secrets"], 5)):
        outcome = called(["plant", *arguments])
        assert outcome.code == 0, outcome
        folder = Path(arguments[-1])
        manifest = (folder / "manifest.json").read_bytes()
        assert outcome.out.endswith(f"before training:\n{hashlib.sha256(manifest).hexdigest()}\n")
        assert [len((folder / name).read_text().splitlines()) for name in ("train.jsonl", "holdout.jsonl")] == [
            count
        ] * 2


def test_what_can_not_be_planted_is_one_line() -> None:
    Path("data.jsonl").write_text('{"prompt": "q", "answer": "a"}')
    for arguments, reason in (
        (["data.jsonl"], "data.jsonl:1: expected the keys prompt, answer and second"),
        ([], "expected a file of records or --canaries, got both or neither"),
        (["data.jsonl", "--canaries", "3"], "got both or neither"),
        (["--canaries", "-1"], "expected at least one, got -1"),
        (["none.jsonl"], "expected a JSON Lines file, got nothing there"),
    ):
        outcome = called(["plant", *arguments])
        assert outcome.code == 2, outcome
        assert reason in outcome.err
        assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["data.jsonl"]
