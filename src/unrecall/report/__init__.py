"""One self-contained HTML page from records alone: opens without a network, recomputes nothing, needs no torch."""

from unrecall.report.page import check_place, page, write

__all__ = ["check_place", "page", "write"]
