"""What a file of texts is read as, and what of it is named instead."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.disk.test_tables import as_parquet, saved
from tests.unit.tasks.test_conversations import ASKING, TURNS, speaking, words_of
from tests.worlds import facts, small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import ignored, read, without_repeats

BLANK = ["", "   ", "\n\t", "\u00a0\u3000", "\u200b\ufeff", "\u2800", "\u3164\u115f", "\uffa0\ufe0f\u034f"]


def written(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "x.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("blank", BLANK)
@pytest.mark.parametrize("keys", [("question", "answer"), ("prompt", "completion"), ("", "text")])
def test_a_blank_answer_is_refused_with_file_and_line(tmp_path: Path, keys: tuple[str, str], blank: str) -> None:
    prompt, answer = keys
    sound = {"question": "q", "answer": "a"}
    with pytest.raises(BadInput, match=rf"x\.jsonl:2: {answer}: expected an answer of at least one token"):
        read(written(tmp_path, sound, {**({prompt: "q"} if prompt else {}), answer: blank}))


@pytest.mark.parametrize("blank", BLANK)
def test_a_blank_answer_of_ones_own_is_refused(blank: str) -> None:
    words = word_tokenizer()
    sound = [{"prompt": f"what is {name}", "answer": "baker"} for name in ("ann", "bob", "cid")]
    request = Request([{"prompt": "what is dan", "answer": blank}], sound[:1], sound[1:2], sound[2:])
    with pytest.raises(BadInput, match=r"forget\[0\]: expected an answer of at least one token"):
        CausalLM(words).check(small_llama(len(words)), request)


def test_blank_wrong_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r":1: perturbed_answer: expected an answer"):
        read(written(tmp_path, {"question": "q", "answer": "a", "perturbed_answer": ["b", " "]}))


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"input": "q", "output": "a"}, "q"),
        ({"question": "q", "input": "x", "answer": "a"}, "q\nx"),
        ({"output": "a"}, ""),
        ({"text": "a"}, ""),
    ],
)
def test_an_input_is_the_prompt_or_stands_below_it(tmp_path: Path, record: dict[str, Any], prompt: str) -> None:
    assert read(written(tmp_path, record)) == [{"prompt": prompt, "answer": "a"}]


def test_an_instruction_keeps_what_stands_below_it(tmp_path: Path) -> None:
    """For Alpaca's template, which has a place of its own for it."""
    below = {"instruction": "q", "input": "x", "output": "a"}
    assert read(written(tmp_path, below, {**below, "input": ""}, {"instruction": "q", "output": "a"})) == [
        {"prompt": "q\nx", "answer": "a", "input": "x"},
        {"prompt": "q", "answer": "a", "input": ""},
        {"prompt": "q", "answer": "a", "input": ""},
    ]


def test_keys_that_nothing_is_made_of_are_named(tmp_path: Path) -> None:
    sound = {"question": "q", "answer": "a", "paraphrase": "p", "perturbed_answer": ["b"]}
    others = [{**sound, "system": "s", "history": [["a", "b"]]}, {**sound, "context": "c", "system": "s"}]
    assert ignored(written(tmp_path, sound, *others)) == {"system": 2, "history": 1, "context": 1}
    assert ignored(written(tmp_path, sound, {"input": "q", "output": "a", "system": "", "history": []})) == {}
    assert ignored(written(tmp_path, {"question": "q", "prompt": "p", "answer": "a", "response": "b"})) == {
        "question": 1,
        "response": 1,
    }
    turns = [{"role": "user", "content": "q", "name": "ann"}, {"role": "assistant", "content": "a", "tool_calls": []}]
    assert ignored(written(tmp_path, {"messages": turns, "prompt": "q", "id": 3})) == {
        "prompt": 1,
        "id": 1,
        "messages.name": 1,
    }


PAIRS = [(str(fact["prompt"]), str(fact["answer"])) for fact in facts()[:4]]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


RECORDS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "messages": lambda q, a: {"messages": [turn("user", q), turn("assistant", a)]},
    "ShareGPT": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "prompt of turns": lambda q, a: {"prompt": [turn("user", q)], "completion": [turn("assistant", a)]},
    "prompt": lambda q, a: {"prompt": q, "completion": a},
    "question": lambda q, a: {"question": q, "answer": a},
    "Alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
}


def stored(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """A file or a folder of a kind that holds these rows."""
    path = folder / f"x.{kind}"
    if kind == "folder":
        return saved(path, rows)
    if kind == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8")
    elif kind == "parquet":
        path.write_bytes(as_parquet(rows))
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "folder"])
@pytest.mark.parametrize("name", RECORDS)
def test_the_same_facts_in_every_format_are_the_same_tokens(tmp_path: Path, name: str, kind: str) -> None:
    rows = [RECORDS[name](question, answer) for question, answer in PAIRS]
    if kind == "csv" and any(isinstance(value, list) for value in rows[0].values()):
        pytest.skip("CSV has no lists")
    task = CausalLM(speaking(TURNS + ASKING))
    whole = [f"question {question} answer {answer} </s>" for question, answer in PAIRS]
    counted = [" ".join(["."] * 8 + answer.split() + ["</s>"]) for _, answer in PAIRS]
    items = task.read(stored(tmp_path, kind, rows))
    assert [words_of(task, item) for item in items] == list(zip(whole, counted, strict=True))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "folder"])
def test_plain_text_is_the_same_in_every_format_too(tmp_path: Path, kind: str) -> None:
    task = CausalLM(speaking(TURNS + ASKING))
    items = task.read(stored(tmp_path, kind, [{"text": answer} for _, answer in PAIRS]))
    assert [words_of(task, item)[0] for item in items] == [f"<s> {answer} </s>" for _, answer in PAIRS]


@pytest.mark.parametrize(
    ("kind", "place"), [("jsonl", ":2"), ("json", r"\[1\]"), ("csv", ":3"), ("parquet", r"\[1\]"), ("folder", r"\[1\]")]
)
def test_a_record_that_is_none_names_its_line_or_row(tmp_path: Path, kind: str, place: str) -> None:
    path = stored(tmp_path, kind, [{"question": "q", "answer": "a"}, {"question": "q", "answer": " "}])
    with pytest.raises(BadInput, match=rf"x\.{kind}{place}: answer: expected an answer of at least one token"):
        read(path)
    with pytest.raises(BadInput, match=r"expected the keys messages, or .*, or text, got id, name\. Rename"):
        (tmp_path / "others").mkdir()
        read(stored(tmp_path / "others", kind, [{"id": "1", "name": "ann"}]))


def test_one_file_may_hold_several_formats(tmp_path: Path) -> None:
    rows = [RECORDS[name](*pair) for name, pair in zip(RECORDS, [*PAIRS, *PAIRS], strict=False)]
    texts = read(written(tmp_path, *rows, {"text": "ann"}))
    assert [(text["prompt"], text["answer"]) for text in texts] == [*PAIRS, *PAIRS[:2], ("", "ann")]


def test_each_example_is_there_once_where_it_stands_first() -> None:
    texts = [{"prompt": "", "answer": answer, "n": i} for i, answer in enumerate("abac")]
    assert [text["n"] for text in without_repeats(texts)] == [0, 1, 3]
