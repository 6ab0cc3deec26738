"""200 tampered ledgers, attestations and manifests, each drawn from a seed: all are refused.

That the end of a ledger was cut off at a line, or the ledger written anew from some line on, the file alone can't show:
there the head is compared that somebody noted before.
"""

import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.ledgers import chained, fields
from unrecall.errors import BadInput
from unrecall.experiment.ledger import problems
from unrecall.experiment.plant import canaries, plant
from unrecall.record import attest
from unrecall.record.ledger import _canonical, _hash, read
from unrecall.record.manifest import check_manifest

LEDGERS, ATTESTATIONS, MANIFESTS = 100, 60, 40
Way = Callable[[bytes, random.Random], bytes]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit of one byte."""
    i = rng.randrange(len(data))
    return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """Cut off inside a line."""
    while (short := data[: rng.randrange(len(data))]).endswith(b"\n") or not short:
        pass
    return short


def white(data: bytes, rng: random.Random) -> bytes:
    """White space where none was."""
    i = rng.randrange(len(data))
    return data[:i] + rng.choice([b" ", b"\n", b"\t", b"\r"]) + data[i:]


def of_lines(change: Callable[[list[bytes], random.Random], Any]) -> Way:
    """A way that changes the list of lines in place."""

    def way(data: bytes, rng: random.Random) -> bytes:
        lines = data.split(b"\n")[:-1]
        change(lines, rng)
        return b"\n".join(lines) + b"\n"

    way.__name__ = change.__name__
    return way


def dropped(lines: list[bytes], rng: random.Random) -> None:
    """A line is gone, the last one excepted."""
    del lines[rng.randrange(len(lines) - 1)]


def swapped(lines: list[bytes], rng: random.Random) -> None:
    """Two lines in each other's place."""
    i, j = rng.sample(range(len(lines)), 2)
    lines[i], lines[j] = lines[j], lines[i]


def doubled(lines: list[bytes], rng: random.Random) -> None:
    """A line stands there again."""
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))


def edited(lines: list[bytes], rng: random.Random, *, hashed: bool = False) -> int:
    """Another number or word; `hashed`: the line's own hash is made to fit."""
    i = rng.randrange(1, len(lines))
    entry = json.loads(lines[i])
    name = rng.choice(sorted(set(entry) - {"hash"}))
    value = entry[name]
    entry[name] = value + 1 if isinstance(value, float) else [*value, "x"] if isinstance(value, list) else f"{value}0"
    if hashed:
        entry["hash"] = _hash({key: value for key, value in entry.items() if key != "hash"})
    lines[i] = _canonical(entry)
    return i


def forged(lines: list[bytes], rng: random.Random) -> None:
    """The same with the line's own hash made to fit, but not the lines after it; the last line is left alone."""
    last = lines.pop()
    edited(lines, rng, hashed=True)
    lines.append(last)


def shortened(lines: list[bytes], rng: random.Random) -> None:
    """The last lines are gone: a whole chain, but not the one whose head was noted."""
    del lines[rng.randrange(1, len(lines)) :]


def written_anew(lines: list[bytes], rng: random.Random) -> None:
    """Another past, with every hash made to fit: a whole chain, but not the one whose head was noted."""
    names = [f"other {i}" for i in range(len(lines) - 1)]
    lines[:] = chained(*(fields(name, rng.random() + 0.5) for name in names)).split(b"\n")[:-1]


WAYS: tuple[Way, ...] = (
    flipped, flipped, cut, white, *map(of_lines, (dropped, swapped, doubled, edited, forged, shortened, written_anew)),
)  # fmt: skip
NOTED = ("shortened", "written_anew")
"""What only a head that was noted before shows."""


def test_tampered_ledgers(tmp_path: Path) -> None:
    audits = [fields(name, value) for name, value in zip("abcdefg", (0.5, 3.0, None, 2.0, 1.5, 0.7, 1.1), strict=True)]
    whole = chained(*audits, fields("b", 4.0, kind="reaudit"))
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(whole)
    head = read(path).hashes[-1]

    def refused(noted: bool) -> bool:
        try:
            ledger = read(path)
        except BadInput:
            return True
        return bool(list(problems(path, ledger))) or (noted and head not in ledger.hashes)

    assert not refused(noted=True)
    count = 0
    for draw in range(LEDGERS):
        way, rng = WAYS[draw % len(WAYS)], random.Random(draw)
        while (tampered := way(whole, rng)) == whole:
            pass
        path.write_bytes(tampered)
        assert refused(way.__name__ in NOTED), (draw, way.__name__)
        assert way.__name__ not in NOTED or not refused(noted=False)
        count += 1
    assert count == LEDGERS


STATEMENT = {"_type": "statement", "predicate": {"p": 0.03, "verdict": "leaks", "limits": ["none"]}}


def payload_edited(data: bytes, rng: random.Random) -> bytes:
    """A better verdict under the same signature."""
    envelope = json.loads(data)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"] |= rng.choice([{"p": rng.random()}, {"verdict": f"fine {rng.random()}"}])
    envelope["payload"] = base64.b64encode(json.dumps(statement, sort_keys=True).encode()).decode()
    return (json.dumps(envelope, sort_keys=True, indent=1) + "\n").encode()


def envelope_edited(data: bytes, rng: random.Random) -> bytes:
    """Another type, key id or signature, one signature more, none, or other keys."""
    envelope = json.loads(data)
    first = envelope["signatures"][0]
    noise = base64.b64encode(rng.randbytes(64)).decode()
    for change in rng.sample(
        [
            lambda: envelope.update(payloadType="application/json"),
            lambda: first.update(keyid=rng.randbytes(32).hex()),
            lambda: first.update(sig=noise),
            lambda: envelope["signatures"].append({"keyid": rng.randbytes(32).hex(), "sig": noise}),
            lambda: envelope["signatures"].append(dict(first)),
            lambda: envelope.update(signatures=[]),
            lambda: envelope.update(more=1),
        ],
        1,
    ):
        change()
    return (json.dumps(envelope, sort_keys=True, indent=1) + "\n").encode()


def test_tampered_attestations(tmp_path: Path) -> None:
    key, other, path = tmp_path / "key.pem", tmp_path / "other.pem", tmp_path / "a.json"
    public, _ = attest.new_key(key), attest.new_key(other)
    attest.sign(STATEMENT, other, path)
    foreign = path.read_bytes()
    attest.sign(STATEMENT, key, path)
    whole = path.read_bytes()
    assert attest.verified(path, public) == STATEMENT

    def signed_by_another(data: bytes, rng: random.Random) -> bytes:
        """The same under another key; sometimes with the name of the right one."""
        envelope = json.loads(foreign)
        if rng.random() < 0.5:
            envelope["signatures"][0]["keyid"] = json.loads(whole)["signatures"][0]["keyid"]
        return (json.dumps(envelope, sort_keys=True, indent=1) + "\n").encode()

    ways: tuple[Way, ...] = (flipped, flipped, cut, white, payload_edited, envelope_edited, signed_by_another)
    for draw in range(ATTESTATIONS):
        way, rng = ways[draw % len(ways)], random.Random(draw)
        path.write_bytes(way(whole, rng))
        with pytest.raises(BadInput):
            attest.verified(path, public)
            pytest.fail(f"draw {draw}, {way.__name__}")


def manifest_edited(data: bytes, rng: random.Random) -> bytes:
    """Other coins, digests, pairs or seed."""
    manifest = json.loads(data)
    pairs = manifest["pairs"]
    first, second = rng.sample(pairs, 2)
    rng.choice(
        [
            lambda: first.update(coin=1 - first["coin"]),
            lambda: first.update(trained=first["untrained"], untrained=first["trained"]),
            lambda: first.update(coin=1 - first["coin"], trained=first["untrained"], untrained=first["trained"]),
            lambda: first.update(trained=second["trained"]),
            lambda: first.update(untrained=rng.randbytes(32).hex()),
            lambda: manifest.update(seed=rng.randbytes(32).hex()),
            lambda: pairs.remove(first),
            lambda: manifest.update(version=2),
        ]
    )()
    return json.dumps(manifest).encode()


def test_tampered_manifests(tmp_path: Path) -> None:
    """Half of them under the hash that was published; the others under their own, as if that had been published."""
    published = plant(canaries(24), tmp_path / "planted")
    path = tmp_path / "planted" / "manifest.json"
    train, holdout = (
        [json.loads(line) for line in (tmp_path / "planted" / name).read_text().splitlines()]
        for name in ("train.jsonl", "holdout.jsonl")
    )
    whole = path.read_bytes()
    assert check_manifest(path, published, train, holdout) == list(range(24))
    for draw in range(MANIFESTS):
        own, rng = draw % 2, random.Random(draw)
        way = manifest_edited if own else (flipped, cut, white, manifest_edited)[draw // 2 % 4]
        path.write_bytes(way(whole, rng))
        key = hashlib.sha256(path.read_bytes()).hexdigest() if own else published
        with pytest.raises(BadInput):
            check_manifest(path, key, train, holdout)
            pytest.fail(f"draw {draw}, {way.__name__}")


def test_there_are_200() -> None:
    assert LEDGERS + ATTESTATIONS + MANIFESTS == 200
