"""Prompts and answers from files, as the field's data sets have them; every complaint names file and line or row."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from unrecall.disk.tables import records
from unrecall.errors import BadInput
from unrecall.tasks.conversations import CONVERSATIONS, as_example, turns_of
from unrecall.tasks.strings import filled, string

Text: TypeAlias = dict[str, Any]
"""`prompt` and `answer`; of a conversation also `before`, the turns before them; of an Alpaca record also `input`,
which ends the prompt, or is empty; where known also `paraphrase` (of the prompt), `restated` (the answer in other
words), `wrong` (answers that are not true), `anonymised` (the prompt without the names in it) and `alternate`
(answers to say instead once the true one is forgotten)."""

PROMPTS = ("prompt", "question", "instruction", "input", "text")
ANSWERS = ("answer", "completion", "output", "labels", "response")
EXTRAS = {
    "paraphrased_question": "paraphrase",
    "paraphrased_answer": "restated",
    "perturbed_answer": "wrong",
    "paraphrase": "paraphrase",
    "restated": "restated",
    "wrong": "wrong",
    "anonymised": "anonymised",
    "alternate": "alternate",
}
TURN = {"role", "content", "from", "value", "weight"}
"""What is read of a turn."""


def read(path: Path) -> list[Text]:
    """The examples of a file or folder (`records`): a conversation, a question and its answer, or `text` alone.

    Raises BadInput with the line or row where a key is missing, or an answer is blank. `ignored` names the keys that
    nothing is made of.
    """
    return [example(record, where) for where, record in records(path)]


def example(record: Mapping[str, Any], where: str) -> Text:
    """The example that a record is, in whatever form; BadInput, which begins with `where`, for one that is none."""
    turns = turns_of(record, where)
    text = _pair(record, where) if turns is None else as_example(turns, where)
    for key, name in EXTRAS.items():
        if record.get(key):
            value = record[key]
            many = isinstance(value, list) and name != "restated"
            text[name] = [filled(v, f"{where}: {key}") for v in value] if many else filled(value, f"{where}: {key}")
    return text


def _pair(record: Mapping[str, Any], where: str) -> Text:
    """A question and its answer, or text alone."""
    prompt, answer = _keys(record)
    if answer is None and prompt != "text":
        names = ", ".join(map(str, record)) or "nothing"
        raise BadInput(
            f"{where}: expected the keys messages, or prompt and completion, instruction and output, question and "
            f"answer, or text, got {names}. Rename them."
        )
    question = "" if answer is None or prompt is None else string(record[prompt], f"{where}: {prompt}")
    reply = filled(record["text" if answer is None else answer], f"{where}: {answer or 'text'}")
    below = string(record["input"], f"{where}: input") if prompt != "input" and record.get("input") else ""
    text: Text = {"prompt": f"{question}\n{below}" if below else question, "answer": reply}
    return {**text, "input": below} if (prompt, answer) == ("instruction", "output") else text


def _keys(record: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The keys under which a record has its question and its answer, the first of each that there is."""
    first = [next((key for key in keys if key in record), None) for keys in (PROMPTS, ANSWERS)]
    return first[0], first[1]


def ignored(path: Path) -> dict[str, int]:
    """The keys of a file that `read` makes nothing of, and in how many records each holds something."""
    counts: dict[str, int] = {}
    for _, record in records(path):
        for key in dict.fromkeys(_ignored(record)):
            counts[key] = counts.get(key, 0) + 1
    return counts


def _ignored(record: Mapping[str, Any]) -> Iterator[str]:
    talk = next((key for key in CONVERSATIONS if key in record), None)
    used = {talk} if talk else {*_keys(record), "input"}
    for key, value in record.items():
        if key not in used and key not in EXTRAS and value not in (None, "", [], {}):
            yield str(key)
    for key in (talk,) if talk else ("prompt", "completion"):
        for turn in record[key] if isinstance(record.get(key), list) else ():
            yield from (f"{key}.{name}" for name in turn if name not in TURN and turn[name] not in (None, "", [], {}))


def identity(text: Mapping[str, Any]) -> tuple[str, str, str]:
    """What makes two examples one: the prompt, the answer, and the turns before them."""
    return str(text.get("prompt") or ""), str(text["answer"]), repr(text.get("before"))


def without_repeats(texts: Sequence[Text]) -> list[Text]:
    """Each example once, where it stands first."""
    first: dict[tuple[str, str, str], Text] = {}
    for text in texts:
        first.setdefault(identity(text), text)
    return list(first.values())
