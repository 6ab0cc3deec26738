"""The page over a ledger: what it says, and that it says the same for the same ledger."""

from pathlib import Path

import pytest

from tests.worlds.ledgers import chained, fields, written
from unrecall.errors import BadInput
from unrecall.record.ledger import Ledger, parse
from unrecall.report.ledger_page import page, write


def ledger(torn: bytes = b"") -> Ledger:
    audits = [
        fields("a", 3.0, label="leaks"),
        fields("b", None, label="inconclusive", e_note="no scores are kept"),
        fields("c", 2.0, label="like retrained", holdout=["holdout of a"]),
        fields("a", 1.0, kind="reaudit", label="like retrained", weights="model after c"),
    ]
    return parse(chained(*audits), torn, "ledger")


def test_it_says_what_was_found_what_it_is_worth_and_what_is_due() -> None:
    html = page(ledger(), "ledger.jsonl")
    assert "3 requests to forget, 4 audits" in html
    assert "requests, though 1 of them are unsure or did not judge: b" in html  # a's newest audit is good
    assert "<b>3</b>" in html  # a alone is multiplied
    assert "<b>2</b>" in html  # (3 + 1) / 2 and 2 share a holdout
    assert "<li><b>b</b>: no scores are kept</li>" in html
    assert "<li><b>c</b>: it shares records with a</li>" in html
    assert "Not audited under the newest model: <b>b</b>." in html
    assert ledger().hashes[-1] in html
    assert "not finished" not in html
    assert html == page(ledger(), "ledger.jsonl")


def test_a_trace_comes_first_and_a_torn_line_is_said() -> None:
    html = page(parse(chained(fields("a")), b"{", "ledger"), "ledger.jsonl")
    assert "Yes: a trace was found for 1 of 1 requests, by the newest audit of each: a." in html
    assert "1 bytes of a line that was not finished" in html
    assert "Not judged: nothing was audited." in page(parse(chained(), b"", "ledger"), "ledger.jsonl")


def test_it_loads_nothing_runs_nothing_and_escapes_all() -> None:
    hostile = "</style><script>alert(1)</script>\x1b"
    html = page(parse(chained(fields(hostile, label=hostile, method=hostile)), b"", "ledger"), hostile)
    assert "<script>" not in html
    assert "\x1b" not in html
    assert "default-src &#39;none&#39;" in html


def test_a_broken_chain_makes_no_page(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", fields("a"), fields("b"))
    path.write_bytes(path.read_bytes().replace(b"leaks", b"fine!", 1))
    with pytest.raises(BadInput, match="broken at line 2"):
        write(path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
