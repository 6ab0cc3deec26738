"""The first screen of each record as Markdown, and its words: for the file, a model's card, a pull request."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from unrecall.disk.files import check_writable, write_text
from unrecall.errors import BadInput
from unrecall.record.schema import Record, Side
from unrecall.report import answers, summary
from unrecall.report.page import remark
from unrecall.report.readable import readable
from unrecall.report.words import WORDS

SUFFIX: Final = ".md"
MARK: Final = "<!-- Written by unrecall from records. -->"
"""The first line, by which a file is known as one of ours."""
SPECIAL: Final = re.compile(r"([\\`*_~$<\[&])")
"""What Markdown would take for more than text."""
REFERENCE: Final = re.compile(r"(?<!\w)([@#])(?=\w)")
"""Where GitHub and its like would call a person, or link a pull request, backslash or not: a comment parts the two."""


def markdown(records: Sequence[Record], declared: Mapping[str, Side | None] | None = None) -> str:
    """What was asked and done, the verdict, the answers and the doubts of each record; the same records, the same text.

    `declared`: what this version judges by name, and the side on which it leaks, where the text should say which
    records differ from it.
    """
    if not records:
        raise BadInput("report: expected at least one record, got none. Name a record or a folder that holds one.")
    screens = ("\n\n".join(_screen(readable(record), remark(record, declared))) for record in records)
    text = "\n\n---\n\n".join(screens)
    text += "".join(f"\n\n---\n\n{_text(sentence)}" for sentence in summary.tries(records))
    return f"{MARK}\n\n{text}{_words(text)}\n"


def write(records: Sequence[Record], path: Path, declared: Mapping[str, Side | None] | None = None) -> None:
    """Writes the text, all of it or nothing; BadInput where something else than such a text is there."""
    check(path)
    write_text(path, markdown(records, declared))


def check(path: Path) -> None:
    """BadInput where the file can't be written, or is another one; nothing is changed."""
    check_writable(path)
    start = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if start.strip() and not start.startswith(MARK):
        raise BadInput(f"{path}: expected a text of unrecall's, or nothing, got another file. Choose another name.")


def _screen(record: Record, opening: str) -> Iterator[str]:
    """The paragraphs on one record, in the order of the page's first screen."""
    yield f"# {_text(record.method_title)} on {_text(record.scenario)}: {record.verdict.label}"
    yield from map(_text, answers.asked([record]))
    yield "\n".join(f"- **{name}**: {_text(text)}" for name, text in answers.facts(record).items())
    if opening:
        yield f"**{_text(opening)}**"
    yield f"**Verdict**: {_text(record.verdict.line)}"
    for answer in (*answers.harmful(record), *answers.answers(record)):
        yield f"## {answer.question}\n\n**{_text(answer.word)}.** {_text(answer.text)}"
    yield "## Questions of the European Data Protection Board (Opinion 28/2024)"
    for answer in answers.regulator(record):
        yield f"{answer.question} **{_text(answer.word)}.** {_text(answer.text)}"
    if record.doubts:
        yield "## Doubts about the audit itself"
        yield "\n".join(f"- {doubt.severity}: {_text(doubt.message)}" for doubt in record.doubts)
    yield f"## What this can’t say\n\n{answers.unsaid()}"


def _words(text: str) -> str:
    """What those words mean, a line each, that the page's legend explains and this text uses."""
    used = [
        (word, meaning) for word, meaning in WORDS.items() if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)
    ]
    lines = (f"- **{word}**: {meaning}" for word, meaning in used)
    return "\n\n---\n\n## What the words mean\n\n" + "\n".join(lines)


def _text(text: str) -> str:
    """A record's text in one line, which Markdown shows as it is."""
    return REFERENCE.sub(r"\1<!-- -->", SPECIAL.sub(r"\\\1", " ".join(text.split())))
