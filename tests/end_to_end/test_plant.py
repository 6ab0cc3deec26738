"""Planted records from the command line."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.end_to_end.fuzz import called
from tests.end_to_end.test_own_texts import keep
from tests.worlds import facts
from unrecall.record.schema import load


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
        (["none.jsonl"], "expected a file of records, got nothing there"),
    ):
        outcome = called(["plant", *arguments])
        assert outcome.code == 2, outcome
        assert reason in outcome.err
        assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["data.jsonl"]


def test_a_planted_holdout_has_grade_a_where_its_manifest_vouches_for_it() -> None:
    """12 planted facts in two wordings; their audit needs the manifest and the hash that was published."""
    known = [{"prompt": fact["prompt"], "answer": fact["answer"], "second": fact["restated"]} for fact in facts()]
    Path("data.jsonl").write_text("\n".join(map(json.dumps, known[:12])))
    Path("retain.jsonl").write_text("\n".join(map(json.dumps, known[12:30])))
    keep(Path("model"))
    published = called(["plant", "data.jsonl", "-o", "planted"]).out.splitlines()[-1]
    own = [
        "--model",
        "model",
        "--forget",
        "planted/train.jsonl",
        "--retain",
        "retain.jsonl",
        "--device",
        "cpu",
        "--anyway",
    ]
    own += ["--holdout", "planted/holdout.jsonl", "--method", "finetune:epochs=1", "--suite", "loss", "--alone"]
    vouched = ["--manifest", "planted/manifest.json", "--published"]
    for options, reason in (
        (["--control", "planted"], "expected planted together with --manifest and --published"),
        ([*vouched, published], "expected planted together with --manifest and --published"),
        (["--control", "planted", *vouched[:2]], "expected planted together with --manifest and --published"),
        (["--control", "planted", *vouched, "0" * 64], "expected the manifest whose sha256 was published"),
    ):
        outcome = called(["run", *own, *options, "--out", "out"])
        assert outcome.code == 2, outcome
        assert reason in outcome.err
        assert not Path("out").exists()
    outcome = called(["run", *own, "--control", "planted", *vouched, published, "--out", "out"])
    assert outcome.code == 0, outcome
    tested = load("out/seed-0/record.json").never_trained
    assert tested is not None
    assert tested.control == "planted"
    assert tested.grade == ("A" if (tested.blind or 1) > 0.05 else "C")
