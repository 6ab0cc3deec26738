"""Records of the files that people have: JSON Lines, a JSON list, CSV, Parquet, each gzipped or not, and the folders
that `datasets` saves. What a file is, its bytes say; every complaint names the file, and the line or the row."""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from unrecall.disk.json_files import parse_json, read_json
from unrecall.errors import BadInput, MissingDependency, one_line

Located: TypeAlias = tuple[str, Mapping[str, Any]]
"""A record and its place: FILE:LINE, or FILE[INDEX], counted from 0, where records have no lines."""

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
KINDS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a zip archive, as spreadsheets are too",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
}
"""What files that can't be read begin with."""
INSTEAD = {
    "UTF": "Convert it: iconv -f {kind} -t UTF-8.",
    "an Arrow": "Name the folder that datasets.save_to_disk wrote it in.",
    "a": "Give JSON Lines, a JSON list, CSV or Parquet, each also as .gz, or what datasets.save_to_disk wrote.",
}
"""What to give in place of a file of such a kind."""


def records(path: Path) -> list[Located]:
    """The records of a file or of a folder of `datasets`, each with its place; at least one.

    BadInput where nothing can be made of it. Parquet and folders need the package `datasets`; all else doesn't.
    """
    if path.is_dir():
        located = list(_of_folder(path))
    elif path.is_file():
        located = list(_of_bytes(path, _bytes(path)))
    else:
        raise BadInput(f"{path}: expected a file of records, got nothing there. Check the path.")
    if not located:
        raise BadInput(f"{path}: expected at least one record, got none. Check the path.")
    return located


def _bytes(path: Path) -> bytes:
    """What a file holds, unzipped."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: expected a readable file, got: {error.strerror}. Check the path.") from error
    if not data.startswith(GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        how = "one that ends early" if isinstance(error, EOFError) else f"one that is damaged ({error})"
        raise BadInput(f"{path}: expected a whole gzip file, got {how}. Copy it again.") from error


def _of_bytes(path: Path, data: bytes) -> Iterable[Located]:
    """The records of Parquet, CSV or JSON."""
    if data.startswith(PARQUET):
        return _parquet(path, data)
    text = _decoded(path, data)
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if names[-1:] in ([".csv"], [".tsv"]):
        return _of_csv(path, text)
    return _of_json_list(path, text) if text.lstrip().startswith("[") else _of_json_lines(path, text)


def _decoded(path: Path, data: bytes) -> str:
    """The text; BadInput, which names what it is, where the bytes are none in UTF-8."""
    kind = next((name for start, name in KINDS.items() if data.startswith(start)), "")
    if not kind and 0 in (head := data[:4096]):
        kind = (
            "UTF-16" if head[1::2].count(0) > len(head) / 4 or head[::2].count(0) > len(head) / 4 else "a binary file"
        )
    if kind:
        instead = next(text for start, text in INSTEAD.items() if kind.startswith(start)).format(kind=kind)
        raise BadInput(f"{path}: expected a file of records in UTF-8, got {kind}. {instead}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        byte = data[error.start]
        raise BadInput(f"{path}:{line}: expected UTF-8, got byte {byte:#04x}. Convert the file.") from error


def _of_json_list(path: Path, text: str) -> Iterator[Located]:
    values = parse_json(text, str(path), "one JSON list and nothing after it", "Correct it.")
    for index, value in enumerate(values):
        yield _object(f"{path}[{index}]", value)


def _of_json_lines(path: Path, text: str) -> Iterator[Located]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == 1 and line.strip() == "{" and _is_json(text):
            raise BadInput(
                f"{path}: expected a JSON list or one JSON object a line, got one object. Give the list that it holds."
            )
        place, hint = f"{path}:{number}", "Correct the line."
        if not line.lstrip().startswith("{"):
            hint = "Correct the line; a file of CSV needs a name that ends in .csv."
        yield _object(place, parse_json(line, place, "one JSON object a line", hint))


def _is_json(text: str) -> bool:
    try:
        parse_json(text, "")
    except BadInput:
        return False
    return True


def _object(place: str, value: Any) -> Located:
    if not isinstance(value, Mapping):
        raise BadInput(f"{place}: expected a JSON object, got {type(value).__name__}. Give each record its keys.")
    return place, value


def _of_csv(path: Path, text: str) -> Iterator[Located]:
    """The rows below the first, which names the columns; every cell is text: "NA" and "007" stay as they are."""
    header = re.sub('"[^"]*"', "", text.partition("\n")[0])  # what stands between quotes parts no columns
    limit = csv.field_size_limit(min(sys.maxsize, max(len(text) + 1, 2**17)))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    names: list[str] = []
    first = 1
    try:
        for row in rows:
            place, first = f"{path}:{first}", rows.line_num + 1
            if not names:
                names = [name.strip() for name in row]
                if twice := sorted(name for name in {*names} if names.count(name) > 1):
                    raise BadInput(f"{place}: expected each column once, got '{twice[0]}' twice. Rename one of them.")
            elif row:
                if len(row) != len(names):
                    raise BadInput(
                        f"{place}: expected {len(names)} cells, as the first line has, got {len(row)}. "
                        "Put texts that hold commas or new lines between double quotes."
                    )
                yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise BadInput(f"{path}:{first}: expected CSV, got: {error}. Correct the quotes.") from error
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path, data: bytes) -> Iterator[Located]:
    """The rows of a Parquet file; numbers of classes are the names that `datasets` wrote beside them."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("datasets", "datasets") from error
    expected = f"{path}: expected a whole Parquet file"
    table: Any = _opened(expected, lambda: parquet.read_table(io.BytesIO(data)))
    written = (table.schema.metadata or {}).get(b"huggingface", b"{}").decode(errors="replace")
    features = parse_json(written, f"{path}: what datasets wrote into it")
    for key in ("info", "features"):
        features = features.get(key) if isinstance(features, Mapping) else None
    return _of_rows(path, _opened(expected, table.to_pylist), _class_names(features))


def _of_folder(path: Path) -> Iterable[Located]:
    """The rows of a folder that `datasets` saved; of several splits the one that there is."""
    if (path / "dataset_dict.json").is_file():
        content = read_json(path / "dataset_dict.json")
        splits = content.get("splits", []) if isinstance(content, Mapping) else []
        if len(splits) != 1:
            names = ", ".join(str(path / str(split)) for split in splits) or "none"
            raise BadInput(f"{path}: expected one split, got several: {names}. Name one of these folders.")
        path = path / str(splits[0])
    if not (path / "dataset_info.json").is_file():
        raise BadInput(
            f"{path}: expected a file, or a folder that datasets.save_to_disk wrote, got a folder without "
            "dataset_info.json. Name a file in it."
        )
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency("datasets", "datasets") from error
    datasets.disable_progress_bars()
    expected = f"{path}: expected a folder that datasets.save_to_disk wrote"
    table: Any = _opened(expected, lambda: datasets.load_from_disk(str(path), keep_in_memory=True))
    return _of_rows(path, _opened(expected, table.to_list), _class_names(table.features.to_dict()))


def _class_names(features: Any) -> dict[str, list[str]]:
    """The names of classes that a table of `datasets` has by their numbers, by column."""
    columns = features.items() if isinstance(features, Mapping) else ()
    return {
        str(column): [str(name) for name in names]
        for column, feature in columns
        if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
        if isinstance(names := feature.get("names"), list)
    }


def _of_rows(
    path: Path, rows: Iterable[Mapping[str, Any]], class_names: Mapping[str, Sequence[str]]
) -> Iterator[Located]:
    """Rows with their places; a column that a row, or a turn in it, has nothing in is none of its keys.

    Numbers in a column of classes are their names; -1 is how `datasets` says that there is none.
    """
    for index, row in enumerate(rows):
        named = {column: _named(row.get(column), names) for column, names in class_names.items()}
        yield f"{path}[{index}]", _filled({**row, **named})


def _named(number: Any, names: Sequence[str]) -> Any:
    """The name of a class by its number."""
    if not isinstance(number, int) or not -1 <= number < len(names):
        return number
    return names[number] if number >= 0 else None


def _filled(value: Any) -> Any:
    """A value without keys that have nothing, however deep: a table gives every row the keys of all."""
    if isinstance(value, Mapping):
        return {str(key): _filled(part) for key, part in value.items() if part is not None}
    return [_filled(part) for part in value] if isinstance(value, list) else value


def _opened(expected: str, opening: Callable[[], Any]) -> Any:
    """What `opening` gives; where it fails, BadInput with the reason in one line."""
    try:
        return opening()
    except Exception as error:  # the errors of pyarrow and datasets share no base
        raise BadInput(f"{expected}, got: {one_line(error).rstrip('.')}. Copy it again.") from error
