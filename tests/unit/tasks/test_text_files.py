"""What a file of texts is read as, and what of it is named instead."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import ignored, read

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
        ({"instruction": "q", "input": "x", "output": "a"}, "q\nx"),
        ({"instruction": "q", "input": "", "output": "a"}, "q"),
        ({"question": "q", "input": "x", "answer": "a"}, "q\nx"),
        ({"output": "a"}, ""),
        ({"text": "a"}, ""),
    ],
)
def test_an_input_is_the_prompt_or_stands_below_it(tmp_path: Path, record: dict[str, Any], prompt: str) -> None:
    assert read(written(tmp_path, record)) == [{"prompt": prompt, "answer": "a"}]


def test_keys_that_nothing_is_made_of_are_named(tmp_path: Path) -> None:
    sound = {"question": "q", "answer": "a", "paraphrase": "p", "perturbed_answer": ["b"]}
    others = [{**sound, "system": "s", "history": [["a", "b"]]}, {**sound, "context": "c", "system": "s"}]
    assert ignored(written(tmp_path, sound, *others)) == {"system": 2, "history": 1, "context": 1}
    assert ignored(written(tmp_path, sound, {"input": "q", "output": "a", "system": "", "history": []})) == {}
    assert ignored(written(tmp_path, {"question": "q", "prompt": "p", "answer": "a", "response": "b"})) == {
        "question": 1,
        "response": 1,
    }
