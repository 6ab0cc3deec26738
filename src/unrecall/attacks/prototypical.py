"""Prototypical relearning: a forgotten class comes back from a handful of pictures, written into the last layer."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, FewShotAttack
from unrecall.data.examples import split_off
from unrecall.data.signals import Signals
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import observe
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Share
from unrecall.training.ascent import head_of
from unrecall.training.job import Job

GRID = tuple(i / 10 for i in range(10, -1, -1))


class Row(NamedTuple):
    """One class of a linear head: weights [d] and bias []."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Prototypical(FewShotAttack):
    """Overwrites a forgotten class's row of the head with the mean feature of k forgotten examples; trains nothing.

        p_c = mean of f(x_1), ..., f(x_k), features under the attacked model
        cosine:  w = p_c / |p_c|,  b = 0            l2:  w = 2 p_c,  b = -|p_c|^2
        W_c <- alpha w + (1 - alpha) W_c,           b_c <- alpha b + (1 - alpha) b_c

    Args:
        ks: examples per forgotten class, one point of the curve each; those that half of forget can't serve are left
            out.
        metric: cosine (unit-norm prototype, no bias) or l2 (nearest mean).
        alpha: strength of the overwriting in [0, 1]; None takes the largest of 1.0, 0.9, ..., 0 that costs at most
            `retain_drop` of retain accuracy.
        retain_drop: how much retain accuracy, as a share, the attacker gives up.
        retain_sample: retain examples on which that is measured.
        dose: "forget", or "both": the attacker's examples come from forget and holdout alike.

    Expected to fail: on a model whose features scatter the forgotten class (Spotter's aim). It succeeds on a retrained
    model in part, since features of a class never seen may still cluster: the curve means something beside that one.

    Reference: Ha, Park, Yoon, "Unlearning's Blind Spots: Over-Unlearning and Prototypical Relearning Attack",
    arXiv 2506.01318 (v4: ICML 2026). Differs from the paper in measuring on forget examples that the attacker doesn't
    hold (the paper measures on all), and in that l2 uses the mean itself, so that it is nearest-mean classification.
    """

    title: ClassVar[str] = "Prototypical relearning"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: reads features, writes the last layer",
        data="k examples of each forgotten class; retain examples to keep the damage small",
        budget="k, the number of examples per forgotten class; no training",
    )
    axis: ClassVar[str] = "examples per forgotten class"
    judged: ClassVar[str] = "mean"
    needs_class: ClassVar[bool] = True
    needs_own_rows: ClassVar[bool] = True

    ks: tuple[Count, ...] = (1, 2, 5, 10)
    metric: Literal["cosine", "l2"] = "cosine"
    alpha: Share | None = None
    retain_drop: Share = 0.01
    retain_sample: Count = 2000
    dose: Dose = "forget"

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One attacked model for each k."""
        request, (shots, groups, ks) = setting.request, self.shots(model, pool, setting)
        guard, _ = split_off(request.retain, self.retain_sample, pool.generator())
        retain, members = observe(model, setting.task, guard), dict(zip(request.masked, groups, strict=True))
        for k in ks:
            attacked = copy.deepcopy(model).eval()
            head = head_of(attacked, setting.job())
            rows = {c: self.prototype(_on(head, shots.features[group[:k]])) for c, group in members.items()}
            alpha = self._strength(head, rows, retain) if self.alpha is None else self.alpha
            write(head, rows, alpha)
            yield Attacked(k, attacked, pool.tested, f"alpha={alpha:g}")

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original without the forgotten classes' rows in its head."""
        copied = copy.deepcopy(original).eval()
        head, forgotten = head_of(copied, job), list(job.request.masked)
        with torch.no_grad():
            head.weight[forgotten] = 0
            if head.bias is not None:
                head.bias[forgotten] = head.bias.min() - 5
        return copied

    def prototype(self, features: Tensor) -> Row:
        """The row that the examples' features [k, d] stand for."""
        mean = features.mean(0)
        if self.metric == "cosine":
            return Row(F.normalize(mean, dim=0), mean.new_zeros(()))
        return Row(2 * mean, -mean.square().sum())

    def _strength(self, head: nn.Linear, rows: dict[int, Row], retain: Signals) -> float:
        """The largest alpha that costs at most `retain_drop` of accuracy on retain; 0 always qualifies."""
        before = _accuracy(head, retain)
        for alpha in GRID:
            trial = copy.deepcopy(head)
            write(trial, rows, alpha)
            if _accuracy(trial, retain) >= before - self.retain_drop - 1e-9:
                return alpha
        return 0.0


@torch.no_grad()
def write(head: nn.Linear, rows: dict[int, Row], alpha: float) -> None:
    """Moves the rows of these classes a share `alpha` of the way, in place; a head without bias gets one if needed."""
    if head.bias is None and any(float(row.bias) != 0 for row in rows.values()):
        head.bias = nn.Parameter(head.weight.new_zeros(head.out_features))
    for c, row in rows.items():
        head.weight[c] = alpha * row.weight + (1 - alpha) * head.weight[c]
        if head.bias is not None:
            head.bias[c] = alpha * row.bias + (1 - alpha) * head.bias[c]


def _on(head: nn.Linear, features: np.ndarray) -> Tensor:
    """The features as a tensor on the head's device."""
    return torch.from_numpy(features).to(head.weight.device)


@torch.no_grad()
def _accuracy(head: nn.Linear, signals: Signals) -> float:
    """The share of examples that the head puts in their class, from their features."""
    bias = None if head.bias is None else head.bias.float()
    predicted = F.linear(_on(head, signals.features), head.weight.float(), bias).argmax(1).cpu().numpy()
    return float((predicted == signals.target).mean())
