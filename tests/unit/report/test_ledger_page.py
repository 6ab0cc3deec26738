"""The page over a ledger: what it says, and that it says the same for the same ledger."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tests.worlds.ledgers import chained, fields, written
from unrecall.errors import BadInput
from unrecall.record.ledger import Ledger, parse
from unrecall.record.schema import Label
from unrecall.report.ledger_page import page, write
from unrecall.report.roles import MARKS


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


@pytest.mark.parametrize("label", get_args(Label))
def test_every_badge_has_its_colour_and_mark(label: Label) -> None:
    html = page(parse(chained(fields("a", label=label)), b"", "ledger"), "ledger.jsonl")
    (css, body) = html.split("</style>")
    name, mark = re.findall(r'class="badge ([^"]+)"><span class="mark" aria-hidden="true">(.)</span>', body)[0]
    assert f".{name} {{ --tone" in css or f".{name}, " in css
    assert mark == MARKS[label]


YES, UNCHANGED = "Yes: a trace was found for 1 of 1 requests", "Yes: nothing was removed for 1 of 1 requests"
UNSURE = "though 1 of them are unsure or did not judge: a"
NO_TRACE = "No trace was found by the newest audits of 1 requests. That is"
SAID: dict[Label, str] = {
    "leaks": YES,
    "over-forgets": YES,
    "stands out": YES,
    "unchanged": UNCHANGED,
    "damaged": UNSURE,
    "inconclusive": UNSURE,
    "not judged": UNSURE,
    "can't be told": UNSURE,
    "like retrained": NO_TRACE,
    "no more than 25 %": NO_TRACE,
    "no more than 50 %": NO_TRACE,
}


@pytest.mark.parametrize("label", get_args(Label))
def test_no_trace_is_said_of_no_label_but_those_that_mean_it(label: Label) -> None:
    html = page(parse(chained(fields("a", label=label)), b"", "ledger"), "ledger.jsonl")
    assert SAID[label] in html


def test_a_trace_and_a_model_that_was_left_as_it_was_are_both_said() -> None:
    audits = chained(fields("a"), fields("b", label="unchanged"))
    html = page(parse(audits, b"", "ledger"), "ledger.jsonl")
    assert "by the newest audit of each: a. Nothing was removed for 1 of 2 requests" in html


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
