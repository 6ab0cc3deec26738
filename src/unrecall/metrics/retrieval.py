"""How well each side of a pair still finds the other, and what it is taken for: on forget, near it, elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Absent
from unrecall.data.request import SPLITS, Request, Split
from unrecall.data.signals import Signals
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric
from unrecall.models.observe import device_of
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Measurement, Side
from unrecall.tasks.protocols import Embedded, Paired

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
JUDGED = ("forget_zero_shot", "forget_retrieval_first", "neighbours_retrieval_first", "test_zero_shot")
"""The figures that a verdict rests on."""
ATTACK_SUCCESS = Row(
    "attack_success",
    "Attack success: unseen examples with the trigger that are classified as the attacker wishes",
    "forgetting",
    "above",
    judged=True,
)
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


def measure(setting: Setting) -> Measured:
    """Zero-shot accuracy and retrieval for every model on every set; everything in the request is looked through.

    From the features of the one pass that all share. Neighbours are the fifth of retain that is nearest to forget's
    mean in the original's own space. NotSupported for a task whose examples are no pairs.
    """
    task, request = setting.task, setting.request
    if not isinstance(task, Paired):
        raise NotSupported(f"retrieval: expected a task whose examples are pairs, got {type(task).__name__}.")
    near = _near(setting.evidence["original"].signals)
    by_role = {
        role: _hits(model, setting.evidence[role].signals, near, request, task) for role, model in setting.subjects
    }
    return Measured(list(_rows(by_role, request)))


def _near(signals: Mapping[Split, Signals]) -> list[int]:
    """Which of retain are the neighbours of forget."""
    forget, retain = (torch.from_numpy(signals[split].features) for split in ("forget", "retain"))
    cosine = retain @ torch.nn.functional.normalize(forget.mean(0), dim=0)
    order = torch.argsort(cosine, descending=True, stable=True)
    return sorted(order[: max(1, round(NEAR * len(retain)))].tolist())


def _hits(
    model: nn.Module, signals: Mapping[Split, Signals], near: list[int], request: Request, task: Paired
) -> dict[str, Hits]:
    there = [split for split in SPLITS if len(request[split])]
    features = [torch.from_numpy(signals[split].features) for split in there]
    whole = task.sides(torch.cat(features).to(device_of(model)))
    prompts, ends = task.prompts(model), np.cumsum([0, *map(len, features)])
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


def row(set_name: str, key: str, n: int = 0) -> Row:
    """How one figure of one set is called and read; `n`: among how many it is looked for."""
    title = {
        "zero_shot": "Zero-shot accuracy",
        "first": f"Retrieval among {n:,}, first",
        "top": f"Retrieval among {n:,}, in the first {TOP}",
    }[key]
    name = f"{set_name}_{key if key == 'zero_shot' else f'retrieval_{key}'}"
    group = "forgetting" if set_name in ("forget", "holdout") else "utility"
    leak: Side | None = "above" if set_name == "forget" else None
    return Row(name, f"{title}, {SETS[set_name]}", group, leak, name in JUDGED)


def _rows(by_role: Mapping[str, Mapping[str, Hits]], request: Request) -> Iterator[Measurement]:
    n = sum(len(request[split]) for split in SPLITS)
    for name in SETS:
        for key in Hits._fields:
            values = {role: _estimate(hits.get(name), key, request, name) for role, hits in by_role.items()}
            backdoor = request.kind == "backdoor" and (name, key) == ("holdout", "zero_shot")
            yield (ATTACK_SUCCESS if backdoor else row(name, key, n)).measured(values)


def _estimate(hits: Hits | None, key: str, request: Request, name: str) -> Estimate:
    if hits is None:
        split = {"holdout": request.holdout, "test": request.test}.get(name)
        return Estimate(value=None, note=split.reason if isinstance(split, Absent) else "no examples")
    values = np.array(getattr(hits, key))
    known = values[~np.isnan(values)]
    return (
        stats.mean(known, share=True)
        if len(known)
        else Estimate(value=None, note="no example has a class with a prompt")
    )


RETRIEVAL = Metric(
    "retrieval",
    (*(row(name, key) for name in SETS for key in Hits._fields), ATTACK_SUCCESS),
    measure,
    needs=(Paired,),
)
