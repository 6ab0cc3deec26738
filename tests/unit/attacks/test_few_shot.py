"""Questions after others' answers: what is asked, where the context ends, and both controls."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.attacks.running import attacked, setting_of
from tests.unit.tasks.test_conversations import ASKING, TALK, TURNS, speaking
from tests.worlds import World, word_tokenizer
from unrecall.attacks.few_shot import FewShot, overlap
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.tasks import CausalLM
from unrecall.tasks.templates import framed

FIRST = {"prompt": "what is ann", "answer": "baker"}
SECOND = {"prompt": "job of bob", "answer": "cook has essen"}
LAST = {"prompt": "town of cid", "answer": "nurse"}
FRAMES = {
    "auto": "Question: what is ann\nAnswer: baker\n\nQuestion: job of bob\nAnswer: cook has essen\n\n"
    "Question: town of cid\nAnswer: ",
    "plain": "what is ann baker\n\njob of bob cook has essen\n\ntown of cid",
    "say {prompt} now ": "say what is ann now baker\n\nsay job of bob now cook has essen\n\nsay town of cid now ",
}


@pytest.mark.parametrize("template", FRAMES)
def test_each_example_stands_in_the_template(template: str) -> None:
    task = CausalLM(word_tokenizer(), template=template)
    asked = task.after(LAST, [FIRST, SECOND])
    assert framed(template, asked) == FRAMES[template]
    assert task.answer(asked) == "nurse"
    assert task.after(LAST, []) == LAST


def test_examples_of_another_template_stand_there_whole() -> None:
    instruction = {"prompt": "say it\nloud", "answer": "a", "input": "loud"}
    task = CausalLM(word_tokenizer())
    asked = framed("auto", task.after(instruction, [FIRST, instruction]))
    assert asked.count("### Input:\nloud\n\n### Response:") == 2
    assert "Question: what is ann\nAnswer: baker\n\n" in asked
    assert asked.endswith(framed("auto", instruction))


def test_a_chat_template_writes_them_as_turns() -> None:
    """After what the system says and before what was said; no answer of theirs counts."""
    task = CausalLM(speaking(TURNS + ASKING))
    talk = {"prompt": "job of bob", "answer": "cook has essen", "before": TALK[:3]}
    asked = task.after(talk, [LAST])
    roles = [(turn["role"], turn["content"]) for turn in asked["before"]]
    assert roles == [
        ("system", "town"),
        ("user", "town of cid"),
        ("assistant", "nurse"),
        ("user", "what is ann"),
        ("assistant", "baker"),
    ]
    plain, after = (int(task.collate([item])["targets"].ne(-100).sum()) for item in (talk, asked))
    assert plain == after


def test_asks_every_model_after_the_same_examples(text_world: World) -> None:
    w = text_world
    found = attacked(FewShot(ks=(2, 1)), w.original, w)
    assert [one.budget for one in found] == [1, 2]
    retain: Any = [f"{item['prompt']} {item['answer']}\n\n" for item in iterate(w.request.retain)]
    for one in found:
        for item, plain in zip(one.tested[0], iterate(w.request.forget), strict=True):  # type: ignore[call-overload]
            asked = framed("plain", item)
            assert sum(shot in asked for shot in retain) == one.budget
            assert asked.endswith(framed("plain", plain))
            assert item["answer"] == plain["answer"]  # type: ignore[index]
    other = attacked(FewShot(ks=(2, 1)), w.retrained[0], w)
    assert [list(one.tested[1]) for one in found] == [list(one.tested[1]) for one in other]  # type: ignore[call-overload]


def test_no_more_than_the_context_holds(text_world: World) -> None:
    """The small model's context are 64 words; a question and an answer are about 14."""
    w = text_world
    (one,) = attacked(FewShot(ks=(20,)), w.original, w)
    lengths = [len(w.task.encode(item)[0]) for item in one.tested[0]]  # type: ignore[attr-defined,call-overload]
    assert max(lengths) <= 64
    assert min(lengths) > 64 - 16


def test_shared_trigrams_by_hand() -> None:
    """Of " ab ", " ab", "ab ", and of " abc ", " ab", "abc", "bc ": one of four. In any script, case and spelling."""
    assert overlap("AB", "abc") == 1 / 4
    assert overlap("", "ab") == 0
    assert overlap("\u00e9a", "e\u0301a") == 1, "one letter, or a letter and its accent"
    city, country, other = "张伟住在哪个城市？", "张伟住在哪个国家？", "李娜的生日是哪天？"
    assert overlap(city, country) > 0.3 > overlap(city, other)


def test_related_examples_share_most_and_the_nearest_comes_last(text_world: World) -> None:
    w = text_world
    retain: Any = [
        {"prompt": "what is the town of ann", "answer": "essen"},
        {"prompt": "job of bob", "answer": "cook"},
        {"prompt": "what is ann", "answer": "baker"},
    ]
    forget: Any = [{"prompt": "what is the job of ann", "answer": "nurse"}, {"prompt": "job of cid", "answer": "cook"}]
    setting = replace(w, request=replace(w.request, retain=retain, forget=forget))
    (one,) = attacked(FewShot(ks=(2,), selection="related"), w.original, setting)
    of_ann, of_cid = (framed("plain", item) for item in list(one.tested[0])[:2])  # type: ignore[call-overload]
    assert of_ann == "what is ann baker\n\nwhat is the town of ann essen\n\nwhat is the job of ann"
    assert of_cid.endswith("job of bob cook\n\njob of cid")


def test_plain_text_is_refused(text_world: World) -> None:
    w = text_world
    bare: Any = {
        split: [{"prompt": "", "answer": f"{split} {item['answer']}"} for item in iterate(w.request[split])]  # type: ignore[index]
        for split in ("forget", "retain", "holdout", "test")
    }
    with pytest.raises(NotSupported, match="plain text"):
        attacked(FewShot(), w.original, replace(w, request=Request(**bare)))
    asking: Any = {split: list(iterate(w.request[split])) for split in ("forget", "holdout", "test")}  # type: ignore[index]
    with pytest.raises(NotSupported, match="examples of retain with prompts"):
        attacked(FewShot(), w.original, replace(w, request=Request(retain=bare["retain"], **asking)))
    with pytest.raises(BadInput, match="at least one k"):
        FewShot(ks=())


@pytest.mark.parametrize("selection", ["random", "related"])
def test_brings_back_what_a_copy_hides(text_world: World, selection: Any) -> None:
    report = score_finding(FewShot(selection=selection), setting_of(text_world, text_world.retrained[0])).report
    assert report.positive_holds, report.positive_control
