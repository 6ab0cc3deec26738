"""Two examples that a task reads alike are one example, however they are written."""

import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.worlds import CPU, World, blobs, network, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.record.doubts import Facts, doubts
from unrecall.tasks import CausalLM, Classification
from unrecall.tasks.base import check_inputs, cuts

Rewrite = Callable[[Any], Any]
DATA = blobs(40, 4, 1)
PICTURES: dict[str, Rewrite] = {
    "float64": lambda item: (item[0].double(), item[1]),
    "array": lambda item: (item[0].numpy(), np.int64(item[1])),
    "nested lists": lambda item: (item[0].tolist(), item[1]),
    "label with a point": lambda item: (item[0], float(item[1])),
    "label as a tensor": lambda item: (item[0], torch.tensor(item[1])),
    "a list": lambda item: [item[0].clone(), item[1]],
    "zeros with a sign": lambda item: (torch.where(item[0] == 0, -item[0], item[0]), item[1]),
}
ACCENT = "blé caf\u00e9 naïf"
TEXTS: dict[str, Rewrite] = {
    "another key beside": lambda item: {**item, "source": "page 3"},
    "spaces at the end": lambda item: {**item, "answer": f"{item['answer']}  "},
    "lines": lambda item: {**item, "prompt": f"\n{item['prompt']}".replace(" ", "\t")},
    "NFD": lambda item: {**item, "prompt": unicodedata.normalize("NFD", item["prompt"])},
    "the answer begins later": lambda item: {"prompt": f"{item['prompt']} baker", "answer": "has essen"},
    "invisible characters": lambda item: {**item, "answer": "bak\u00ader\u200b has essen\ufeff"},
    "no-break spaces": lambda item: {**item, "answer": item["answer"].replace(" ", "\u00a0")},
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("second", ["retain", "holdout", "test", "validation"])
def test_a_picture_that_is_forgotten_is_found_in_another_set(name: str, second: str) -> None:
    sets = {"forget": DATA[:4], "retain": DATA[4:20], "holdout": DATA[20:28], "test": DATA[28:36]}
    sets |= {"validation": DATA[36:]}
    sets[second] = [*sets[second], PICTURES[name](DATA[2])]
    with pytest.raises(BadInput, match=rf"forget and {second} to share nothing.*forget\[2\] equals {second}"):
        check_inputs(Classification(), network(), Request(**sets))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_forgotten_once(name: str) -> None:
    with pytest.raises(BadInput, match="each forget example once, got example 4 equal to 1"):
        request = Request([*DATA[:4], PICTURES[name](DATA[1])], DATA[4:20], DATA[20:28], DATA[28:36])
        check_inputs(Classification(), network(), request)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_forgotten_is_found_in_another_set(text_world: World, name: str) -> None:
    w = text_world
    gone = {"prompt": ACCENT, "answer": "baker has essen"}
    other = {**w.request.holdout[0], **TEXTS[name](gone)}
    sets = {"forget": [gone], "retain": w.request.retain, "holdout": [other], "test": w.request.test}
    with pytest.raises(
        BadInput, match=r"expected (forget and holdout to share nothing|no text of forget).*forget\[0\]"
    ):
        check_inputs(w.task, w.original, Request(**sets))


def test_texts_in_other_letters_are_other_texts(text_world: World) -> None:
    task = text_world.task
    assert isinstance(task, CausalLM)
    one = {"prompt": "", "answer": "one two"}
    others = [
        {"prompt": "", "answer": "One two"},
        {"prompt": "", "answer": "onetwo"},
    ]
    assert task.content(one) not in {task.content(other) for other in others}


def test_a_pair_is_its_picture_its_caption_and_its_label(pairs_world: World) -> None:
    task, item = pairs_world.task, pairs_world.request.forget[0]
    same = [
        {**item, "image": item["image"].double()},
        {**item, "image": item["image"].tolist()},
        {**item, "caption": f" {item['caption']}\n"},
        {**item, "label": float(item["label"])},
        {**item, "source": "page 3"},
    ]
    assert {task.content(other) for other in same} == {task.content(item)}
    others = [
        {**item, "caption": "another"},
        {**item, "image": item["image"] * 0.5},
        {**item, "label": item["label"] + 1},
    ]
    assert task.content(item) not in {task.content(other) for other in others}


def test_cut_texts_are_counted_and_a_record_says_so(text_world: World) -> None:
    w = text_world
    task = CausalLM(word_tokenizer(), template=None, longest=8)
    long = {"prompt": "", "answer": " ".join(["ann"] * 38)}
    forget = [w.request.forget[0], {**long, "answer": f"{long['answer']} bob"}, long]
    assert task.cut_off({"prompt": "", "answer": "ann bob"}) == 0
    assert task.cut_off(long) == pytest.approx(1 - 8 / 40)
    request = Request(forget[2:], w.request.retain, w.request.holdout, w.request.test)
    lost = "1 of 1 forget examples lose 80 % of their tokens"
    assert cuts(task, request)[0] == lost
    record = audit(
        original=w.original, unlearned=w.retrained[0], request=request, task=task, attacks=suite("loss"), session=CPU
    )
    (said,) = (doubt for doubt in record.doubts if doubt.id == "cut-texts")
    assert said.severity == "serious"
    assert lost in said.message
    assert said in doubts(Facts.of(record)), "a check of the record comes to the same"
    assert cuts(w.task, w.request) == []
