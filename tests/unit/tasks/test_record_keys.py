"""What records say beside a picture or a text: its class, and whose it is, in one spelling."""

from typing import Any

import pytest

from unrecall.errors import BadInput
from unrecall.tasks.record_keys import label, owner


@pytest.mark.parametrize(
    ("value", "name"),
    [(1, "1"), (1.0, "1"), ("1", "1"), ("1.0", "1"), ("-3.00", "-3"), ("Ada 1.0", "Ada 1.0"), ("1.5", "1.5"), ("", "")],
)
def test_one_person_has_one_name(value: Any, name: str) -> None:
    assert owner({"who": value}, "who", "f.jsonl:1") == name


@pytest.mark.parametrize("record", [{}, {"who": None}, {"other": "Ada"}])
def test_who_is_not_named_has_no_name(record: dict[str, Any]) -> None:
    assert owner(record, "who", "f.jsonl:1") == owner({"": "Ada"}, "", "f.jsonl:1") == ""


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), 1.5])
def test_what_names_nobody_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match=r"f\.jsonl:1: who: expected the name or number of whose it is, got"):
        owner({"who": value}, "who", "f.jsonl:1")


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"label": " baker "}, "baker"),
        ({"category": 2}, 2),
        ({"label": 2.0}, 2),
        ({"label": None, "category": "cook"}, "cook"),
        ({"label": ""}, ""),
        ({"text": "baker"}, None),
    ],
)
def test_a_class_is_a_name_or_a_number(record: dict[str, Any], name: str | int | None) -> None:
    assert label(record, "f.jsonl:1") == name
    assert type(label(record, "f.jsonl:1")) is type(name)


@pytest.mark.parametrize("value", [True, 2.5, float("nan"), ["baker"]])
def test_what_is_no_class_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match=r"f\.jsonl:1: expected label to be a class, by its name or number, got"):
        label({"label": value}, "f.jsonl:1")
