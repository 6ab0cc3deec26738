"""What a ledger takes for the records of a request."""

import hashlib
import json
from pathlib import Path

import pytest

from unrecall.errors import BadInput
from unrecall.experiment.ledger import texts_of


def test_records_lists_and_folders_of_pictures(tmp_path: Path) -> None:
    records, letter, folder = tmp_path / "ann.jsonl", tmp_path / "letter.txt", tmp_path / "pictures"
    records.write_text('{"b": 1, "a": "é"}\n{"a": 2}\n', encoding="utf-8")
    letter.write_text("# whose\nred\\1.png\n./red/1.png\nblue\n", encoding="utf-8")
    (folder / "red").mkdir(parents=True)
    (folder / "red" / "1.png").write_bytes(b"one")
    (folder / "red" / "notes.txt").write_bytes(b"none")
    assert texts_of(None) == []
    assert texts_of(records) == [json.dumps({"a": "é", "b": 1}, ensure_ascii=False), '{"a": 2}']
    assert texts_of(letter) == ["red/1.png", "blue"]
    records.rename(tmp_path / "ann.txt")
    assert texts_of(tmp_path / "ann.txt")[1] == '{"a": 2}', "records are records, however their file is called"
    assert texts_of(folder) == [hashlib.sha256(b"one").hexdigest()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("twice.jsonl", '{"a": 1}\n{"a": 1}\n', "expected each record once, got one twice"),
        ("letter.txt", "\n", "expected names of pictures or of folders, one a line, got none"),
        ("gone.jsonl", None, "expected a file of records, got nothing there"),
    ],
)
def test_what_names_no_records(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        texts_of(tmp_path / name)
