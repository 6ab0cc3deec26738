"""Files of records, as people have them: what is read, where each record stands, and what each bad file is told."""

import csv
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unrecall.disk.tables import records
from unrecall.errors import BadInput, MissingDependency

ROWS: list[dict[str, Any]] = [
    {"question": "Who, exactly?", "answer": 'Ann said "007",\nand NA.'},
    {"question": "Où?", "answer": "Zoë – 日本; here"},
    {"question": "When?", "answer": "1.0"},
]


def as_lines() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def as_csv(delimiter: str = ",", mark: str = "") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ROWS[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return f"{mark}{text.getvalue()}".encode()


def as_parquet(rows: list[dict[str, Any]] = ROWS) -> bytes:
    import pyarrow
    from pyarrow import parquet

    data = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), data)
    return data.getvalue()


def saved(folder: Path, rows: list[dict[str, Any]] = ROWS, splits: tuple[str, ...] = ()) -> Path:
    """A folder as `datasets` saves it: one data set, or several by name."""
    import datasets

    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list(rows)
    whole = datasets.DatasetDict(dict.fromkeys(splits, made)) if splits else made
    whole.save_to_disk(str(folder))
    return folder


FILES: dict[str, tuple[str, Callable[[], bytes], tuple[str, ...]]] = {
    "JSON Lines": ("x.jsonl", as_lines, (":1", ":2", ":3")),
    "JSON Lines, blank lines": ("x.jsonl", lambda: b"\n" + as_lines().replace(b"\n", b"\r\n\r\n"), (":2", ":4", ":6")),
    "a JSON list": ("x.json", lambda: json.dumps(ROWS, indent=1).encode(), ("[0]", "[1]", "[2]")),
    "CSV": ("x.csv", as_csv, (":2", ":4", ":5")),
    "CSV of a spreadsheet": ("x.csv", lambda: as_csv(";", "\ufeff"), (":2", ":4", ":5")),
    "TSV": ("x.tsv", lambda: as_csv("\t"), (":2", ":4", ":5")),
    "Parquet": ("x.parquet", as_parquet, ("[0]", "[1]", "[2]")),
    "Parquet of any name": ("x.bin", as_parquet, ("[0]", "[1]", "[2]")),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["", "gz"])
@pytest.mark.parametrize(("name", "content", "places"), FILES.values(), ids=FILES)
def test_the_same_rows_in_every_format(
    tmp_path: Path, name: str, content: Callable[[], bytes], places: tuple[str, ...], zipped: bool
) -> None:
    """Texts come as they stand there: no number, no missing value and no date is made of one."""
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(content()) if zipped else content())
    assert records(path) == [(f"{path}{place}", row) for place, row in zip(places, ROWS, strict=True)]


def test_a_saved_folder_and_its_only_split(tmp_path: Path) -> None:
    one, several = saved(tmp_path / "one"), saved(tmp_path / "dict", splits=("train",))
    assert records(one) == [(f"{one}[{i}]", row) for i, row in enumerate(ROWS)]
    assert [row for _, row in records(several)] == ROWS
    assert [row for _, row in records(several / "train")] == ROWS


def test_a_column_that_a_row_has_nothing_in_is_none_of_its_keys(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}]
    (tmp_path / "x.parquet").write_bytes(as_parquet([{"messages": turns, "text": None}, {"text": "b"}]))
    assert [row for _, row in records(tmp_path / "x.parquet")] == [{"messages": turns}, {"text": "b"}]


def test_cells_may_be_long(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "x.csv").write_text("text\n" + "a" * 300_000, encoding="utf-8")
    assert len(records(tmp_path / "x.csv")[0][1]["text"]) == 300_000
    assert csv.field_size_limit() == before


def test_numbers_of_classes_are_the_names_that_the_table_has(tmp_path: Path) -> None:
    """Of a class alone, and -1 is none; another column's numbers stay numbers."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"label": datasets.ClassLabel(names=["b", "a"]), "n": datasets.Value("int64")})
    table = datasets.Dataset.from_list([{"label": i, "n": i} for i in (0, 1, -1)], features=features)
    table.to_parquet(str(tmp_path / "x.parquet"))
    table.save_to_disk(str(tmp_path / "saved"))
    expected = [{"label": "b", "n": 0}, {"label": "a", "n": 1}, {"n": -1}]
    for path in ("x.parquet", "saved"):
        assert [row for _, row in records(tmp_path / path)] == expected, path


@pytest.mark.parametrize("written", ["{}", "3", "[]", '{"info": 3}', '{"info": {"features": {"label": {"names": 3}}}}'])
def test_what_datasets_wrote_may_say_nothing(written: str, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([{"label": 1}]).replace_schema_metadata({"huggingface": written})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert [row for _, row in records(tmp_path / "x.parquet")] == [{"label": 1}]


def test_json_and_csv_need_no_datasets_and_parquet_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet, folder = as_parquet(), saved(tmp_path / "folder")
    for name in ("datasets", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, content in (("x.jsonl", as_lines()), ("x.csv.gz", gzip.compress(as_csv()))):
        (tmp_path / name).write_bytes(content)
        assert [row for _, row in records(tmp_path / name)] == ROWS
    (tmp_path / "x.parquet").write_bytes(parquet)
    for path in (tmp_path / "x.parquet", folder):
        with pytest.raises(MissingDependency, match=r"datasets: expected it to be installed, got nothing\. Run"):
            records(path)


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("a", "b")
    return data.getvalue()


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("x.jsonl", lambda: b"", "x.jsonl: expected at least one record, got none"),
    "blank": ("x.csv", lambda: b"\n", "x.csv: expected at least one record, got none"),
    "a header alone": ("x.csv", lambda: b"question,answer\n", "expected at least one record"),
    "truncated gzip": (
        "x.gz",
        lambda: gzip.compress(as_lines())[:-20],
        "expected a whole gzip file, got one that ends",
    ),
    "damaged gzip": (
        "x.gz",
        lambda: gzip.compress(as_lines())[:-8] + b"12345678",
        "gzip file, got one that is damaged",
    ),
    "broken Parquet": ("x.parquet", lambda: as_parquet()[:-50], "x.parquet: expected a whole Parquet file, got: "),
    "UTF-16": ("x.jsonl", lambda: as_lines().decode().encode("utf-16"), "got UTF-16. Convert it: iconv -f UTF-16"),
    "UTF-16 unmarked": ("x.csv", lambda: as_csv().decode().encode("utf-16-le"), "got UTF-16. Convert it"),
    "UTF-32": ("x.jsonl", lambda: as_lines().decode().encode("utf-32"), "got UTF-32. Convert it: iconv -f UTF-32"),
    "Latin-1": ("x.jsonl", lambda: b'{"text": "a"}\n{"text": "caf\xe9"}', "x.jsonl:2: expected UTF-8, got byte 0xe9"),
    "binary": ("x.jsonl", lambda: bytes(range(256)), "got a binary file. Give JSON Lines, a JSON list, CSV or Parquet"),
    "a spreadsheet": ("x.csv", archive, "got a zip archive, as spreadsheets are too. Give JSON Lines"),
    "Arrow": ("x.arrow", lambda: b"ARROW1\x00\x00", "got an Arrow file. Name the folder that datasets.save_to_disk"),
    "zipped binary": ("x.gz", lambda: gzip.compress(b"\x00" * 90), "got a binary file|got UTF-16"),
    "one object": (
        "x.json",
        lambda: json.dumps({"data": ROWS}, indent=1).encode(),
        "or one JSON object a line, got one",
    ),
    "a number": ("x.json", lambda: b"3", "x.json:1: expected a JSON object, got int. Give each record its keys"),
    "a list of texts": ("x.json", lambda: b'["a"]', r"x.json\[0\]: expected a JSON object, got str"),
    "a broken line": ("x.jsonl", lambda: as_lines()[:-9] + b"\n" + as_lines(), ":3: expected one JSON object a line"),
    "a broken list": ("x.json", lambda: b'[{"text": "a"},\n{"text": ]', "expected one JSON list and .* at line 2"),
    "a list, then lines": (
        "x.json",
        lambda: b"[]\n" + as_lines(),
        "one JSON list and nothing after it, got Extra data",
    ),
    "lines, then CSV": ("x.jsonl", lambda: as_lines() + as_csv(), "x.jsonl:4: expected one JSON object a line"),
    "CSV called JSON": ("x.jsonl", as_csv, "x.jsonl:1: expected one JSON object .*needs a name that ends in .csv"),
    "too many cells": ("x.csv", lambda: b"text\na\n\nb,c", "x.csv:4: expected 1 cells, as the first line has, got 2"),
    "an open quote": ("x.csv", lambda: b'text\na\n"b\nc', "x.csv:3: expected CSV, got: .*Correct the quotes"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_files_that_can_not_be_read(tmp_path: Path, name: str, content: Callable[[], bytes], message: str) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(BadInput, match=message) as raised:
        records(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_folders_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(BadInput, match=r"plain: expected a file, or a folder .* got a folder without dataset_info"):
        records(tmp_path / "plain")
    several = saved(tmp_path / "several", splits=("train", "test"))
    with pytest.raises(BadInput, match=f"expected one split, got several: {several}/train, {several}/test. Name one"):
        records(several)
    broken = saved(tmp_path / "broken")
    next(broken.glob("*.arrow")).write_bytes(b"ARROW1")
    with pytest.raises(BadInput, match=r"broken: expected a folder that datasets\.save_to_disk wrote, got: "):
        records(broken)
    with pytest.raises(BadInput, match="nowhere: expected a file of records, got nothing there"):
        records(tmp_path / "nowhere")


def test_a_key_that_other_turns_have_is_none_of_this_one(tmp_path: Path) -> None:
    """Parquet gives all turns the keys of each; JSON Lines of the same are the same records."""
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]},
        {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]},
    ]
    (tmp_path / "x.parquet").write_bytes(as_parquet(rows))
    assert [row for _, row in records(tmp_path / "x.parquet")] == rows


def test_a_column_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("question,answer,answer\na,b,c\n")
    with pytest.raises(BadInput, match=r"x\.csv:1: expected each column once, got 'answer' twice"):
        records(tmp_path / "x.csv")
