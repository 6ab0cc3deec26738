"""The page's words mean what the glossary says, and each is a word of the page."""

import re
from pathlib import Path

from tests.unit.report.test_page import Reader
from tests.worlds.records import full
from unrecall.report import page
from unrecall.report.words import WORDS

GLOSSARY = Path(__file__).parents[3] / "docs" / "glossary.md"


def test_the_glossary_says_the_same() -> None:
    glossary = re.sub(r"\s+", " ", GLOSSARY.read_text(encoding="utf-8"))
    assert [word for word, meaning in WORDS.items() if f"- **{word}**: {meaning}" not in glossary] == []


def test_the_page_explains_each_word_in_a_line() -> None:
    text = Reader(page([full()])).text
    legend = text[text.index("What the words mean", text.index("Provenance")) :]
    assert [word for word, meaning in WORDS.items() if f"{word} {re.sub('[`*]', '', meaning)}" not in legend] == []
