"""Ways to tamper with a finished record and the folder that it lies in, each drawn from a seed."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors.numpy import load_file, save_file

from unrecall.disk.files import file_key
from unrecall.record.doubts import Facts, doubts
from unrecall.record.judgement import rejudge
from unrecall.record.schema import Record

Data: TypeAlias = dict[str, Any]
"""A record as JSON."""
RATIOS = "residual_knowledge"
"""The attack whose figures are ratios to retrained models."""


def _rejudged(data: Data) -> None:
    """Labels, bounds, verdict and doubts as the numbers now have them: what a careful forger does at the end."""
    record = rejudge(Record.model_validate(data))
    data |= record.model_copy(update={"doubts": doubts(Facts.of(record))}).model_dump(mode="json")


def _row(data: Data, rng: random.Random, **having: Any) -> Data:
    unseen = [a["name"] for a in data["attacks"] if a["name"] not in data["scores"]]
    rows = [m for m in data["measurements"] if m["unlearned"]["value"] is not None]
    rows = [m for m in rows if not any(m["name"].startswith(name) for name in unseen)]
    row: Data = rng.choice([m for m in rows if all(m[key] == value for key, value in having.items())])
    return row


def value(data: Data, rng: random.Random, folder: Path) -> None:
    """One value of a judged row, as a retrained model has it, judged again."""
    row = _row(data, rng, judged=True)
    row["unlearned"]["value"] = row["reference"]
    _rejudged(data)


def ratio(data: Data, rng: random.Random, folder: Path) -> None:
    """What is held against retrained models is what they have themselves."""
    name = rng.choice([f"{RATIOS}_sums", RATIOS, f"{RATIOS}_share"])
    row = next(m for m in data["measurements"] if m["name"] == name)
    row["unlearned"] |= {"value": row["reference"], "low": None, "high": None}
    _rejudged(data)


def interval(data: Data, rng: random.Random, folder: Path) -> None:
    """A value with its interval, moved together."""
    row = _row(data, rng, judged=True)
    for key in ("value", "low", "high"):
        row["unlearned"][key] = row["references"][0][key]
    row["unlearned"]["value"] += 1e-3
    _rejudged(data)


def copied(data: Data, rng: random.Random, folder: Path) -> None:
    """The unlearned model's scored row is that of the original."""
    row = _row(data, rng, group="privacy")
    row["unlearned"] = copy.deepcopy(row["original"])
    row["unlearned"]["value"] = min(1.0, row["unlearned"]["value"] + 0.02)
    _rejudged(data)


def reference(data: Data, rng: random.Random, folder: Path) -> None:
    """References further apart, so that everything falls between them."""
    row = _row(data, rng, judged=True)
    row["references"][0]["value"] = row["unlearned"]["value"]
    values = [e["value"] for e in row["references"]]
    row["reference"] = sum(values) / len(values)
    _rejudged(data)


def fewer_references(data: Data, rng: random.Random, folder: Path) -> None:
    """A row without its references, which can't leak."""
    row = _row(data, rng, judged=True)
    row |= {"references": [], "reference": None}
    _rejudged(data)


def row_removed(data: Data, rng: random.Random, folder: Path) -> None:
    """A judged row is gone."""
    data["measurements"].remove(_row(data, rng, judged=True))
    _rejudged(data)


def row_twice(data: Data, rng: random.Random, folder: Path) -> None:
    """A row stands there twice."""
    data["measurements"].append(copy.deepcopy(_row(data, rng)))
    _rejudged(data)


def row_invented(data: Data, rng: random.Random, folder: Path) -> None:
    """A row that nothing makes."""
    data["measurements"].append(_row(data, rng) | {"name": "trust", "judged": False, "verdict": "not judged"})
    _rejudged(data)


def nothing(data: Data, rng: random.Random, folder: Path) -> None:
    """A value that is no longer known."""
    row = _row(data, rng, judged=True)
    row["unlearned"] |= {"value": None, "low": None, "high": None, "note": "not available"}
    _rejudged(data)


def equal_digests(data: Data, rng: random.Random, folder: Path) -> None:
    """A reference that has another model's weights."""
    digests = data["provenance"]["weights"]
    digests["retrained 0"] = digests[rng.choice(["original", "unlearned", "retrained 1"])]


def digest_removed(data: Data, rng: random.Random, folder: Path) -> None:
    """The weights of a model are not named."""
    del data["provenance"]["weights"][rng.choice(["original", "unlearned", "retrained 0"])]


def sizes(data: Data, rng: random.Random, folder: Path) -> None:
    """Larger sets than there were."""
    data["sizes"][rng.choice(["forget", "retain", "holdout", "test"])] += rng.choice([-1, 1, 1000])
    _rejudged(data)


def line(data: Data, rng: random.Random, folder: Path) -> None:
    """A method's line, or its parameters, that say otherwise."""
    if rng.random() < 0.5:
        data["method"] = data["method"].replace("batch_size=16", "batch_size=32")
    else:
        data["parameters"]["fit"]["epochs"] = 300


def seed(data: Data, rng: random.Random, folder: Path) -> None:
    """Another seed."""
    data["seed"] += 1


def scores_changed(data: Data, rng: random.Random, folder: Path) -> None:
    """Scores of the unlearned model that are a retrained model's, with the digest of the new file."""
    name = rng.choice(sorted(data["scores"]))
    path = next(folder.rglob(f"scores/{name}.safetensors"))
    arrays = load_file(path)
    for arm in ("forget", "holdout"):
        arrays[f"unlearned/{arm}"] = arrays[f"original/{arm}"] + np.float32(0.01 * rng.random())
        arrays[f"unlearned/{arm}"][..., ::2] = arrays[f"retrained 0/{arm}"][..., ::2]
    save_file(arrays, path)
    if rng.random() < 0.8:
        data["scores"][name] = file_key(path)


def scores_removed(data: Data, rng: random.Random, folder: Path) -> None:
    """A file of scores is gone; sometimes its name too."""
    name = rng.choice(sorted(data["scores"]))
    next(folder.rglob(f"scores/{name}.safetensors")).unlink()
    if rng.random() < 0.5:
        del data["scores"][name]


def attack_removed(data: Data, rng: random.Random, folder: Path) -> None:
    """The report of an attack is gone, while its rows are there; or the other way round."""
    report = rng.choice(data["attacks"])
    if rng.random() < 0.5:
        data["attacks"].remove(report)
    else:
        data["measurements"] = [m for m in data["measurements"] if not m["name"].startswith(report["name"])]
    _rejudged(data)


def threat(data: Data, rng: random.Random, folder: Path) -> None:
    """An attacker who is weaker, or stronger, than the one that attacked."""
    rng.choice(data["attacks"])["threat"][rng.choice(["access", "data", "budget"])] = "the weights and all of the data"


def curve(data: Data, rng: random.Random, folder: Path) -> None:
    """A curve that shows less."""
    reports = [a for a in data["attacks"] if a["curves"] and a["name"] in data["scores"]]
    series = rng.choice(rng.choice([a for a in reports if a["name"] != RATIOS])["curves"][0]["series"])
    series["y"] = [y if y is None else y / 2 for y in series["y"]]
    series["low"] = [y if y is None else y / 2 for y in series["low"]]


def doubt_removed(data: Data, rng: random.Random, folder: Path) -> None:
    """A doubt is gone, or milder."""
    doubt = rng.choice([d for d in data["doubts"] if d["id"] != "modified"])
    data["doubts"].remove(doubt)
    if doubt["severity"] != "note" and rng.random() < 0.5:
        data["doubts"].append(doubt | {"severity": "note"})


def control(data: Data, rng: random.Random, folder: Path) -> None:
    """A control that failed holds."""
    failed = [a for a in data["attacks"] if a["positive_holds"] is False or a["negative_holds"] is False]
    for report in failed:
        report |= {"positive_holds": True, "negative_holds": True}


def verdict(data: Data, rng: random.Random, folder: Path) -> None:
    """A better label, line, count or rule."""
    change = rng.choice(
        [{"label": "like retrained"}, {"line": "All is well."}, {"judged": 99}, {"alpha": 1e-6}, {"rule": "mine-1"}]
    )
    data["verdict"] |= change if data["verdict"] != data["verdict"] | change else {"label": "leaks"}


def reading(data: Data, rng: random.Random, folder: Path) -> None:
    """A row that is read otherwise: what is judged, which side leaks, how wide a margin is, what guessing gives."""
    change: Data = rng.choice(
        [{"judged": False}, {"leak": "below"}, {"margin": 5.0}, {"group": "other"}, {"ideal": "0"}]
    )
    row = _row(data, rng, judged=True)
    row |= change if row != row | change else {"leak": None}
    _rejudged(data)


def costs(data: Data, rng: random.Random, folder: Path) -> None:
    """Cheaper than it was."""
    key = rng.choice(["seconds", "passes", "peak_mib"])
    data["costs"]["unlearned"][key] = data["costs"]["unlearned"][key] / 2 if key != "passes" else 1


def gap(data: Data, rng: random.Random, folder: Path) -> None:
    """A smaller average gap."""
    row = next(m for m in data["measurements"] if m["name"] == "average_gap")
    row["unlearned"] = {**row["unlearned"], "value": 0.001, "low": 0.0, "high": 0.01}


def paid(data: Data, rng: random.Random, folder: Path) -> None:
    """Nobody paid."""
    table = data["matrices"][0]["paid"]["unlearned"]
    data["matrices"][0]["paid"]["unlearned"] = [p if p is None else p - 0.2 for p in table]


def checkpoint(data: Data, rng: random.Random, folder: Path) -> None:
    """The checkpoint beside the record is another model's, or cut off."""
    path = folder / "unlearned.safetensors"
    if rng.random() < 0.3:
        path.write_bytes(path.read_bytes()[:-9])
        return
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    tensors[name] = tensors[name] + 1
    save_file(tensors, path)


def schema(data: Data, rng: random.Random, folder: Path) -> None:
    """Another schema, a part less, a part more, or a value of the wrong kind."""
    key = rng.choice(["verdict", "measurements", "attacks", "doubts", "provenance", "sizes"])
    change = rng.randrange(4)
    if change == 0:
        data["schema_version"] = 1
    elif change == 1:
        del data[key]
    elif change == 2:
        data[key + "s"] = data[key]
    else:
        data[key] = "none"


WAYS: tuple[Callable[[Data, random.Random, Path], None], ...] = (
    value, ratio, interval, copied, reference, fewer_references, row_removed, row_twice, row_invented, nothing,
    equal_digests, digest_removed, sizes, line, seed, scores_changed, scores_removed, attack_removed, threat, curve,
    doubt_removed, control, verdict, reading, costs, gap, paid, checkpoint, schema,
)  # fmt: skip
"""Each is to be refused or doubted."""


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every single value."""
    if isinstance(data, dict | list) and data:
        for key, inner in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def one_leaf(data: Data, rng: random.Random) -> str:
    """Changes one value, in whatever part of the record, and gives its place with stars for numbers and roles."""
    part = rng.choice(sorted(set(data) - {"exhibits", "readings"}))
    path = rng.choice(list(leaves(data[part], (part,))))
    *way, last = path
    home: Any = data
    for key in way:
        home = home[key]
    before = home[last]
    if isinstance(before, bool):
        home[last] = not before
    elif isinstance(before, int | float):
        home[last] = before + rng.choice([1, -1]) * (1 if isinstance(before, int) else rng.choice([0.01, 0.1, 0.5]))
    elif isinstance(before, str):
        home[last] = before + "0"
    else:
        home[last] = 3 if before is None else {"more": 1}
    return ".".join("*" if isinstance(key, int) else key for key in path)


def written(data: Data, folder: Path) -> Path:
    """The record's file with this content."""
    path = folder / "record.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
