"""How well each side of a pair still finds the other, and what it is taken for: on forget, near it, elsewhere."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unrecall.data.examples import Absent
from unrecall.data.request import SPLITS, Request, Split
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric, mean_share
from unrecall.models.observe import device_of
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Measurement, Side
from unrecall.tasks.protocols import Embedded, Paired, paired

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
    """What one model gets right of one set, example by example.

    `zero_shot`: whether the first side is nearest to its own class, nan without one. `first`, `top`: how often the
    other side is nearest, or among the `TOP` nearest, mean over the two directions. What is equally near, as equal
    captions are, or everything to a model that has collapsed, comes in a random order: then it is a chance.
    """

    zero_shot: np.ndarray
    first: np.ndarray
    top: np.ndarray


def measure(setting: Setting) -> Measured:
    """Zero-shot accuracy and retrieval for every model on every set; everything in the request is looked through.

    From the features of the one pass that all share. Neighbours are the fifth of retain that is nearest to forget's
    mean in the original's own space. NotSupported for a task whose examples are no pairs.
    """
    task, request = paired("retrieval", setting.task), setting.observed
    present = [split for split in SPLITS if len(request[split])]
    sets = _sets({split: setting.evidence["original"].signals[split].features for split in present})
    labels = torch.cat([task.labels(request[split]) for split in present])
    by_role: dict[str, dict[str, Hits]] = {}
    for role, model in setting.subjects:
        signals = setting.evidence[role].signals
        features = torch.cat([torch.from_numpy(signals[split].features) for split in present])
        sides, prompts = task.sides(features.to(device_of(model))), task.prompts(model)
        by_role[role] = {name: _hits(sides, places, prompts, labels) for name, places in sets.items()}
    return Measured(list(_rows(by_role, request)))


def _sets(features: Mapping[Split, np.ndarray]) -> dict[str, Tensor]:
    """Where the examples of each set stand among all, from the original's features; sets without any are left out."""
    starts = np.cumsum([0, *map(len, features.values())])
    places = {
        str(split): torch.arange(start, start + len(features[split]))
        for split, start in zip(features, starts.tolist(), strict=False)
    }
    retain = places.pop("retain")
    near = torch.isin(torch.arange(len(retain)), neighbours(features["forget"], features["retain"]))
    places |= {"neighbours": retain[near], "rest": retain[~near]}
    return {name: place for name, place in places.items() if len(place)}


def neighbours(forget: np.ndarray, retain: np.ndarray) -> Tensor:
    """Which examples of retain are the neighbours of forget, from the original's features of both."""
    cosine = torch.from_numpy(retain) @ F.normalize(torch.from_numpy(forget).mean(0), dim=0)
    order = torch.argsort(cosine, descending=True, stable=True)
    return order[: max(1, round(NEAR * len(retain)))]


def _hits(sides: Embedded, places: Tensor, prompts: Tensor | None, labels: Tensor) -> Hits:
    """What one model gets right of the examples at `places`; all examples are the gallery."""
    first, top = torch.zeros(len(places)), torch.zeros(len(places))
    for queries, gallery in (sides, sides[::-1]):
        chances = [_chances(queries[part], gallery, part) for part in torch.split(places, 1024)]
        first += torch.cat([nearest for nearest, _ in chances]) / 2
        top += torch.cat([among for _, among in chances]) / 2
    zero_shot = torch.full((len(places),), torch.nan)
    if prompts is not None:
        classes = labels[places]
        hit, _ = _chances(sides.first[places], prompts, classes.clamp_min(0))
        zero_shot = torch.where(classes >= 0, hit, torch.nan)
    return Hits(*(hits.double().numpy() for hits in (zero_shot, first, top)))


def _chances(queries: Tensor, gallery: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
    """How probably each query's match, at `matches` in the gallery, is its nearest, and among its `TOP`: `[n]` each.

    With `a` of the gallery nearer and `b`, itself among them, equally near, it is among the first k with probability
    (k - a) / b, between 0 and 1.
    """
    cosines = queries @ gallery.T
    beyond = cosines - cosines.gather(1, matches.to(cosines.device)[:, None])
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
    values: np.ndarray = getattr(hits, key)
    return mean_share(values[~np.isnan(values)], "no example has a class with a prompt")


RETRIEVAL = Metric(
    "retrieval",
    (*(row(name, key) for name in SETS for key in Hits._fields), ATTACK_SUCCESS),
    measure,
    needs=(Paired,),
)
