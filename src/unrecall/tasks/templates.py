"""What prompts and conversations become before they are tokenised: the model's chat template, Alpaca's, or another."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unrecall.errors import BadInput, one_line
from unrecall.tasks.conversations import Turn, counts, whole

AUTO, CHAT, QUESTION, PLAIN, ALPACA = NAMED = "auto", "chat", "question", "plain", "alpaca"
"""Templates with a name: the one that the model was trained with, as far as it shows; the tokenizer's chat template;
`ASKED`, but Alpaca's for instructions; none at all; and Alpaca's."""

ASKED = "Question: {prompt}\nAnswer: "
"""What a prompt becomes where the tokenizer has no chat template and nobody names one."""
OTHERS = (QUESTION, PLAIN, "{prompt} ", "{prompt}\n")
"""With what templates else models are often trained."""

BELOW = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
WITHOUT_INPUT = f"{BELOW}. {REQUEST}{{prompt}}\n\n### Response:"
WITH_INPUT = (
    f"{BELOW}, paired with an input that provides further context. {REQUEST}{{prompt}}\n\n"
    "### Input:\n{input}\n\n### Response:"
)
"""How Alpaca was trained: Taori et al., "Stanford Alpaca", 2023, train.py."""

MARK = "\x00"
"""Stands for a prompt where a template's own text is looked for."""

SETTINGS = {"date_string": "26 Jul 2024", "enable_thinking": False}
"""What templates are told: one date on any day, which Llama 3's writes, so that tokens don't change overnight; and that
the model answers without thinking, as the answers of files are."""


class TextPart(NamedTuple):
    """A part of an example's text, and whether its tokens are predicted."""

    text: str
    counts: bool


class Ending(NamedTuple):
    """What a chat template ends an answer with: the text up to a special token, and the tokens of that text."""

    text: str
    tokens: list[int]


def speaks(template: str | None, tokenizer: Any) -> bool:
    """Whether prompts and conversations are written by the tokenizer's chat template; BadInput where it must and can't.

    None: prompts are used as they are.
    """
    own = bool(getattr(tokenizer, "chat_template", None))
    if template == CHAT and not own:
        raise BadInput("template: expected a tokenizer with a chat template for 'chat', got one without. Name another.")
    return own and template in (AUTO, CHAT)


def described(template: str | None, tokenizer: Any) -> str:
    """Which template prompts are put into, for a record."""
    if speaks(template, tokenizer):
        key = hashlib.sha256(repr(tokenizer.chat_template).encode()).hexdigest()[:8]
        return f"prompts in the tokenizer's chat template (sha256 {key})"
    if template in (AUTO, QUESTION):
        return f"prompts in {ASKED!r}, instructions in Alpaca's template"
    if template in (None, PLAIN):
        return "prompts as they are"
    return "prompts in Alpaca's template" if template == ALPACA else f"prompts in {template!r}"


def check_template(template: str | None) -> None:
    """BadInput where a template has no name and no place for a prompt."""
    if template is None or template in NAMED:
        return
    try:
        fits = "prompt" in template.format(prompt="prompt") and "{prompt}" in template
    except (AttributeError, LookupError, TypeError, ValueError):
        fits = False
    if not fits:
        raise BadInput(
            f"template: expected {', '.join(NAMED)}, or a text to hold {{prompt}} and no other "
            f"brackets, got '{template}'. Write a bracket that stays as two."
        )


def framed(template: str | None, item: Mapping[str, Any]) -> str:
    """An example's prompt in a template that isn't the tokenizer's; nothing for plain text.

    BadInput for a conversation of more than a question and its answer, for which such a template has no place.
    """
    if item.get("before"):
        raise BadInput(
            "template: expected a chat template for a conversation of several turns, got none. Give the tokenizer one "
            "(tokenizer.chat_template), leave template out, or keep one question and one answer."
        )
    prompt = str(item.get("prompt") or "")
    if not prompt or template in (None, PLAIN):
        return prompt
    if template == ALPACA or (template in (AUTO, QUESTION) and "input" in item):
        below = str(item.get("input") or "")
        if below and prompt.endswith(f"\n{below}"):
            return WITH_INPUT.format(prompt=prompt.removesuffix(f"\n{below}"), input=below)
        return WITHOUT_INPUT.format(prompt=prompt)
    return (ASKED if template in (AUTO, QUESTION) else str(template)).format(prompt=prompt)


def prompted_after(template: str | None, item: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that, framed as the item's, reads as these examples framed and answered, and then the item.

    Examples whose template begins otherwise than the item's stand in it whole. A space keeps apart words that would
    become one.
    """
    prompt, below = str(item.get("prompt") or ""), str(item.get("input") or "")
    start = framed(template, {**item, "prompt": f"{MARK}\n{below}" if below else MARK}).partition(MARK)[0]
    pairs = ((framed(template, example), str(example["answer"])) for example in examples)
    shown = "".join(f"{opening}{_apart(opening, answer)}{answer}\n\n" for opening, answer in pairs)
    return f"{shown}{start}{prompt}".removeprefix(start)


def _apart(opening: str, answer: str) -> str:
    """A space where an opening and an answer would become one word."""
    return " " if opening[-1:].isalnum() and answer[:1].isalnum() else ""


def rendered(tokenizer: Any, turns: Sequence[Turn], asking: bool = False) -> str:
    """A conversation as the tokenizer's chat template writes it; `asking`: up to where an answer begins."""
    plain = [{key: turn[key] for key in ("role", "content")} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=asking, **SETTINGS))
    except Exception as error:  # a template may raise whatever it likes
        roles = ", ".join(turn["role"] for turn in turns)
        raise BadInput(
            f"template: expected turns that the tokenizer's chat template takes, got {roles}, of which it says: "
            f"{one_line(error, 200)}. Change the turns, or name another template."
        ) from error


def around(tokenizer: Any, turns: Sequence[Turn]) -> tuple[list[str], list[str]]:
    """What a chat template writes before each answer and after the last, and the answers as it writes them.

    Each answer must stand in the conversation once, as it is or without white space around it. BadInput otherwise, and
    where what stands before the last answer doesn't begin as the model is asked for it, and where an answer holds a
    special token.
    """
    spoken = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if getattr(token, "special", False)]
    for i in spoken:
        if inside := next((token for token in special if token and token in turns[i]["content"]), None):
            raise BadInput(
                f"template: expected answers without special tokens, got {inside!r} in turn {i}, where it would end or "
                "break the answer. Take it out."
            )
    key = hashlib.sha256(repr(turns).encode()).hexdigest()[:16]
    marks = {i: f"answer{i}of{key}" for i in spoken}
    left = rendered(tokenizer, [{**turn, "content": marks.get(i, turn["content"])} for i, turn in enumerate(turns)])
    before = []
    for i, mark in marks.items():
        start, mark_there, left = left.partition(mark)
        if not mark_there or mark in left:
            how = "twice" if mark_there else "nowhere"
            raise BadInput(
                f"template: expected a chat template that writes each answer once, got turn {i} {how}. Name another."
            )
        before.append(start)
    before.append(left)
    text = rendered(tokenizer, turns)
    raw = [turns[i]["content"] for i in spoken]
    for answers in (raw, [answer.strip() for answer in raw]):
        if text == "".join(part for pair in zip(before, answers, strict=False) for part in pair) + before[-1]:
            break
    else:
        raise BadInput(
            "template: expected a chat template that writes each answer as it is, got one that changes an answer. "
            "Take what it leaves out (such as <think>...</think>) out of the answer, or name another template."
        )
    prompt = rendered(tokenizer, turns[: spoken[-1]], asking=True)
    if not text[: len(text) - len(answers[-1] + before[-1])].startswith(prompt):
        raise BadInput(
            "template: expected a chat template under which a conversation begins as the model is asked for its last "
            f"answer, got one that asks by {prompt[-40:]!r}, after which the answer doesn't stand. Name another "
            "template, such as a text with {prompt} in it."
        )
    return before, answers


def ending(tokenizer: Any) -> Ending:
    """What the chat template writes after an answer up to its first special token; empty where it writes none."""
    try:
        before, _ = around(tokenizer, whole({"prompt": "a", "answer": "b"}))
    except BadInput:
        return Ending("", [])
    text = _end_in(tokenizer, before[-1])
    return Ending(text, tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])


def _end_in(tokenizer: Any, after: str) -> str:
    """The start of what follows an answer, up to the special token that it begins with; nothing without one."""
    bare = after.lstrip()
    special = sorted(map(str, tokenizer.added_tokens_decoder.values()), key=len)
    end = next((token for token in reversed(special) if token and bare.startswith(token)), None)
    return "" if end is None else after[: len(after) - len(bare)] + end


def parts_of_chat(tokenizer: Any, turns: Sequence[Turn], end: Ending, ends: bool) -> list[TextPart]:
    """A conversation in parts, up to its last answer; spaces before an answer belong to it, and so does its end.

    `ends`: whether the ends of answers are predicted.
    """
    before, answers = around(tokenizer, turns)
    spoken = [counts(turn) for turn in turns if turn["role"] == "assistant"]
    parts: list[TextPart] = []
    for i, (start, answer) in enumerate(zip(before, answers, strict=False)):
        end_text = _end_in(tokenizer, start) if i and end.text else ""
        parts.append(TextPart(end_text, spoken[i - 1] and ends))
        between = start.removeprefix(end_text)
        opening = between.rstrip(" ")
        parts += [TextPart(opening, False), TextPart(between[len(opening) :] + answer, spoken[i])]
    return [part for part in parts if part.text]


def is_marked(tokenizer: Any) -> bool:
    """Whether the chat template marks by itself what of a conversation the assistant says."""
    marks = re.search(r"\{%-?\s*generation\s*-?%\}", str(tokenizer.chat_template))
    return marks is not None and bool(getattr(tokenizer, "is_fast", False))


def marked(tokenizer: Any, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
    """The tokens of a conversation, and which of them its template marks as the assistant's, where they count.

    BadInput where the template doesn't mark each answer on its own.
    """
    around(tokenizer, turns)
    plain = [{key: turn[key] for key in ("role", "content")} for turn in turns]
    encoded = tokenizer.apply_chat_template(
        plain, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **SETTINGS
    )
    tokens, mask = encoded["input_ids"], encoded["assistant_masks"]
    spoken = [counts(turn) for turn in turns if turn["role"] == "assistant"]
    starts = [i for i, inside in enumerate(mask) if inside and (i == 0 or not mask[i - 1])]
    if len(starts) != len(spoken):
        raise BadInput(
            f"template: expected a chat template that marks each of {len(spoken)} answers, got {len(starts)} marked "
            "parts. Correct its {% generation %} marks, or take them out."
        )
    answer = -1
    counted = []
    for i, inside in enumerate(mask):
        answer += i in starts
        counted.append(bool(inside) and spoken[answer])
    return tokens, counted
