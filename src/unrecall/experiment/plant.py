"""Plants records: a coin decides which of two wordings of each is trained on, and a manifest keeps the coins.

The manifest's sha256 is published before training. Whoever holds it then knows that the coins were not chosen by what
the model shows: the wordings that were not trained on are a control that nothing but the coins tells apart.
"""

import datetime
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from scipy import stats

from unrecall.disk.files import file_key, read_json, write_json, writing_folder
from unrecall.errors import BadInput
from unrecall.record.ledger import SHA256, salted
from unrecall.record.schema import Frozen
from unrecall.tasks.text_files import Text, records, string

TRAIN, HOLDOUT, MANIFEST = "train.jsonl", "holdout.jsonl", "manifest.json"
SECOND = "second"
"""The key of a record's second wording: an answer, or an object with prompt and answer."""
UNFAIR = 1e-6
"""Coins whose balance a fair coin shows more rarely than this were not drawn."""
LETTERS = "bcdfghjklmnprstvz", "aeiou"
WORDS = 6
"""Length of a canary's secret, in made-up words."""


class Planted(Frozen):
    """One pair: the coin, and the salted digests of the wording that is trained on and of the one that is not.

    Coin 0 trains on the wording of the smaller digest, 1 on that of the larger: who chooses must break HMAC-SHA256.
    """

    coin: Literal[0, 1]
    trained: str = Field(pattern=SHA256)
    untrained: str = Field(pattern=SHA256)


class Manifest(Frozen):
    """The coins of all pairs, in the order of the files; `seed` gives them again, and the salt of the digests."""

    kind: Literal["unrecall manifest of planted records"]
    version: Literal[1]
    time: str
    seed: str = Field(pattern=SHA256)
    pairs: list[Planted] = Field(min_length=1)


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
        Planted(coin=coin, trained=_digest(seed, trained), untrained=_digest(seed, other))
        for coin, (trained, other) in zip(tossed, drawn, strict=True)
    ]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = Manifest(kind="unrecall manifest of planted records", version=1, time=now, seed=seed, pairs=rows)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing_folder(folder) as temporary:
        for place, name in enumerate((TRAIN, HOLDOUT)):
            lines = "".join(json.dumps(row[place], ensure_ascii=False) + "\n" for row in drawn)
            (temporary / name).write_text(lines, encoding="utf-8")
        write_json(temporary / MANIFEST, manifest.model_dump())
    return file_key(folder / MANIFEST)


def coins(seed: str, count: int) -> list[Literal[0, 1]]:
    """Fair coins that hang on the seed alone: the last bit of HMAC-SHA256 of each number."""
    draws = (hmac.digest(bytes.fromhex(seed), f"coin {i}".encode(), "sha256")[-1] & 1 for i in range(count))
    return [1 if draw else 0 for draw in draws]


def check_manifest(
    path: Path, published: str, forget: Sequence[Mapping[str, Any]], holdout: Sequence[Mapping[str, Any]]
) -> list[int]:
    """For each forget record the place of its other wording in holdout; BadInput for a manifest that vouches for less.

    `published`: the sha256 that was published before training. `forget`, `holdout`: records with prompt and answer. The
    holdout must be the other wordings of forget, all of them and no more: nothing else was drawn against them.
    """
    key = file_key(path) if path.is_file() else "no file"
    if key != published:
        raise BadInput(
            f"{path}: expected the manifest whose sha256 was published, {published}, got {key}. It was changed, or "
            "is another one: it vouches for nothing."
        )
    manifest = _manifest(path)
    tossed = [pair.coin for pair in manifest.pairs]
    for number, (pair, coin) in enumerate(zip(manifest.pairs, coins(manifest.seed, len(tossed)), strict=True)):
        if pair.coin != coin:
            raise BadInput(f"{path}: expected coin {number} to be {coin}, as its seed has it, got {pair.coin}. Forged.")
        if (pair.trained > pair.untrained) != bool(coin):
            raise BadInput(f"{path}: expected pair {number} to be trained on as its coin says, got the other. Forged.")
    if stats.binomtest(sum(tossed), len(tossed)).pvalue < UNFAIR:
        raise BadInput(f"{path}: expected fair coins, got {sum(tossed)} of {len(tossed)} that are 1. Forged.")
    return _places(path, manifest, forget, holdout)


def pairs_of(path: Path) -> list[Pair]:
    """The pairs of a JSON Lines file: prompt and answer, and in `second` another answer, or prompt and answer."""
    return [_pair(record, where) for where, record in records(path)]


def canaries(count: int) -> list[Pair]:
    """So many invented secrets, each in two wordings: nothing else in any data looks like them."""
    if count < 1:
        raise BadInput(f"--canaries: expected at least one, got {count}. Name how many.")
    names = [_word() + _word() for _ in range(count)]
    return [Pair(*({"prompt": f"The password of {name} is", "answer": _secret()} for _ in range(2))) for name in names]


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its top"
        raise BadInput(f"{path}: expected a manifest of planted records, got {first['msg']} at {where}.") from error


def _places(
    path: Path, manifest: Manifest, forget: Sequence[Mapping[str, Any]], holdout: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Where the other wording of each forget record stands in holdout."""
    pairs = {pair.trained: pair.untrained for pair in manifest.pairs}
    places = {_digest(manifest.seed, record): i for i, record in enumerate(holdout)}
    wanted: list[int] = []
    for i, record in enumerate(forget):
        other = pairs.get(_digest(manifest.seed, record))
        if other is None:
            raise BadInput(f"{path}: expected forget to hold planted wordings alone, got another as forget[{i}].")
        if other not in places:
            raise BadInput(f"{path}: expected the other wording of forget[{i}] in holdout, got none.")
        wanted.append(places[other])
    if len(set(wanted)) != len(forget) or len(holdout) != len(forget):
        raise BadInput(
            f"{path}: expected the other wordings of {len(forget)} forget records in holdout and no more, got "
            f"{len(holdout)} records. Take the others out: no coin was thrown for them."
        )
    return wanted


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
    known: dict[str, int] = {}
    for i, pair in enumerate(pairs):
        for wording in (pair.first, pair.second):
            key = _text(wording)
            if key in known:
                raise BadInput(
                    f"plant: expected each wording once, got that of record {known[key] + 1} again in record {i + 1}. "
                    "Two wordings that are the same leave a coin nothing to decide."
                )
            known[key] = i


def _ordered(seed: str, pair: Pair, coin: int) -> tuple[Text, Text]:
    """The wording that is trained on, and the other."""
    smaller, larger = sorted((pair.first, pair.second), key=lambda wording: _digest(seed, wording))
    return (larger, smaller) if coin else (smaller, larger)


def _digest(seed: str, record: Mapping[str, Any]) -> str:
    """The salted digest of a wording; the salt hangs on the seed, so that it can't be chosen to suit a coin."""
    return salted(hmac.digest(bytes.fromhex(seed), b"salt", "sha256"), _text(record))


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps([record.get("prompt", ""), record.get("answer", "")], ensure_ascii=False)


def _secret() -> str:
    return " ".join(_word() for _ in range(WORDS))


def _word() -> str:
    return "".join(secrets.choice(LETTERS[i % 2]) for i in range(4))
