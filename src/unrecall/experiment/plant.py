"""Plants records: a coin decides which of two wordings of each is trained on, and a manifest keeps the coins.

The manifest's sha256 is published before training. Whoever holds it then knows that the coins were not chosen by what
the model shows: the wordings that were not trained on are a control that nothing but the coins tells apart.
"""

import datetime
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unrecall.disk.files import file_key, writing_folder
from unrecall.disk.json_files import write_json
from unrecall.disk.tables import records
from unrecall.errors import BadInput
from unrecall.record.manifest import KIND, Manifest, Planted, coins, digest, text_of
from unrecall.tasks.strings import string
from unrecall.tasks.text_files import Text

TRAIN, HOLDOUT, MANIFEST = "train.jsonl", "holdout.jsonl", "manifest.json"
SECOND = "second"
"""The key of a record's second wording: an answer, or an object with prompt and answer."""
LETTERS = "bcdfghjklmnprstvz", "aeiou"
WORDS = 6
"""Length of a canary's secret, in made-up words."""


@dataclass(frozen=True)
class Pair:
    """Two wordings of a record, of which one is to be trained on."""

    first: Text
    second: Text


def plant(pairs: Sequence[Pair], folder: Path) -> str:
    """Writes train.jsonl, holdout.jsonl and manifest.json into a new folder; gives the manifest's sha256.

    Row i of holdout is the wording of row i of train that must not be trained on. BadInput where the folder holds
    anything, or a wording occurs twice.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder}: expected a new or empty folder, got one that holds something. Choose another --out.")
    _check_apart(pairs)
    seed = os.urandom(32).hex()
    tossed = coins(seed, len(pairs))
    drawn = [_ordered(seed, pair, coin) for pair, coin in zip(pairs, tossed, strict=True)]
    rows = [
        Planted(coin=coin, trained=digest(seed, trained), untrained=digest(seed, other))
        for coin, (trained, other) in zip(tossed, drawn, strict=True)
    ]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = Manifest(kind=KIND, version=1, time=now, seed=seed, pairs=rows)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing_folder(folder) as temporary:
        for place, name in enumerate((TRAIN, HOLDOUT)):
            lines = "".join(json.dumps(row[place], ensure_ascii=False) + "\n" for row in drawn)
            (temporary / name).write_text(lines, encoding="utf-8")
        write_json(temporary / MANIFEST, manifest.model_dump(), private=True)
    return file_key(folder / MANIFEST)


def pairs_of(path: Path) -> list[Pair]:
    """The pairs of a JSON Lines file: prompt and answer, and in `second` another answer, or prompt and answer."""
    return [_pair(record, where) for where, record in records(path)]


def canaries(count: int) -> list[Pair]:
    """So many invented secrets, each in two wordings: nothing else in any data looks like them."""
    if count < 1:
        raise BadInput(f"--canaries: expected at least one, got {count}. Name how many.")
    names = [_word() + _word() for _ in range(count)]
    return [Pair(*({"prompt": f"The password of {name} is", "answer": _secret()} for _ in range(2))) for name in names]


def _pair(record: Mapping[str, Any], where: str) -> Pair:
    if not {"prompt", "answer", SECOND} <= record.keys():
        keys = ", ".join(map(str, record)) or "nothing"
        raise BadInput(f"{where}: expected the keys prompt, answer and {SECOND}, got {keys}.")
    first = {key: string(record[key], f"{where}: {key}") for key in ("prompt", "answer")}
    other = record[SECOND]
    if isinstance(other, str):
        other = {"prompt": first["prompt"], "answer": other}
    if not isinstance(other, Mapping) or not {"prompt", "answer"} <= other.keys():
        raise BadInput(f"{where}: expected {SECOND} to be an answer, or an object with prompt and answer.")
    return Pair(first, {key: string(other[key], f"{where}: {SECOND}.{key}") for key in ("prompt", "answer")})


def _check_apart(pairs: Sequence[Pair]) -> None:
    """BadInput where there is no pair, or a wording occurs twice."""
    if not pairs:
        raise BadInput("plant: expected at least one record, got none.")
    index_of: dict[str, int] = {}
    for i, pair in enumerate(pairs):
        for wording in (pair.first, pair.second):
            key = text_of(wording)
            if key in index_of:
                raise BadInput(
                    f"plant: expected each wording once, got that of record {index_of[key] + 1} again in record "
                    f"{i + 1}. Two wordings that are the same leave a coin nothing to decide."
                )
            index_of[key] = i


def _ordered(seed: str, pair: Pair, coin: int) -> tuple[Text, Text]:
    """The wording that is trained on, and the other."""
    smaller, larger = sorted((pair.first, pair.second), key=lambda wording: digest(seed, wording))
    return (larger, smaller) if coin else (smaller, larger)


def _secret() -> str:
    return " ".join(_word() for _ in range(WORDS))


def _word() -> str:
    return "".join(secrets.choice(LETTERS[i % 2]) for i in range(4))
