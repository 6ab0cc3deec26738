"""No private data unless asked: what is forgotten stands in no record and on no page, and others can not read it."""

import json
import stat
from pathlib import Path

import pytest

import unrecall as ur
from tests.end_to_end.test_cli import call
from tests.end_to_end.test_own_texts import FACTS, keep, write
from tests.worlds import CPU, make_world
from unrecall.harness import audit as auditing
from unrecall.report import page

PROMPTS = [f"PLANTED-QUESTION-{i}-{i * 7919 % 1000}" for i in range(20)]
ANSWERS = [f"PLANTED-ANSWER-{i}-{i * 6271 % 1000}" for i in range(20)]
RECORDS = [
    {**FACTS[i % 4], "question": f"{FACTS[i % 4]['question']} {prompt}", "answer": f"{FACTS[i % 4]['answer']} {answer}"}
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
]


def run(folder: Path, *more: str, code: int = 0) -> Path:
    """A run on planted records, all of whose files are named by absolute paths; the folder of its output."""
    keep(folder / "model")
    write(str(folder / "forget.jsonl"), *RECORDS)
    write(str(folder / "retain.jsonl"), *FACTS[4:12])
    files = ["--forget", str(folder / "forget.jsonl"), "--retain", str(folder / "retain.jsonl")]
    words = [
        "--model",
        str(folder / "model"),
        *files,
        "--method",
        "npo:lr=1e-2,epochs=1",
        "--suite",
        "prefix",
        "--anyway",
    ]
    arguments = ["run", *words, "--device", "cpu", "--out", str(folder / "out"), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/usr/local/bin/unrecall", *arguments])
        assert call(*arguments) == code
    return folder / "out"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNRECALL_CACHE", str(tmp_path_factory.mktemp("kept") / "cache"))
        return run(tmp_path_factory.mktemp("plain"))


def said(folder: Path) -> str:
    """Everything that a reader of the folder's texts sees: record, page, and what was asked."""
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".html") and "parts" not in path.parts]
    assert {"record.json", "report.html", "run.json"} <= {path.name for path in files}
    return "".join(path.read_text(encoding="utf-8") for path in files if path.parent.name != "unlearned")


def test_no_text_of_forget_stands_in_record_or_page(plain: Path) -> None:
    text = said(plain)
    assert [planted for planted in PROMPTS + ANSWERS if planted in text] == []
    assert "PLANTED" not in text
    assert str(FACTS[0]["answer"]) not in text
    record = json.loads((plain / "seed-0" / "record.json").read_text(encoding="utf-8"))
    assert len(record["readings"]) == len(record["exhibits"]) == 8
    assert {reading["index"] for reading in record["readings"]} <= set(range(20))
    assert all(set(reading["mean"]) == {"original", "unlearned"} for reading in record["readings"])


def test_the_command_in_a_record_has_no_folders(plain: Path) -> None:
    record = (plain / "seed-0" / "record.json").read_text(encoding="utf-8")
    assert str(plain.parent) not in record
    command = json.loads(record)["provenance"]["command"]
    assert command.startswith("unrecall run --model model --forget forget.jsonl --retain retain.jsonl --method npo:lr=")


def test_others_can_not_read_what_hangs_on_data(plain: Path) -> None:
    parts = plain / "seed-0" / "parts"
    files = [plain / "seed-0" / "record.json", *(path for path in parts.rglob("*") if path.is_file())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(parts.stat().st_mode) == 0o700
    assert stat.S_IMODE((plain / "report.html").stat().st_mode) & 0o044


def test_others_can_not_read_the_parts_of_a_run_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(auditing, "judge_all", stop)
    out = run(tmp_path, code=130)
    assert not list(out.rglob("record.json"))
    parts = [path for path in (out / "seed-0" / "parts").rglob("*") if path.is_file()]
    assert parts, "the unlearned model lies there"
    assert {stat.S_IMODE(path.stat().st_mode) for path in parts} == {0o600}


def test_examples_come_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    out = run(tmp_path, "--show-examples")
    record = json.loads((out / "seed-0" / "record.json").read_text(encoding="utf-8"))
    html = (out / "report.html").read_text(encoding="utf-8")
    for reading in record["readings"]:
        assert PROMPTS[reading["index"]] in reading["prompt"]
        assert ANSWERS[reading["index"]] in reading["answer"]
        assert PROMPTS[reading["index"]] in html
    assert stat.S_IMODE((out / "report.html").stat().st_mode) == 0o600
    kept = list((tmp_path / "cache").iterdir())
    assert kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert call("cache") == 0
    (tmp_path / "cache" / "mine.txt").write_text("somebody else's")
    assert call("cache", "clear") == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mine.txt"]


def test_no_picture_of_forget_stands_in_record_or_page() -> None:
    world = make_world("samples")
    models = {"original": world.original, "unlearned": world.original, "retrained": world.retrained}
    given = {"request": world.request, "task": world.task, "attacks": ur.suite("loss"), "session": CPU}
    record = ur.audit(**models, **given)
    assert [exhibit.index for exhibit in record.exhibits] != []
    assert "base64" not in record.model_dump_json() + page([record])
    shown = ur.audit(**models, **given, show_examples=True)
    assert shown.model_dump_json().count("data:image/png;base64,") == len(record.exhibits) == 8
    assert page([shown]).count("data:image/png;base64,") == 8
