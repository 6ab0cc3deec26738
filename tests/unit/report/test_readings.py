"""What the models say: tints and texts by hand, nothing hostile becomes markup; plots of new attacks."""

import hashlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.report.test_page import Reader
from tests.worlds.records import HOSTILE, full, measurement, minimal
from tests.worlds.text_records import HIDDEN, ROLES, hostile_text, reading, readings, text
from unrecall.record.schema import Piece, Reading, load
from unrecall.report import page
from unrecall.report.curves import curve
from unrecall.report.page import key_measurements
from unrecall.report.plot import axis
from unrecall.report.readings import beginning, halved, lines, numbers, plain, tinted, title, visible, written
from unrecall.report.sentences import ACCURACY, HEADINGS, how_far, inside
from unrecall.report.svg import each, of_powers, spaced


@pytest.fixture(scope="module")
def shown() -> Reader:
    return Reader(page([text()]))


def test_answers_are_tinted_by_the_mean_of_each_kind_of_model() -> None:
    one = Piece(text="In", probability={"original": 0.95, "unlearned": 0.3, "retrained 0": 0.1, "retrained 1": 0.4})
    two = Piece(text=" Rome", probability={"original": 0.85, "retrained 0": 0.1, "retrained 1": 0.1, "null": 0.9})
    made = Reading(prompt="Where?", answer="In Rome", pieces=[one, two], written={})
    original, unlearned, retrained = lines(made)
    assert [piece.tenth for piece in original.pieces] == ["9", "8"]
    assert [(piece.tenth, piece.number) for piece in unlearned.pieces] == [("3", "0.3"), ("none", "no value")]
    assert [piece.number for piece in retrained.pieces] == ["0.25", "0.1"]
    assert (original.mean, unlearned.mean, retrained.mean) == pytest.approx((0.9, 0.3, 0.175))
    assert (retrained.name, retrained.models) == ("retrained", 2)
    # The table leaves no model out.
    assert numbers(made) == (
        ["original", "unlearned", "retrained 0", "retrained 1", "null"],
        [("In", [0.95, 0.3, 0.1, 0.4, None]), ("Rome", [0.85, None, 0.1, 0.1, 0.9])],
    )


def test_one_retrained_model_keeps_its_name() -> None:
    piece = Piece(text="a", probability={"retrained 3": 0.5})
    (line,) = lines(Reading(prompt="", answer="a", pieces=[piece], written={}))
    assert (line.name, line.models) == ("retrained 3", 1)
    assert lines(Reading(prompt="", answer="a", pieces=[], written={})) == []


def test_tenths() -> None:
    cases = {0.0: "0", 0.0999: "0", 0.1: "1", 0.3: "3", 0.7: "7", 0.8999: "8", 0.9: "9", 1.0: "9", 2.0: "9", -1.0: "0"}
    assert {value: tinted("x", value).tenth for value in cases} == cases
    assert tinted("x", None).tenth == "none"
    odd = Reading(prompt="", answer="x", pieces=[Piece(text="x", probability={"original": math.nan})], written={})
    assert lines(odd)[0].pieces[0].number == "no value"


def test_nothing_in_a_piece_is_invisible() -> None:
    cases = {
        "": "∅",
        "  ": "␣␣",
        "\n": "↵\n",
        "a\tb": "a⇥b",
        "\r\n": "␍↵\n",
        "\u202ea": "<U+202E>a",
        "\u200d": "\u200d",
    }
    assert {piece: visible(piece) for piece in cases} == cases
    assert plain("a\n\tb\u2028\x00") == "a\n\tb<U+2028><U+0000>"
    # The space that begins a word is no part of what is tinted; a space alone is.
    assert (tinted(" Rome", 0.5).space, tinted(" Rome", 0.5).text) == (" ", "Rome")
    assert (tinted(" ", 0.5).space, tinted(" ", 0.5).text) == ("", "␣")


def test_what_is_written_stands_side_by_side_and_the_rest_below() -> None:
    beside, folded = written(readings()[0])
    assert [one.role for one in beside] == ["original", "unlearned", "retrained 0"]
    assert [one.role for one in folded] == ["null (learning rate 0)", "retrained 1", "retrained 2"]
    assert [one.exact for one in beside] == [True, False, False]
    assert [one.text for one in folded][1:] == ["The author is Mei Lin.", ""]


def test_word_for_word_ends_at_a_word() -> None:
    made = Reading(prompt="?", answer="No", pieces=[], written={"a": "Nobody", "b": " No. Why?", "c": "", "d": "no"})
    assert {one.role: one.exact for one in written(made).folded} == {"a": False, "b": True, "c": False, "d": False}
    empty = Reading(prompt="?", answer=" ", pieces=[], written={"a": "anything"})
    assert not written(empty).folded[0].exact


def test_long_texts_are_folded_where_a_word_ends() -> None:
    assert beginning("word " * 90) == ""
    head = beginning("word " * 200)
    assert head == "word " * 48 + "…"
    assert beginning("x" * 1000) == "x" * 240 + " …"
    assert beginning("a\n" * 30) == "a\na\na\na\na …"
    assert title(Reading(prompt="", answer="long " * 99, pieces=[], written={})).endswith("long …")


def test_a_text_without_a_prompt_says_so(shown: Reader) -> None:
    assert [halved(one) for one in readings()].count(True) == 1
    assert "Plain text, without a prompt." in shown.text
    assert "What each model writes after the first half of the text" in shown.text


def test_the_page_of_a_text_shows_readings_after_how_it_forgot(shown: Reader) -> None:
    order = ["How it forgot: erased or hidden", "What the models say", "Measurements", "Attacks"]
    assert [heading for heading in shown.headings if heading in order] == order
    for word in ("Hsiao Ming-Ling", "Wei-Jun Chen", "∅", "<U+202E>gnitirw", "It writes nothing.", "Nobody."):
        assert word in shown.text
    tinted_pieces = [value for tag, name, value in shown.attributes if tag == "i" and name == "title"]
    answers = [one for one in readings() if any(role in ROLES for p in one.pieces for role in p.probability)]
    assert len(tinted_pieces) == sum(len(one.pieces) * len(lines(one)) for one in answers)
    assert shown.text.count(ACCURACY) == 2


def test_a_record_without_readings_has_none_of_it() -> None:
    there = Reader(page([full()])).text
    assert "What the models say" not in there
    assert ACCURACY not in there
    assert ACCURACY in Reader(page([text(), full()])).text.split("Utility and forgetting")[0]


def test_conclusions_are_sentences_of_their_own(shown: Reader) -> None:
    assert inside(text()) == [HIDDEN, "No layer tells more than those of retrained models do."]
    assert shown.text.count(HIDDEN) == 2
    assert re.search("Not run .*needs at least 2 retrained models, got 1", shown.text)
    assert "Accuracy on forget fell by 37 points, from 0.990 to 0.620; retrained models have 0.585." in shown.text
    assert HEADINGS["inside"] in shown.text
    assert "No attack opened the model" in Reader(page([text().model_copy(update={"attacks": []})])).text


def test_how_far_says_what_is_missing() -> None:
    assert how_far(None).startswith("No forget accuracy")
    assert how_far(measurement("f", "F", "g", (0.9, 0.9, 0.9), (), "not judged")).startswith("Forget accuracy did not")
    assert how_far(measurement("f", "F", "g", (0.4, 0.9, 0.9), (), "not judged")).endswith("from 0.900 to 0.400.")


def test_markup_in_a_reading_stays_text() -> None:
    html = page([hostile_text()])
    reader, clean = Reader(html), Reader(page([text()]))
    assert set(reader.tags) <= set(clean.tags) | {"blockquote"}
    assert reader.tags.count("script") == clean.tags.count("script")
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "<img src=x" not in html
    assert HOSTILE.split("\u2028", maxsplit=1)[0] in reader.text
    assert '" onload="x' in reader.text
    pieces = [(name, value) for tag, name, value in reader.attributes if tag == "i"]
    assert {name for name, _ in pieces} == {"class", "title"}
    assert {value for name, value in pieces if name == "class"} <= {"tnone", *(f"t{i}" for i in range(10))}
    assert all(value == "no value" or math.isfinite(float(value)) for name, value in pieces if name == "title")
    styles = {value for _, name, value in reader.attributes if name == "style"}
    assert all(":" in value and not set(value) & set("<>'\"{};") for value in styles)


def test_same_texts_same_bytes_and_through_json(tmp_path: Path) -> None:
    code = (
        "import hashlib, tests.worlds.text_records as s; from unrecall.report import page; "
        "print(hashlib.sha256(page([s.text(), s.hostile_text()]).encode()).hexdigest())"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[3]
    elsewhere = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    assert elsewhere == hashlib.sha256(page([text(), hostile_text()]).encode()).hexdigest()
    text().save(tmp_path / "record.json")
    assert page([load(tmp_path / "record.json")]) == page([text()])


def test_eight_long_readings_stay_small() -> None:
    longest = reading("Who?", [" word"] * 200, dict.fromkeys(ROLES, "word " * 200))
    many = page([minimal().model_copy(update={"readings": [longest] * 8})])
    assert len(many) - len(page([minimal()])) < 8 * 70_000


def test_the_summary_of_texts_has_their_use_and_quality() -> None:
    names = [name for name, _ in key_measurements([text()])]
    assert names == [
        "retain_accuracy",
        "forget_accuracy",
        "test_accuracy",
        "model_utility",
        "membership_auc",
        "lira_auc",
    ]


def test_ticks_fall_on_layers_and_steps() -> None:
    assert axis("layer", [1, 2, 3, 1], tick_each=True).ticks == [1, 2, 3]
    assert [text for _, text in axis("times", [0, 4, 8], tick_each=True).texts()] == ["0", "4", "8"]
    for many in ([*range(20)], [0, 1, 2, 50], [3], []):
        assert each(many) == []
    assert of_powers(1, 5000) == [1, 10, 100, 1000]
    assert of_powers(0.02, 0.9) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5])
    assert len(of_powers(1e-12, 1)) <= 7
    assert spaced(0.93, 0.99) == pytest.approx([0.94, 0.96, 0.98])


def test_lines_that_all_lie_at_one_share_keep_a_sensible_axis() -> None:
    flat = next(a for a in text().attacks if a.name == "quantise").curves[0]
    assert ">0.8</text>" in curve(flat).drawing
    assert (axis("y", [0.4, 0.4]).low, axis("y", [0.4, 0.4]).high) == (-0.02, 1.02)
    assert axis("y", [7.0, 7.0]).high < 8
