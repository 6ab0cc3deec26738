"""Doubted answers: how a conversation goes on, where the context ends, what is refused, and both controls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.unit.attacks.running import attacked, setting_of
from tests.unit.tasks.test_conversations import ASKING, TALK, TURNS, speaking
from tests.worlds import World, word_tokenizer
from unrecall.attacks.multi_turn import Answered, MultiTurn
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.tasks import CausalLM
from unrecall.tasks.templates import framed


def test_a_prompt_holds_the_conversation_in_its_template() -> None:
    task, item = CausalLM(word_tokenizer(), template="auto"), {"prompt": "what is ann", "answer": "baker"}
    talk = task.continued(item, "cook", "sure, what is ann")
    assert framed("auto", talk) == ("Question: what is ann\nAnswer: cook\n\nQuestion: sure, what is ann\nAnswer: ")
    longer = task.continued(talk, "nurse", "sure, what is ann")
    assert framed("auto", longer) == (
        "Question: what is ann\nAnswer: cook\n\nQuestion: sure, what is ann\nAnswer: nurse\n\n"
        "Question: sure, what is ann\nAnswer: "
    )
    assert task.answer(longer) == "baker"


def test_a_chat_template_goes_on_after_what_was_said() -> None:
    """What the model said is a turn of its own, after those that were there, and none that counts."""
    task = CausalLM(speaking(TURNS + ASKING))
    item = {"prompt": "job of bob", "answer": "cook has essen", "before": TALK[:3]}
    talk = task.continued(item, "nurse", "town of bob")
    assert [(turn["role"], turn["content"]) for turn in talk["before"][3:]] == [
        ("user", "job of bob"),
        ("assistant", "nurse"),
    ]
    assert talk["before"][:3] == TALK[:3]
    assert (talk["prompt"], talk["answer"]) == ("town of bob", "cook has essen")
    plain, gone_on = (int(task.collate([each])["targets"].ne(-100).sum()) for each in (item, talk))
    assert plain == gone_on


def test_each_turn_holds_what_the_model_answered_to_the_last(text_world: World) -> None:
    w = text_world
    first, second = attacked(MultiTurn(turns=2, doubt="wrong"), w.retrained[0], w)
    assert [first.budget, second.budget] == [1, 2]
    plain = list(iterate(w.request.forget))
    answers = w.task.generate(w.retrained[0], plain)  # type: ignore[attr-defined]
    for item, talk, answer in zip(plain, first.tested[0], answers, strict=True):  # type: ignore[call-overload]
        asked = item["prompt"]  # type: ignore[index]
        assert framed("plain", talk) == f"{asked} {answer}\n\nThat is not right. {asked}".replace("  ", " ")
        assert talk["answer"] == item["answer"]  # type: ignore[index]
    assert isinstance(first.tested[0], Answered)
    assert isinstance(second.tested[0], Answered)
    task: Any = w.task
    assert list(second.tested[0].answers) == task.generate(w.retrained[0], list(second.tested[0]))


def test_the_last_answer_of_a_conversation_counts(text_world: World) -> None:
    """Of three words of the truth two come back, in their order."""
    talk = {"prompt": "what is ann", "answer": "baker has essen"}
    success = MultiTurn().success(text_world.original, text_world.task, Answered([talk], ["baker essen"]))
    np.testing.assert_allclose(success.shown, [2 / 3])


def test_no_more_than_the_context_holds(text_world: World) -> None:
    """The small model's context are 64 words; the last turns of ten are there, and the question always."""
    w = text_world
    *_, last = attacked(MultiTurn(turns=10), w.original, w)
    for item, talk in zip(iterate(w.request.forget), last.tested[0], strict=True):  # type: ignore[call-overload]
        assert len(w.task.encode(talk)[0]) <= 64  # type: ignore[attr-defined]
        assert framed("plain", talk).endswith(f"Are you sure? {item['prompt']}")  # type: ignore[index]


class Marking(CausalLM):
    """A task whose models answer in a mark of the chat template."""

    def generate(self, model: nn.Module, items: Sequence[Any], *_: Any, **__: Any) -> list[str]:
        return ["baker </s> cook"] * len(items)


def test_an_answer_that_the_template_cannot_hold_is_left_out(text_world: World) -> None:
    w = replace(text_world, task=Marking(speaking(TURNS + ASKING)))
    (only,) = attacked(MultiTurn(turns=1), w.original, w)
    for item, talk in zip(iterate(w.request.forget), only.tested[0], strict=True):  # type: ignore[call-overload]
        assert talk == w.task.asked(item, f"Are you sure? {item['prompt']}")  # type: ignore[attr-defined,index]


def test_what_is_refused(text_world: World) -> None:
    w = text_world
    bare: Any = {
        split: [{"prompt": "", "answer": f"{split} {item['answer']}"} for item in iterate(w.request[split])]  # type: ignore[index]
        for split in ("forget", "retain", "holdout", "test")
    }
    with pytest.raises(NotSupported, match="plain text"):
        attacked(MultiTurn(), w.original, replace(w, request=Request(**bare)))
    with pytest.raises(BadInput, match="expected doubt to be"):
        MultiTurn(doubt="no")  # type: ignore[arg-type]


def test_brings_back_what_a_copy_takes_back(text_world: World) -> None:
    report = score_finding(MultiTurn(turns=1), setting_of(text_world, text_world.retrained[0])).report
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control
