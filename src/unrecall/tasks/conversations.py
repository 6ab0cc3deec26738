"""Conversations from records: turns with roles, of which the last answer is what a model is asked for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from unrecall.errors import BadInput
from unrecall.tasks.strings import filled, string

Turn: TypeAlias = dict[str, Any]
"""`role` (system, user or assistant) and `content`; `weight` 0 for an answer that doesn't count."""

CONVERSATIONS = ("messages", "conversations")
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def turns_of(record: Mapping[str, Any], where: str) -> list[Turn] | None:
    """The turns of `messages`, of `conversations` (as ShareGPT has them), or of a conversational `prompt` with its
    `completion`, whose own answers alone count; None where a record holds no conversation."""
    if all(record.get(key) is not None for key in CONVERSATIONS):
        raise BadInput(f"{where}: expected one conversation, got {' and '.join(CONVERSATIONS)}. Take one of them out.")
    for key in CONVERSATIONS:
        if key in record:
            return turns(record[key], f"{where}: {key}")
    if not any(isinstance(record.get(key), list) for key in ("prompt", "completion")):
        return None
    if "completion" not in record:
        raise BadInput(f"{where}: expected completion beside a prompt of turns, got none. Name it so.")
    prompt = _as_turns(record.get("prompt", []), "user")
    completion = turns(_as_turns(record["completion"], "assistant"), f"{where}: completion")
    before = [_uncounted(turn) for turn in turns(prompt, f"{where}: prompt")]
    return before + completion


def _as_turns(value: Any, role: str) -> Any:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _uncounted(turn: Turn) -> Turn:
    return {**turn, "weight": 0} if turn["role"] == "assistant" else turn


def spoken_after(item: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The item after the questions and answers of others, which don't count; what the system says comes first."""
    before = list(item.get("before") or [])
    system = [turn for turn in before if turn["role"] == "system"]
    spoken_turns = [turn for turn in before if turn["role"] != "system"]
    others = [turn for example in examples for turn in spoken({key: example[key] for key in ("prompt", "answer")})]
    return {**item, "before": [*system, *others, *spoken_turns]}


def spoken(item: Mapping[str, Any]) -> list[Turn]:
    """All turns of an example, its answer last, which doesn't count."""
    *before, answer = whole(item)
    return [*before, _uncounted(answer)]


def turns(value: Any, where: str) -> list[Turn]:
    """A list of turns with `role` and `content`, or `from` and `value`; BadInput where it is none.

    An answer whose `weight` is 0 doesn't count, as in OpenAI's files.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadInput(f"{where}: expected a list of turns, got {type(value).__name__}. Give role and content of each.")
    return [_turn(turn, f"{where}[{i}]") for i, turn in enumerate(value)]


def _turn(turn: Any, where: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise BadInput(f"{where}: expected a turn with role and content, got {type(turn).__name__}. Give both.")
    role_key, content_key = ("from", "value") if "from" in turn else ("role", "content")
    for key in (role_key, content_key):
        if key not in turn:
            raise BadInput(f"{where}: expected a turn with {role_key} and {content_key}, got no {key}. Give both.")
    role = ROLES.get(str(turn[role_key]))
    if role is None:
        raise BadInput(
            f"{where}: expected {role_key} to be one of {', '.join(ROLES)}, got '{turn[role_key]!s:.40}'. Rename it, "
            "or take the turn out."
        )
    if turn.get("tool_calls"):
        raise BadInput(
            f"{where}: expected a turn of text, got tool_calls, which no answer's text holds. Write the call into "
            f"{content_key} as the model says it, or take the conversation out."
        )
    if role != "assistant":
        return {"role": role, "content": string(turn[content_key], f"{where}: {content_key}")}
    weight = 1 if turn.get("weight") is None else turn["weight"]
    if not isinstance(weight, int | float) or math.isnan(weight):
        raise BadInput(f"{where}: expected weight to be a number, got {weight!r:.40}. Give 0 where it doesn't count.")
    content = filled(turn[content_key], f"{where}: {content_key}")
    return {"role": role, "content": content} | ({} if weight else {"weight": 0})


def as_example(turns: Sequence[Turn], where: str) -> dict[str, Any]:
    """`prompt` and `answer`, the last turns of both sides, and in `before` the turns that come first.

    What follows the last answer that counts decides nothing, and is left out. BadInput where no answer counts, or
    nothing stands before it.
    """
    last = max((i for i, turn in enumerate(turns) if counts(turn)), default=None)
    if last is None:
        roles = ", ".join(turn["role"] for turn in turns) or "no turns"
        raise BadInput(f"{where}: expected a turn of the assistant that counts, got {roles}. Remove the conversation.")
    before = list(turns[:last])
    if not before:
        raise BadInput(f"{where}: expected a turn before the assistant's, got none. Give it as text.")
    prompt = before.pop()["content"] if before[-1]["role"] == "user" and before[-1]["content"] else ""
    return {"prompt": prompt, "answer": turns[last]["content"]} | ({"before": before} if before else {})


def counts(turn: Turn) -> bool:
    """Whether a turn is an answer that counts."""
    return turn["role"] == "assistant" and "weight" not in turn


def whole(item: Mapping[str, Any]) -> list[Turn]:
    """All turns of an example, its answer last."""
    prompt = [{"role": "user", "content": item["prompt"]}] if item.get("prompt") else []
    return [*item.get("before", ()), *prompt, {"role": "assistant", "content": item["answer"]}]
