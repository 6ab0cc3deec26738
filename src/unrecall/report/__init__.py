"""One self-contained HTML page from records alone: opens without a network, recomputes nothing, needs no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from unrecall.record.schema import Record, Side
from unrecall.report import export, markdown
from unrecall.report.page import check_page_path, page
from unrecall.report.page import write as write_page
from unrecall.report.summary import lines as summary_lines

__all__ = ["check_page_path", "export", "markdown", "page", "summary_lines", "write"]


def write(
    records: Record | Sequence[Record], path: str | Path, declared: Mapping[str, Side | None] | None = None
) -> None:
    """Writes the page of one record or of several, all of it or nothing.

    `declared`: what this version judges by name, and the side on which it leaks, where the page should say which
    records differ from it. BadInput where there is no record, or something else than a page is at `path`.
    """
    write_page([records] if isinstance(records, Record) else records, path, declared)
