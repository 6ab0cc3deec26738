"""Names that pages look for in records: an attack or a row of each is there, or a page would fall silent.

A file that is renamed renames its attack; what asks for it by its former name would find nothing, and say nothing.
"""

import pytest

from unrecall.harness.checking import ROWS
from unrecall.harness.suites import built_in
from unrecall.report import answers, sentences
from unrecall.report.page import KEYS
from unrecall.spec.catalog import entries

ATTACKS = {entry.name for entry in entries("attacks")}


def exists(name: str) -> bool:
    """Whether a metric's row has that name, or an attack's begins with the attack's."""
    return name in ROWS or built_in(name) is not None


@pytest.mark.parametrize("names", [answers.KNOWLEDGE, answers.RECOGNITION, KEYS], ids=["known", "told", "keys"])
def test_what_a_page_quotes_is_measured(names: tuple[str, ...]) -> None:
    assert [name for name in names if not exists(name)] == []


def test_the_attacks_that_a_page_asks_for_are_there() -> None:
    asked = {answers.PERTURBED, sentences.RECALIBRATION}
    assert asked <= ATTACKS
