"""How well each side of a pair still finds the other, and what it is taken for: on forget, near it, elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrecall import stats
from unrecall.errors import NotSupported
from unrecall.findings import Models, lay_out
from unrecall.records import Estimate, Measurement
from unrecall.session import Session
from unrecall.storage import cache_folder, code_key, content_key, read_text, write_text
from unrecall.tasks.base import Embedded, Paired, Task
from unrecall.types import SPLITS, Absent, Request
from unrecall.weights import digest_of

NEAR = 0.2
"""The share of retain that counts as the neighbours of forget."""
TOP = 5
"""Among how many of the nearest the right one may be, for the milder figure."""
EQUAL = 1e-6
"""Cosines that differ by no more than float32 rounds off."""

SETS = {
    "forget": "forget",
    "holdout": "holdout",
    "neighbours": "forget's neighbours",
    "rest": "the rest",
    "test": "test",
}
"""The sets by key, as people call them; neighbours and rest together are retain."""
ATTACK = "Attack success: unseen examples with the trigger that are classified as the attacker wishes"
"""What zero-shot accuracy on the holdout is where a backdoor is to be forgotten."""


class Hits(NamedTuple):
    """What one model got right, example by example, of one set.

    `zero_shot`: whether the first side is nearest to its own class, nan without one. `first`, `top`: how often the
    other side is nearest, or among the `TOP` nearest, mean over the two directions. What is equally near, as equal
    captions are, or everything to a model that has collapsed, comes in a random order: then it is a chance.
    """

    zero_shot: list[float]
    first: list[float]
    top: list[float]


def pairing(models: Models, request: Request, task: Task, session: Session) -> list[Measurement]:
    """Zero-shot accuracy and retrieval for every model on every set; everything in the request is looked through.

    Neighbours are the fifth of retain that is nearest to forget's mean in the original's own space. NotSupported for a
    task whose examples are no pairs.
    """
    if not isinstance(task, Paired):
        raise NotSupported(f"pairing: expected a task whose examples are pairs, got {type(task).__name__}.")
    near = _near(models.original, request, task)
    found: dict[str, Mapping[str, Hits]] = {}
    for role, model in models.by_role().items():
        session.say(f"pairing: {role}")
        found[role] = _kept(model, near, request, task, session)
    return list(_rows(found, request))


def _near(original: nn.Module, request: Request, task: Paired) -> list[int]:
    """Which of retain are the neighbours of forget."""
    forget, retain = (torch.cat(task.embedded(original, request[split]), 1) for split in ("forget", "retain"))
    cosine = retain @ torch.nn.functional.normalize(forget.mean(0), dim=0)
    order = torch.argsort(cosine, descending=True, stable=True)
    return sorted(order[: max(1, round(NEAR * len(retain)))].tolist())


def _kept(model: nn.Module, near: list[int], request: Request, task: Task, session: Session) -> Mapping[str, Hits]:
    """A model's hits; from the cache where it was asked before."""
    if session.folder is None:
        return _hits(model, near, request, task)
    parts = (digest_of(model), repr(task), request.fingerprint, str(near), code_key())
    path = cache_folder() / f"pairing-{content_key(*parts)}.json"
    if not path.exists():
        write_text(path, json.dumps(_hits(model, near, request, task)))
    return {name: Hits(*hits) for name, hits in json.loads(read_text(path)).items()}


def _hits(model: nn.Module, near: list[int], request: Request, task: Task) -> dict[str, Hits]:
    assert isinstance(task, Paired)
    there = [split for split in SPLITS if len(request[split])]
    both = [task.embedded(model, request[split]) for split in there]
    whole = Embedded(*(torch.cat(side) for side in zip(*both, strict=True)))
    prompts, ends = task.prompts(model), np.cumsum([0, *(len(one.first) for one in both)])
    places = {split: range(ends[i], ends[i + 1]) for i, split in enumerate(there)}
    retain = places.pop("retain")
    sets = {str(split): list(place) for split, place in places.items()}
    sets["neighbours"] = [retain[i] for i in near]
    sets["rest"] = sorted(set(retain) - set(sets["neighbours"]))
    labels = torch.cat([task.labels(request[split]) for split in there])
    return {name: _of_set(whole, torch.tensor(place), prompts, labels) for name, place in sets.items() if place}


def _of_set(whole: Embedded, place: Tensor, prompts: Tensor | None, labels: Tensor) -> Hits:
    first, top = torch.zeros(len(place)), torch.zeros(len(place))
    for mine, others in (whole, whole[::-1]):
        found = [_among(mine[part], others, part) for part in torch.split(place, 1024)]
        first += torch.cat([one for one, _ in found]) / 2
        top += torch.cat([one for _, one in found]) / 2
    zero_shot = torch.full((len(place),), torch.nan)
    if prompts is not None:
        own = labels[place]
        hit, _ = _among(whole.first[place], prompts, own.clamp_min(0))
        zero_shot = torch.where(own >= 0, hit, torch.nan)
    return Hits(zero_shot.tolist(), first.tolist(), top.tolist())


def _among(queries: Tensor, gallery: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """How probably the own of each query, at `own` in the gallery, is its nearest, and among its `TOP`: `[n]` each.

    With `a` of the gallery nearer and `b`, itself among them, equally near, it is among the first k with probability
    (k - a) / b, between 0 and 1.
    """
    cosines = queries @ gallery.T
    beyond = cosines - cosines.gather(1, own.to(cosines.device)[:, None])
    nearer, equal = beyond.gt(EQUAL).sum(1), beyond.abs().le(EQUAL).sum(1)
    first, top = (((k - nearer) / equal).clamp(0, 1).cpu() for k in (1, TOP))
    return first, top


def _rows(found: Mapping[str, Mapping[str, Hits]], request: Request) -> Iterator[Measurement]:
    n = sum(len(request[split]) for split in SPLITS)
    for name, title in SETS.items():
        forgotten = name == "forget"
        group, leak = (
            ("forgetting", "above" if forgotten else None) if name in ("forget", "holdout") else ("utility", None)
        )
        for key, what in (
            ("zero_shot", "Zero-shot accuracy"),
            ("first", f"Retrieval among {n:,}, first"),
            ("top", f"Retrieval among {n:,}, in the first {TOP}"),
        ):
            values = {role: _estimate(hits.get(name), key, request, name) for role, hits in found.items()}
            row, said, side = f"{name}_{key if key == 'zero_shot' else f'retrieval_{key}'}", f"{what}, {title}", leak
            if request.kind == "backdoor" and row == "holdout_zero_shot":
                row, said, side = "attack_success", ATTACK, "above"
            yield lay_out(row, said, group, values, leak=side)  # type: ignore[arg-type]


def _estimate(hits: Hits | None, key: str, request: Request, name: str) -> Estimate:
    if hits is None:
        split = {"holdout": request.holdout, "test": request.test}.get(name)
        return Estimate(value=None, note=split.reason if isinstance(split, Absent) else "no examples")
    values = np.array(getattr(hits, key))
    known = values[~np.isnan(values)]
    return stats.mean(known) if len(known) else Estimate(value=None, note="no example has a class with a prompt")
