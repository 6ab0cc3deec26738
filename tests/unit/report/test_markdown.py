"""The first screen as Markdown: all that the page answers, nothing that steers, and other files left alone."""

from pathlib import Path

import pytest

from tests.worlds.records import alone, full, hostile, minimal
from unrecall.errors import BadInput
from unrecall.record.schema import Record
from unrecall.report import answers, markdown
from unrecall.report.readable import readable


@pytest.mark.parametrize("record", [full(), alone(), minimal()], ids=["retrained", "never trained", "minimal"])
def test_it_has_the_verdict_all_answers_and_all_doubts(record: Record) -> None:
    text, _, words = markdown.markdown([record]).partition("\n\n---\n\n## What the words mean\n\n")
    judged = readable(record)
    assert "- **forget**: the examples that were trained on and must go.\n" in words
    assert ("- **grade**" in words) == ("grade" in text)
    assert text.count("\n# ") == 1
    assert f": {judged.verdict.label}\n" in text
    assert f"**Verdict**: {judged.verdict.line}\n" in text
    for answer in answers.answers(judged):
        assert f"## {answer.question}\n\n**{answer.word}.** " in text
    for answer in answers.regulator(judged):
        assert f"{answer.question} **{answer.word}.** " in text
    assert text.count("\n- serious: ") == sum(doubt.severity == "serious" for doubt in record.doubts)
    assert text.count("\n- ") == 4 + len(record.doubts)
    assert answers.unsaid() in text


def test_several_records_stand_one_after_another_and_the_same_give_the_same_text() -> None:
    records = [full(), full("scrub", label="like retrained")]
    text = markdown.markdown(records)
    assert text.count("\n# ") == 2
    assert text.count("\n---\n") == 2, "one before the words"
    assert text.count("## What the words mean") == 1
    assert text == markdown.markdown(records)


def test_what_a_record_says_stays_text() -> None:
    record = full().model_copy(update={"scenario": "a*b*\n# c", "scenario_summary": "<b> [x](y) `z` __i__ &amp; \\"})
    text = markdown.markdown([record])
    assert text.count("\n# ") == 1
    assert " on a\\*b\\*" in text
    assert "\\<b> \\[x](y) \\`z\\` \\_\\_i\\_\\_ \\&amp; \\\\" in text


def test_nobody_is_called_and_nothing_is_linked() -> None:
    text = markdown.markdown([full().model_copy(update={"scenario_summary": "asked by @ann, see #12, OU@eps"})])
    assert "asked by @<!-- -->ann, see #<!-- -->12, OU@eps" in text


def test_a_hostile_record_steers_no_terminal() -> None:
    record = hostile()
    told = record.verdict.model_copy(update={"rule": "9\x1b]0;title\x07\x9b31m"})
    rows = [m.model_copy(update={"title": f"T\x1b[2J{m.title}"}) for m in record.measurements]
    record = record.model_copy(update={"verdict": told, "measurements": rows})
    steering = {chr(code) for code in (*range(32), *range(127, 160)) if code != 10}
    assert not steering & set(markdown.markdown([record], {"a row of another version": "above"}))


def test_another_file_is_left_alone_and_ones_own_is_written_anew(tmp_path: Path) -> None:
    place = tmp_path / "answer.md"
    markdown.write([full()], place)
    markdown.write([alone()], place)
    assert place.read_text(encoding="utf-8") == markdown.markdown([alone()])
    place.write_text("")  # as touch makes one
    markdown.write([full()], place)
    place.write_text("# My notes\n")
    with pytest.raises(BadInput, match="expected a text of unrecall's, or nothing, got another file"):
        markdown.write([full()], place)
    assert place.read_text() == "# My notes\n"
    with pytest.raises(BadInput, match="expected at least one record"):
        markdown.write([], tmp_path / "none.md")
