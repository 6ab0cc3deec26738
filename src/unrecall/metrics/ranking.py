"""What users are recommended: how much of it they want, and how much of it should be gone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Absent, iterate
from unrecall.data.request import Request
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric, mean_share
from unrecall.models.observe import in_order
from unrecall.nn.hooks import mode
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Measurement
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Recommending, recommending

LENGTHS = (10, 20)
"""How many items are recommended."""
KINDS = {
    "recall": "Recall at {k}, test",
    "ndcg": "NDCG at {k}, test",
    "sensitive_users": "Users of forget with a sensitive item in their top {k}",
    "sensitive_share": "Sensitive share of the top {k}, mean over users of forget",
    "sensitive_least": "Sensitive share of the top {k}, least over users of forget",
    "sensitive_most": "Sensitive share of the top {k}, most over users of forget",
    "hit_rate": "Other users with a sensitive item in their top {k}",
}
"""The figures by key, as people call them."""


@dataclass(frozen=True)
class Audience:
    """Whom a model is asked for, and what counts, each `[users, items]` but `forgetting`, which is `[users]`.

    `retained`: what a user still has, which nobody is recommended again. `wanted`: what a user took in the test set.
    `sensitive`: what a user should not be recommended. `forgetting`: who is in forget. `common`: whether what is
    sensitive is so for everyone, and not for those alone who asked.
    """

    examples: list[object]
    retained: Tensor
    wanted: Tensor
    sensitive: Tensor
    forgetting: Tensor
    common: bool


def audience(task: Recommending, request: Request) -> Audience:
    """All users of a request, and what counts for them."""
    latest = task.latest(request)
    places = {user: i for i, user in enumerate(latest)}

    def marked(examples: Iterable[object]) -> Tensor:
        table = torch.zeros(len(places), task.items, dtype=torch.bool)
        for example in examples:
            if task.user(example) in places:
                table[places[task.user(example)], task.item(example)] = True
        return table

    forget = marked(iterate(request.forget))
    common = torch.zeros(task.items, dtype=torch.bool)
    common[list(task.sensitive)] = True
    sensitive = common.expand(len(places), -1) if task.sensitive else forget
    return Audience(
        list(latest.values()),
        marked(iterate(request.retain)),
        marked(iterate(request.test)),
        sensitive,
        forget.any(1),
        bool(task.sensitive),
    )


def scores(model: nn.Module, task: Task, examples: list[object]) -> Tensor:
    """A logit for each item after each example's history `[examples, items]`, in eval mode."""
    with mode(model, training=False), torch.no_grad():
        parts = [task.rows(model, batch).logits.float().cpu() for batch in in_order(model, task, examples)]
    return torch.cat(parts)


def marks(values: Tensor, retained: Tensor, marked: Tensor, k: int) -> np.ndarray:
    """Which of the k items of largest value are marked `[users, k]`, best first; what is retained is left out."""
    top = values.masked_fill(retained, -torch.inf).topk(k, 1)
    return (marked.gather(1, top.indices) & top.values.isfinite()).numpy()


def recall(hits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The share of a user's `wanted` items `[users]`, by number, that `hits` `[users, k]` holds."""
    share: np.ndarray = hits.sum(1) / wanted
    return share


def ndcg(hits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The discounted gain of `hits` `[users, k]` as a share of the best: wanted items first, discounted by place.

        sum_i hit_i / log2(i + 1)  /  sum_{i <= min(k, wanted)} 1 / log2(i + 1),   i = 1, ..., k

    Reference: Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", ACM TOIS 2002.
    """
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.cumsum(gains)[np.minimum(wanted, hits.shape[1]) - 1]
    share: np.ndarray = (hits * gains).sum(1) / best
    return share


def figures(values: Tensor, people: Audience, k: int) -> dict[str, Estimate]:
    """Every figure of a model's logits `[users, items]` at `k` recommended items, by key."""
    if k > values.shape[1]:
        reason = f"needs a catalogue of {k} items or more, got {values.shape[1]}"
        return dict.fromkeys(KINDS, Estimate(value=None, note=reason))
    wanted = people.wanted & ~people.retained
    counts, hits = wanted.sum(1).numpy(), marks(values, people.retained, wanted, k)
    testing, forgetting = counts > 0, people.forgetting.numpy()
    shown = marks(values, people.retained, people.sensitive, k)
    shares, none = shown.mean(1), "no user of forget"
    own = shares[forgetting]
    no_user = Estimate(value=None, note=none)
    elsewhere = "each user has sensitive items of their own" if not people.common else "all users are in forget"
    return {
        "recall": mean_share(recall(hits[testing], counts[testing]), "no user has an item in the test set"),
        "ndcg": mean_share(ndcg(hits[testing], counts[testing]), "no user has an item in the test set"),
        "sensitive_users": mean_share((own > 0).astype(float), none),
        "sensitive_share": mean_share(own, none),
        "sensitive_least": Estimate(value=float(own.min()), n=len(own)) if len(own) else no_user,
        "sensitive_most": Estimate(value=float(own.max()), n=len(own)) if len(own) else no_user,
        "hit_rate": mean_share((shares[~forgetting & people.common] > 0).astype(float), elsewhere),
    }


def recalls(models: Sequence[nn.Module], task: Task, request: Request, k: int = LENGTHS[0]) -> np.ndarray:
    """Recall at k of each user who has an item in the test set `[models, users]`; no user where k exceeds the items."""
    people = audience(recommending("ranking", task), request)
    wanted = people.wanted & ~people.retained
    counts = wanted.sum(1).numpy()
    testing = counts > 0 if k <= wanted.shape[1] else np.zeros_like(counts, dtype=bool)
    if not testing.any():
        return np.zeros((len(models), 0))
    hits = (marks(scores(model, task, people.examples), people.retained, wanted, k) for model in models)
    return np.stack([recall(each[testing], counts[testing]) for each in hits])


def measure(setting: Setting) -> Measured:
    """Recall and NDCG on the test set, and sensitive items among the first 10 and 20, all users in one pass.

    What a user retains is never recommended. Sensitive is what the task says, or else each user's own forgotten items;
    the share of other users who get such an item is the hit rate of a spammer's.

    Reference: Lubitzsch, de Rijke, Schelter, "ERASE", arXiv 2603.08341. Differs from the paper in what is masked: what
    must go is a candidate, for all models alike.
    """
    task = recommending("ranking", setting.task)
    people = audience(task, setting.request)
    by_role = {role: scores(model, setting.task, people.examples) for role, model in setting.subjects}
    by_length = {k: {role: figures(values, people, k) for role, values in by_role.items()} for k in LENGTHS}
    return Measured([measured for k in LENGTHS for measured in _rows(k, by_length[k], setting.request)])


def row(key: str, k: int) -> Row:
    """How one figure is called and read."""
    use = key in ("recall", "ndcg")
    judged = (key, k) in (("recall", 10), ("sensitive_share", 10))
    title = KINDS[key].format(k=k)
    if use:
        return Row(f"{key}_{k}", title, "utility", judged=judged, margin=0.02)
    return Row(f"{key}_{k}", title, "forgetting", "above", judged)


def _rows(k: int, by_role: Mapping[str, Mapping[str, Estimate]], request: Request) -> Iterator[Measurement]:
    for key in KINDS:
        estimates = {role: values[key] for role, values in by_role.items()}
        if isinstance(request.test, Absent) and key in ("recall", "ndcg"):
            estimates = dict.fromkeys(estimates, Estimate(value=None, note=request.test.reason))
        yield row(key, k).measured(estimates)


RANKING = Metric("ranking", tuple(row(key, k) for k in LENGTHS for key in KINDS), measure, needs=(Recommending,))
