"""Whose a record is, in one spelling."""

from typing import Any

import pytest

from unrecall.errors import BadInput
from unrecall.tasks.strings import owner


@pytest.mark.parametrize(
    ("value", "name"),
    [(1, "1"), (1.0, "1"), ("1", "1"), ("1.0", "1"), ("-3.00", "-3"), ("Ada 1.0", "Ada 1.0"), ("1.5", "1.5")],
)
def test_one_person_has_one_name(value: Any, name: str) -> None:
    assert owner(value, "f.jsonl:1: who") == name


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), 1.5])
def test_what_names_nobody_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match="who: expected the name or number of whose it is, got"):
        owner(value, "f.jsonl:1: who")
