"""One self-contained HTML page from records alone: opens without a network, recomputes nothing, needs no torch."""

from unrecall.report.page import check_place, page, write
from unrecall.report.summary import lines as summary_lines

__all__ = ["check_place", "page", "summary_lines", "write"]
