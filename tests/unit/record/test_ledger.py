"""What a chain comes to, by hand, and at which line a broken one breaks."""

from pathlib import Path
from typing import Any

import pytest

from tests.worlds.ledgers import KEY, chained, fields, written
from unrecall.errors import BadInput
from unrecall.record.ledger import FIRST, due, evidence, of_request, parse, read, salted, sealed, shared


def of(*audits: dict[str, Any]) -> Any:
    return parse(chained(*audits), b"", "ledger").entries


def test_requests_are_multiplied_and_audits_of_one_are_averaged() -> None:
    entries = of(fields("a", 3.0), fields("b", 4.0), fields("a", 1.0, kind="reaudit"), fields("c", None))
    assert [entry.product for entry in entries] == [3, 12, 12, 12]
    assert evidence(entries) == (12, 8)  # (3 + 1) / 2 x 4
    assert of_request(entries) == {"a": 2, "b": 4, "c": None}


def test_requests_that_share_records_are_averaged() -> None:
    """a and c share a holdout; b's is its own: 3 x 4 whenever one looks, (3 + 5) / 2 x 4 with all audits."""
    same = {"holdout": ["h"]}
    entries = of(fields("a", 3.0, **same), fields("b", 4.0), fields("c", 5.0, **same))
    assert evidence(entries) == (12, 16)
    assert [(entry.request, reason) for entry, reason in shared(entries)] == [("c", "it shares records with a")]


def test_clusters_meet_in_a_request_that_shares_with_both() -> None:
    entries = of(fields("a", 3.0), fields("b", 6.0), fields("c", 9.0, holdout=["holdout of a", "holdout of b"]))
    assert evidence(entries) == (18, 6)


def test_what_was_not_named_is_not_multiplied() -> None:
    entries = of(fields("a", 3.0, holdout=[]), fields("b", None), fields("c", 2.0))
    assert evidence(entries) == (2, 2)
    assert [reason for _, reason in shared(entries)] == [
        "its records were not named, so that it may share some with others",
        "by hand",
    ]
    assert evidence([]) == (1, 1)


def test_a_forgotten_record_may_not_come_back_as_another_requests() -> None:
    entries = of(fields("a", 3.0), fields("b", 4.0, forget=["forget of a"]))
    assert [entry.product for entry in entries] == [3, 3]


def test_the_same_data_under_two_names_counts_once() -> None:
    same = {"fingerprint": KEY}
    entries = of(fields("a", 3.0, **same), fields("b", 4.0, **same), fields("c", 5.0))
    assert evidence(entries) == (15, 17.5)  # 3 x 5, and (3 + 4) / 2 x 5
    assert [(entry.request, reason) for entry, reason in shared(entries)] == [("b", "it shares records with a")]
    unknown = {"fingerprint": ""}
    assert evidence(of(fields("a", 3.0, **unknown), fields("b", 4.0, **unknown))).product == 12


def test_due_is_what_the_newest_model_was_not_audited_for() -> None:
    entries = of(fields("a"), fields("b"), fields("c"))
    assert due(entries) == ["a", "b"]
    assert due(of(fields("a"), fields("b"), fields("a", kind="reaudit", weights="model after b"))) == []
    assert due([]) == []
    again = fields("a", kind="reaudit", weights="a newer model")
    assert due(of(fields("a"), fields("b"), again)) == ["b"]
    assert due(of(fields("a"), fields("b"), again, fields("b", kind="reaudit", weights="model after a"))) == ["b"]


def test_digests_hang_on_the_salt() -> None:
    """RFC 4231's second case of HMAC-SHA256."""
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert salted(b"Jefe", "what do ya want for nothing?") == digest


def test_a_whole_chain_is_read_and_a_torn_line_stands_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", fields("a"), fields("b"))
    assert len(read(path).hashes) == 3
    path.write_bytes(path.read_bytes() + b'{"basis":"ret')
    assert read(path).torn == b'{"basis":"ret'
    assert len(read(path).entries) == 2


@pytest.mark.parametrize(
    ("change", "number", "reason"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], 3, "doesn't follow the one before"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3, "doesn't follow the one before"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "doesn't follow the one before"),
        (lambda lines: lines[1:], 1, "doesn't follow the one before"),
        (lambda lines: [lines[0], lines[1].replace(b'"leaks"', b'"fine"'), *lines[2:]], 2, "it was changed"),
        (lambda lines: [lines[0], lines[1].replace(b":", b": ", 1), *lines[2:]], 2, "not as a ledger writes it"),
        (lambda lines: [*lines[:2], b"", *lines[2:]], 3, "Expecting value"),
        (lambda lines: [*lines[:2], b"[" * 99999, *lines[2:]], 3, "nested too deep"),
        (lambda lines: [*lines[:2], b"\xff", *lines[2:]], 3, "bytes that are no text"),
        (lambda lines: [*lines[:2], b'{"e_value":NaN}', *lines[2:]], 3, "the number NaN"),
        (lambda lines: [*lines[:2], b"3", *lines[2:]], 3, "not as a ledger writes it"),
    ],
)
def test_a_broken_chain_names_its_line(change: Any, number: int, reason: str, tmp_path: Path) -> None:
    lines = chained(fields("a"), fields("b"), fields("c"), fields("d")).split(b"\n")[:-1]
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"\n".join(change(lines)) + b"\n")
    with pytest.raises(BadInput, match=rf"ledger\.jsonl:{number}: .*{reason}.* broken at line {number}"):
        read(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (fields("a") | {"product": 2.0}, "a second request named 'a'"),
        (fields("b", kind="reaudit") | {"product": 2.0}, "a re-audit of 'b', which no earlier line asks for"),
        (fields("b") | {"product": 5.0}, "a product of 5, where its e-values make 4"),
        (fields("b", -1.0) | {"product": 2.0}, "greater than or equal to 0 at e_value"),
        (fields("b") | {"product": 4.0, "more": 1}, "Extra inputs are not permitted at more"),
    ],
)
def test_a_line_that_tells_no_story_is_refused_though_its_hash_is_right(line: dict[str, Any], reason: str) -> None:
    start = chained(fields("a"))
    head = parse(start, b"", "ledger").hashes[-1]
    with pytest.raises(BadInput, match=f"ledger:3: .*{reason}"):
        parse(start + sealed(line, head) + b"\n", b"", "ledger")


def test_another_version_and_no_ledger_at_all(tmp_path: Path) -> None:
    opening = sealed({"kind": "opening", "version": 9, "time": "", "salt": KEY}, FIRST)
    with pytest.raises(BadInput, match="version 9; this unrecall reads 1"):
        parse(opening + b"\n", b"", "ledger")
    empty = tmp_path / "empty.jsonl"
    for content, reason in ((b"", "an empty file"), (b"{", "a torn first line")):
        empty.write_bytes(content)
        with pytest.raises(BadInput, match=reason):
            read(empty)
    with pytest.raises(BadInput, match="expected a ledger, got: No such file"):
        read(tmp_path / "none.jsonl")


def test_a_record_that_is_added_under_two_names_counts_once() -> None:
    entries = of(fields("a", 3.0), fields("b", 3.0) | {"record_sha256": fields("a")["record_sha256"]})
    assert [entry.product for entry in entries] == [3, 3]
