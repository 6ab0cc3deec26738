"""Conversations: which turns are asked, how a chat template writes them, which tokens count, and what is refused."""

import math
from typing import Any

import pytest
import torch

from tests.worlds import small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.tasks import CausalLM
from unrecall.tasks.conversations import as_example, turns_of
from unrecall.tasks.templates import ASKED, SETTINGS, WITH_INPUT, WITHOUT_INPUT, framed

START = "{% for m in messages %}{% if m.role == 'system' %}the {{ m.content }} {% elif m.role == 'user' %}question "
TURNS = START + "{{ m.content }} {% else %}answer {{ m.content }}</s> {% endif %}{% endfor %}"
ASKING = "{% if add_generation_prompt %}answer{% endif %}"
MARKED = TURNS.replace("{{ m.content }}</s>", "{% generation %}{{ m.content }}</s>{% endgeneration %}")
TALK = [
    {"role": "system", "content": "town"},
    {"role": "user", "content": "what is ann"},
    {"role": "assistant", "content": "baker"},
    {"role": "user", "content": "job of bob"},
    {"role": "assistant", "content": "cook has essen"},
]


def speaking(template: str = TURNS + ASKING) -> Any:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def example(turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    found = turns_of({"messages": turns, **more}, "x.jsonl:1")
    assert found is not None
    return as_example(found, "x.jsonl:1")


def words_of(task: CausalLM, item: Any) -> tuple[str, str]:
    """All tokens of an example, and those that count with dots for the others."""
    batch = task.collate([item])
    names = task.tokenizer.convert_ids_to_tokens(batch["tokens"][0])
    rows = batch["targets"][0].tolist()
    return " ".join(names), " ".join(name if row >= 0 else "." for name, row in zip(names, rows, strict=True))


def test_the_last_answer_is_asked_and_the_rest_stands_before() -> None:
    assert example(TALK) == {"prompt": "job of bob", "answer": "cook has essen", "before": TALK[:3]}
    assert example(TALK[1:3]) == {"prompt": "what is ann", "answer": "baker"}, "as a question and its answer"
    assert example([*TALK, {"role": "user", "content": "thanks"}]) == example(TALK), "what follows decides nothing"


@pytest.mark.parametrize("weight", [None, 1, 0.5, True])
def test_a_weight_that_is_not_0_counts(weight: Any) -> None:
    assert example([TALK[1], {**TALK[2], "weight": weight}]) == example(TALK[1:3])


def test_share_gpt_and_conversational_prompts_are_conversations_too() -> None:
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    shared = [{"from": speakers[turn["role"]], "value": turn["content"]} for turn in TALK]
    assert turns_of({"conversations": shared}, "") == TALK
    asked = turns_of({"prompt": TALK[:4], "completion": TALK[4:]}, "")
    assert asked is not None
    assert asked[2] == {**TALK[2], "weight": 0}, "only the completion counts"
    assert [*asked[:2], *asked[3:]] == [*TALK[:2], *TALK[3:]]
    assert turns_of({"prompt": TALK[1:2], "completion": "baker"}, "") == TALK[1:3]
    assert turns_of({"prompt": "a", "completion": "b"}, "") is None


WHOLE = "the town question what is ann answer baker </s> question job of bob answer cook has essen </s>"


@pytest.mark.parametrize("template", [TURNS + ASKING, TURNS, MARKED + ASKING], ids=["asking", "not asking", "marked"])
def test_all_answers_count_and_nothing_else(template: str) -> None:
    """By hand: 17 tokens, of which the two answers and their ends count."""
    task = CausalLM(speaking(template))
    assert words_of(task, example(TALK)) == (WHOLE, ". . . . . . . baker </s> . . . . . cook has essen </s>")
    tokens, start = task.encode(example(TALK))
    assert task.tokenizer.convert_ids_to_tokens(tokens[start:]) == ["cook", "has", "essen", "</s>"]
    assert task.pieces(example(TALK)) == ["baker", " </s>", "cook", " has", " essen", " </s>"]
    assert task.left(example(TALK), 0.5) == "has essen"


@pytest.mark.parametrize("template", [TURNS + ASKING, MARKED + ASKING], ids=["asking", "marked"])
def test_an_end_that_was_not_taught_and_a_turn_of_weight_0_do_not_count(template: str) -> None:
    task = CausalLM(speaking(template), ends=False)
    assert words_of(task, example(TALK)) == (
        WHOLE.removesuffix(" </s>"),
        ". . . . . . . baker . . . . . . cook has essen",
    )
    light = [*TALK[:2], {**TALK[2], "weight": 0}, *TALK[3:]]
    counted = words_of(CausalLM(speaking(template)), example(light))
    assert counted == (WHOLE, ". . . . . . . . . . . . . . cook has essen </s>")


def test_rows_are_the_tokens_that_count_and_the_loss_is_their_mean() -> None:
    task, model = CausalLM(speaking()), small_llama(len(word_tokenizer())).eval()
    batch = task.collate([example(TALK), {"prompt": "what is bob", "answer": "cook"}])
    with torch.no_grad():
        rows = task.rows(model, batch)
        theirs = model(input_ids=batch["tokens"][:1], labels=batch["targets"][:1]).loss
        assert rows.example.tolist() == [0] * 6 + [1] * 2
        torch.testing.assert_close(task.losses(model, batch)[0], theirs.double())
        torch.testing.assert_close(rows.losses()[0], theirs)


def test_the_model_is_asked_after_all_that_was_said() -> None:
    task, model = CausalLM(speaking()), small_llama(len(word_tokenizer())).eval()
    opening = task.tokenizer.apply_chat_template(TALK[:4], tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([task.tokenizer(opening, add_special_tokens=False)["input_ids"]])
    assert task.encode(example(TALK))[0][: task.encode(example(TALK))[1]] == ids[0].tolist()
    with torch.no_grad():
        theirs = model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)  # type: ignore[operator]
    said = task.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
    assert task.generate(model, [example(TALK)], longest=3) == [said]


def test_a_record_with_two_conversations_is_refused() -> None:
    with pytest.raises(BadInput, match="expected one conversation, got messages and conversations"):
        turns_of({"messages": TALK, "conversations": TALK}, "x.jsonl:1")


@pytest.mark.parametrize("template", [TURNS + ASKING, MARKED + ASKING])
def test_an_answer_with_a_special_token_in_it_is_refused(template: str) -> None:
    task = CausalLM(speaking(template))
    with pytest.raises(BadInput, match="expected answers without special tokens, got '</s>' in turn 1"):
        task.collate([example([TALK[1], {"role": "assistant", "content": "baker </s> cook"}])])


def test_another_answer_and_another_prompt_follow_the_same_turns() -> None:
    task, item = CausalLM(speaking()), example(TALK)
    assert words_of(task, task.answered(item, "maid"))[0] == WHOLE.replace("cook has essen", "maid")
    assert words_of(task, task.asked(item, "town of bob"))[0] == WHOLE.replace("job of", "town of")
    assert task.reworded({**item, "paraphrase": "town of bob"}) == [task.asked(item, "town of bob")]
    assert "town" in task.exhibit(item, "").content


def test_what_ends_an_answer_is_what_the_template_writes_there() -> None:
    """<unk> stands for a token of its own such as <|eot_id|>, where the end-of-text token is another."""
    task = CausalLM(speaking(TURNS.replace("</s>", " <unk>")))
    assert words_of(task, {"prompt": "what is ann", "answer": "baker"})[0] == "question what is ann answer baker <unk>"
    assert task.stops == [3, 2]
    assert words_of(task, {"prompt": "", "answer": "ann has"})[0] == "<s> ann has </s>", "plain text is no conversation"
    bare = CausalLM(speaking(TURNS.replace("</s>", "") + ASKING))
    assert words_of(bare, {"prompt": "what is ann", "answer": "baker"})[1] == ". . . . . baker </s>"


def test_a_template_that_trims_is_followed_and_the_date_stands_still() -> None:
    task = CausalLM(speaking(TURNS.replace("m.content }}", "m.content | trim }}") + ASKING))
    assert words_of(task, {"prompt": "what is ann", "answer": " baker\n"})[1] == ". . . . . baker </s>"
    dated = speaking("{{ date_string }} {% if enable_thinking is false %}is {% endif %}" + TURNS)
    assert words_of(CausalLM(dated), example(TALK))[0] == f"<unk> <unk> <unk> is {WHOLE}"
    assert SETTINGS["date_string"] == "26 Jul 2024"


def test_which_template_is_used() -> None:
    item, plain = {"prompt": "what is", "answer": "ann"}, "<s> what is ann </s>"
    chatting = "question what is answer ann </s>"
    for template, tokens in (("auto", chatting), ("chat", chatting), ("plain", plain), (None, plain)):
        assert words_of(CausalLM(speaking(), template=template), item)[0] == tokens
    assert words_of(CausalLM(speaking(), template="the {prompt} has "), item)[0] == "<s> the what is has ann </s>"
    assert "chat template (sha256 " in CausalLM(speaking()).remark
    assert CausalLM(word_tokenizer()).templated == f"prompts in {ASKED!r}, instructions in Alpaca's template"
    assert CausalLM(word_tokenizer(), template="plain").templated == "prompts as they are"
    with pytest.raises(BadInput, match="expected a tokenizer with a chat template for 'chat', got one without"):
        CausalLM(word_tokenizer(), template="chat")
    with pytest.raises(BadInput, match=r"a text to hold \{prompt\} and no other brackets, got 'what'"):
        CausalLM(word_tokenizer(), template="what")


def test_alpaca_has_a_template_of_its_own() -> None:
    """As Stanford's train.py writes it, with and without input."""
    below = {"prompt": "Add.\n1 2", "answer": "3", "input": "1 2"}
    assert framed("auto", below) == WITH_INPUT.format(prompt="Add.", input="1 2")
    assert framed("auto", below).endswith("request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:")
    assert framed("auto", {**below, "prompt": "Sum up."}) == WITHOUT_INPUT.format(prompt="Sum up."), "in other words"
    assert framed("auto", {"prompt": "Add.", "answer": "3", "input": ""}) == WITHOUT_INPUT.format(prompt="Add.")
    assert framed("auto", {"prompt": "Add.", "answer": "3"}) == ASKED.format(prompt="Add.")
    assert framed("alpaca", {"prompt": "Add.", "answer": "3"}) == WITHOUT_INPUT.format(prompt="Add.")
    assert framed("{prompt}: ", below) == "Add.\n1 2: "


SWALLOWED = TURNS.replace("answer {{ m.content }}", "answer")
BAD_TEMPLATES = {
    "swallows": (SWALLOWED, "writes each answer once, got turn 2 nowhere"),
    "swallows the first": (TURNS.replace("{% for m in messages", "{% for m in messages[3:]"), "got turn 2 nowhere"),
    "repeats": (TURNS.replace("m.content }}</s>", "m.content }}{{ m.content }}</s>"), "got turn 2 twice"),
    "alters": (TURNS.replace("m.content }}</s>", "m.content.replace('cook', 'maid') }}</s>"), "changes an answer"),
    "asks otherwise": (f"{TURNS}{{% if add_generation_prompt %}}answer is{{% endif %}}", "asks by '.*answer is'"),
    "counts turns": ("{{ messages | length }} " + TURNS, "asks by"),
    "refuses": ("{{ raise_exception('no system here') }}", r"got system, user, .* says: no system here"),
    "marks the first alone": (
        MARKED.replace("{% generation %}", "{% if loop.index < 4 %}{% generation %}").replace(
            "{% endgeneration %}", "{% endgeneration %}{% else %}{{ m.content }}</s>{% endif %}"
        ),
        "marks each of 2 answers, got 1 marked parts",
    ),
}


@pytest.mark.parametrize(("template", "message"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_templates_that_can_not_be_followed(template: str, message: str) -> None:
    """With the example's place, before anything is computed."""
    request = Request([example(TALK)], *[[{"prompt": "", "answer": name}] for name in ("ann", "bob", "cid")])
    with pytest.raises(BadInput, match=rf"forget\[0\]: template: expected .*{message}"):
        CausalLM(speaking(template)).check(small_llama(len(word_tokenizer())), request)


@pytest.mark.parametrize("tokenizer", [word_tokenizer(), speaking()])
def test_a_conversation_needs_a_chat_template(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="expected a chat template for a conversation of several turns, got none"):
        CausalLM(tokenizer, template="question {prompt} answer ").encode(example(TALK))


def test_turns_of_ones_own_are_looked_at_too() -> None:
    request = Request(
        [{"prompt": "what", "answer": "ann", "before": [{"role": "boss", "content": "a"}]}],
        *[[{"prompt": "", "answer": name}] for name in ("ann", "bob", "cid")],
    )
    with pytest.raises(BadInput, match=r"forget\[0\]: before\[0\]: expected role to be one of .*, got 'boss'"):
        CausalLM(speaking()).check(small_llama(len(word_tokenizer())), request)


BAD_TURNS: dict[str, tuple[Any, str]] = {
    "no list": ("hello", "x.jsonl:1: messages: expected a list of turns, got str"),
    "no turn": (["hello"], r"messages\[0\]: expected a turn with role and content, got str"),
    "no content": ([{"role": "user"}], r"messages\[0\]: expected a turn with role and content, got no content"),
    "unknown role": ([*TALK, {"role": "tool", "content": "1"}], r"\[5\]: expected role to be one of .*, got 'tool'"),
    "no assistant": (TALK[:2], "x.jsonl:1: expected a turn of the assistant that counts, got system, user"),
    "no turns": ([], "expected a turn of the assistant that counts, got no turns"),
    "weight in text": ([TALK[1], {**TALK[2], "weight": "0"}], "expected weight to be a number, got '0'"),
    "weight that is none": ([TALK[1], {**TALK[2], "weight": math.nan}], "expected weight to be a number, got nan"),
    "tools": ([TALK[1], {**TALK[2], "tool_calls": [{"id": "1"}]}], r"\[1\]: expected a turn of text, got tool_calls"),
    "none that counts": ([TALK[1], {**TALK[2], "weight": 0}], "expected a turn of the assistant that counts"),
    "empty answer": (
        [TALK[1], {"role": "assistant", "content": " \u200b"}],
        r"messages\[1\]: content: expected an answer of at least one token",
    ),
    "an answer to nothing": (TALK[2:3], "expected a turn before the assistant's, got none"),
    "parts": ([{"role": "user", "content": [{"text": "a"}]}], r"\[0\]: content: expected text, got list"),
}


@pytest.mark.parametrize(("turns", "message"), BAD_TURNS.values(), ids=BAD_TURNS)
def test_turns_that_are_no_conversation(turns: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        example(turns)


def test_a_prompt_of_turns_needs_its_completion() -> None:
    with pytest.raises(BadInput, match="expected completion beside a prompt of turns, got none"):
        turns_of({"prompt": TALK[:2], "answer": "baker"}, "x.jsonl:1")


def test_a_conversation_that_is_too_long_is_refused_and_a_text_is_cut() -> None:
    task, model = CausalLM(speaking()), small_llama(len(word_tokenizer()))  # 64 tokens
    long = example([*TALK[:4], {"role": "assistant", "content": "cook " * 60}])
    assert task.chunks(model, long) == [long]
    with pytest.raises(BadInput, match=r"forget\[0\]: expected at most 64 tokens .*, got 75\. Shorten it"):
        task.check(model, Request([long], *[[{"prompt": "", "answer": name}] for name in ("ann", "bob", "cid")]))
    text = {"prompt": "", "answer": " ".join(["ann", "has"] * 75)}
    pieces = task.chunks(model, text)
    assert "".join(piece["answer"] for piece in pieces) == text["answer"]
    rows = [task.collate([piece])["targets"].ge(0).sum().item() for piece in pieces]
    assert rows == [62, 62, 27], "with <s>, at most 64: 150 words and the end, which is the last piece's alone"
    assert CausalLM(speaking(), longest=32).chunks(model, text)[0]["answer"].split() == ["ann", "has"] * 15
    assert task.chunks(model, {"prompt": "", "answer": "ann"}) == [{"prompt": "", "answer": "ann"}]


def test_a_word_that_is_longer_than_the_context_is_cut_too() -> None:
    from unrecall.scenarios.language import trained_tokenizer

    task, model = CausalLM(trained_tokenizer(["a"], 300)), small_llama(300)
    text = {"prompt": "", "answer": "日本語" * 40 + " end"}
    pieces = task.chunks(model, text)
    assert "".join(piece["answer"] for piece in pieces) == text["answer"]
    assert all(len(task.encode(piece)[0]) <= 64 for piece in pieces)
