"""The manifest of planted records: the coins that chose, before training, which wording of each is trained on.

Its sha256 is published before training. Whoever holds the manifest later knows that the coins were not chosen by what
the model shows.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from scipy import stats

from unrecall.disk.files import file_key
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput
from unrecall.record.ledger import SHA256, salted
from unrecall.record.schema import Frozen

KIND: Literal["unrecall manifest of planted records"] = "unrecall manifest of planted records"
UNFAIR = 1e-6
"""Coins whose balance a fair coin shows more rarely than this were not drawn."""


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


def digest(seed: str, record: Mapping[str, Any]) -> str:
    """The salted digest of a wording; the salt hangs on the seed, so that it can't be chosen to suit a coin."""
    return salted(hmac.digest(bytes.fromhex(seed), b"salt", "sha256"), text_of(record))


def text_of(record: Mapping[str, Any]) -> str:
    """A record's prompt and answer as one text."""
    return json.dumps([record.get("prompt", ""), record.get("answer", "")], ensure_ascii=False)


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
    places = {digest(manifest.seed, record): i for i, record in enumerate(holdout)}
    wanted: list[int] = []
    for i, record in enumerate(forget):
        other = pairs.get(digest(manifest.seed, record))
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
