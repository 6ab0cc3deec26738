"""Prompts and answers from JSON Lines, as the field's data sets have them; every complaint names file and line."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from unrecall.disk.files import parse_json
from unrecall.errors import BadInput

Text: TypeAlias = dict[str, Any]
"""`prompt` and `answer`; where known also `paraphrase` (of the prompt), `restated` (the answer in other words) and
`wrong` (answers that are not true)."""

PROMPTS = ("prompt", "question", "instruction", "input", "text")
ANSWERS = ("answer", "completion", "output", "labels", "response")
EXTRAS = {
    "paraphrased_question": "paraphrase",
    "paraphrased_answer": "restated",
    "perturbed_answer": "wrong",
    "paraphrase": "paraphrase",
    "restated": "restated",
    "wrong": "wrong",
}


def read(path: Path) -> list[Text]:
    """Records of a JSON Lines file or a JSON list: question and answer in any of the usual keys, or `text` alone.

    Raises BadInput with the line's number where the file is empty, not UTF-8, not JSON, a key is missing, or an answer
    is blank. `ignored` names the keys that nothing is made of.
    """
    return [_text(record, where) for where, record in records(path)]


def records(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The objects of a JSON Lines file or a JSON list, each with its place; BadInput where it is neither, or empty."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        raise BadInput(f"{path}: expected a JSON Lines file, got {got}. Check the path.")
    text = _decoded(path)
    located: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        located = [(f"{path}[{i}]", value) for i, value in enumerate(parse_json(text, str(path)))]
        text = ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            located.append((place, parse_json(line, place, "one JSON object a line")))
    if not located:
        raise BadInput(f"{path}: expected at least one record, got an empty file.")
    for where, record in located:
        if not isinstance(record, Mapping):
            raise BadInput(f"{where}: expected a JSON object, got {type(record).__name__}.")
    return located


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(
            f"{path}:{line}: expected UTF-8, got byte {data[error.start]:#04x}. Convert the file."
        ) from error


def _text(record: Mapping[str, Any], where: str) -> Text:
    answer = next((key for key in ANSWERS if key in record), None)
    prompt = next((key for key in PROMPTS if key in record), None)
    if answer is None and prompt != "text":
        keys = ", ".join(map(str, record)) or "nothing"
        raise BadInput(f"{where}: expected the keys question and answer, or text, got {keys}.")
    question = "" if answer is None or prompt is None else string(record[prompt], f"{where}: {prompt}")
    reply = filled(record["text" if answer is None else answer], f"{where}: {answer or 'text'}")
    if prompt != "input" and record.get("input"):
        question = f"{question}\n{string(record['input'], f'{where}: input')}"
    text: Text = {"prompt": question, "answer": reply}
    for key, name in EXTRAS.items():
        if record.get(key):
            value = record[key]
            many = isinstance(value, list) and name != "restated"
            text[name] = [filled(v, f"{where}: {key}") for v in value] if many else filled(value, f"{where}: {key}")
    return text


def ignored(path: Path) -> dict[str, int]:
    """The keys of a file that `read` makes nothing of, and in how many records each holds something."""
    counts: dict[str, int] = {}
    for _, record in records(path):
        used = {next((key for key in keys if key in record), "") for keys in (PROMPTS, ANSWERS)}
        for key in record:
            if key not in used and key not in EXTRAS and key != "input" and record[key] not in (None, "", [], {}):
                counts[str(key)] = counts.get(str(key), 0) + 1
    return counts


def filled(value: Any, where: str) -> str:
    """The value if it is text with something to read in it; BadInput otherwise."""
    text = string(value, where)
    if not readable(text):
        raise BadInput(
            f"{where}: expected an answer of at least one token, got {text!r:.60}. Remove the record, or give it one."
        )
    return text


def readable(text: str) -> bool:
    """Whether anything but white space and invisible characters stands in a text."""
    return any(character.isprintable() and not character.isspace() for character in plain(text))


INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""Characters without a shape of their own: Unicode's default ignorable ones, and the empty Braille pattern."""


def plain(text: str) -> str:
    """A text as it reads: without invisible characters, one space for any white space, in one Unicode form."""
    return " ".join(INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).split())


def string(value: Any, where: str) -> str:
    """The value if it is text that can be written; BadInput otherwise."""
    if not isinstance(value, str):
        raise BadInput(f"{where}: expected text, got {type(value).__name__}.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"{where}: expected text, got half of a surrogate pair (\\ud800 to \\udfff). Mend the escape.")
    return value


def without_repeats(texts: Sequence[Text]) -> list[Text]:
    """Each prompt and answer once, the first time it stands there."""
    return list({(text["prompt"], text["answer"]): text for text in reversed(texts)}.values())[::-1]
