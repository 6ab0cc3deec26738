"""One self-contained HTML page from records alone: opens without a network, recomputes nothing, needs no torch."""

from unrecall.report.page import page, write

__all__ = ["page", "write"]
