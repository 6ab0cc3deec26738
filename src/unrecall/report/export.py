"""The numbers of records as a table for people who write papers: CSV, JSON, or LaTeX; needs no torch."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from unrecall.disk.files import check_writable, write_text
from unrecall.errors import BadInput
from unrecall.record.schema import Record
from unrecall.report.latex import MARK, as_latex
from unrecall.report.page import key_measurements
from unrecall.report.table import COLUMNS, Line, lines

FORMS: Final = (".csv", ".json", ".tex")
"""How the name of a table ends."""


def write(records: Sequence[Record], path: Path) -> None:
    """Writes the table of records in the form that the file's name ends in: .csv, .json or .tex.

    BadInput where there is no record, the form is another, or something else than such a table is at `path`.
    """
    if not records:
        raise BadInput("report: expected at least one record, got none. Name a record or a folder that holds one.")
    check(path)
    rows = lines(records)
    names = [name for name, _ in key_measurements(records)]
    text = as_latex(rows, names) if path.suffix == ".tex" else as_csv(rows) if path.suffix == ".csv" else as_json(rows)
    write_text(path, text)


def check(path: Path) -> None:
    """BadInput where a file's name ends in no form of a table, or another file is there already."""
    if path.suffix not in FORMS:
        raise BadInput(f"{path}: expected a name that ends in {', '.join(FORMS)}, got '{path.suffix}'. Name it so.")
    check_writable(path)
    starts = {".csv": (",".join(COLUMNS[:3]),), ".json": ('[\n {\n  "scenario"', "[]"), ".tex": (MARK,)}
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(starts[path.suffix]):
        raise BadInput(f"{path}: expected a table of unrecall's, or nothing, got another file. Choose another name.")


def as_csv(rows: Sequence[Line]) -> str:
    """A line for each measurement, with a head; empty cells have no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_safe(value) for value in row.cells.values()] for row in rows)
    return text.getvalue()


def as_json(rows: Sequence[Line]) -> str:
    """A list of objects with the columns as keys; null has no value."""
    return json.dumps([row.cells for row in rows], indent=1, ensure_ascii=False) + "\n"


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, whatever stands before it that can't be seen."""
    if not isinstance(value, str):
        return value
    seen = "".join(letter for letter in value if letter.isprintable()).lstrip()
    return f"'{value}" if seen.startswith(("=", "+", "-", "@")) else value
