"""Head refit: the last layer is fitted anew to frozen features; what only the old one had hidden comes back."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.examples import Examples, Joined, Selection, iterate, split_off
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import observe
from unrecall.nn.ridge import Ridge, ridge_classifier
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count
from unrecall.tasks.protocols import Classifying
from unrecall.training.ascent import head_of
from unrecall.training.job import Job


@dataclass(frozen=True)
class HeadRefit(RecoveryAttack):
    """Replaces the head by a ridge regression of classes on the features that enter it, in closed form.

        W, b = argmin  sum_i w_i |e(y_i) - W f(x_i) - b|^2 + penalty |W|^2        e(y): one-hot; f: what enters the head
        head <- s W, s b,     s = argmin over s of  sum_i w_i CE(s (W_-i f(x_i) + b_-i), y_i)

    over retain examples alone, w_i = 1; or, where classes are forgotten whole, over them and a few examples of each
    forgotten class, and w_i = n / (classes n_{y_i}): each class counts the same, or a few examples would be outvoted.
    W_-i, b_-i are fitted without example i; the penalty is the one with the smallest squared error of those
    (`nn/ridge.py`). The scale s makes outputs logits, so that losses mean what a trained head's mean. A class without
    any example has logit 0.

    Args:
        counts: retain examples, drawn at random, one point of the curve each; larger ones use all of retain.
        shots: forgotten examples beside them, of each class that is forgotten whole, or as many as half of forget has;
            none where no class is.
        dose: "forget", or "both": those come from forget and holdout alike.

    Expected to fail: on a model whose features no longer tell the forgotten from what was never trained on. With a
    whole class it succeeds on a retrained model in part, since features of a class never seen may still cluster.

    Reference: ours; features read by a new linear layer are the probe of Alain, Bengio, "Understanding Intermediate
    Layers Using Linear Classifier Probes", ICLR 2017 workshop, arXiv 1610.01644.
    """

    title: ClassVar[str] = "Head refit"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: reads features, writes the last layer",
        data="retain examples with labels; of forget none, or a few of each class that is forgotten whole",
        budget="the number of retain examples; no training",
    )
    needs: ClassVar[tuple[type, ...]] = (Classifying,)
    named_by: ClassVar[tuple[str, ...]] = ("shots",)
    axis: ClassVar[str] = "retain examples"

    counts: tuple[Count, ...] = (100, 1000, 10_000)
    shots: Count = 5
    dose: Dose = "forget"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.counts:
            raise BadInput("HeadRefit: expected at least one count, got none. Name how many retain examples it takes.")

    def teaches(self, n: int, request: Request) -> int:
        """None unless classes go; else at most half of `n`: `shots` a class, three times as many where several go."""
        classes = len(request.masked)
        return min(self.shots * (classes if classes < 2 else 3 * classes), n // 2)

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One copy with another head for each count."""
        job, retain = setting.job(), setting.request.retain
        head_of(model, job)
        few = self._few(pool.taught, setting)
        sample, _ = split_off(retain, min(max(self.counts), len(retain)), pool.generator())
        signals = observe(model, setting.task, Joined((few, sample)))
        for count in sorted({min(count, len(sample)) for count in self.counts}):
            x, y = signals.features[: len(few) + count], signals.target[: len(few) + count]
            attacked = copy.deepcopy(model).eval()
            head = head_of(attacked, job)
            write(head, refitted(x, y, head.out_features, balanced=len(few) > 0))
            yield Attacked(count, attacked, pool.tested)

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original with a head that is wrong; None where there is no head, since then the features would be."""
        with suppress(NotSupported):
            head_of(original, job)
            return super().disguise(original, job)
        return None

    def _few(self, taught: Examples, setting: Setting) -> Examples:
        """The forgotten examples that the attacker holds: some of each class that is forgotten whole."""
        task, masked = cast(Classifying, setting.task), setting.request.masked
        labels = [task.label(item) for item in iterate(taught)] if masked else []
        chosen = [[i for i, label in enumerate(labels) if label == c][: self.shots] for c in masked]
        if not all(chosen):
            raise NotSupported(
                f"HeadRefit: expected forget examples of each forgotten class to set aside, got {[*map(len, chosen)]}."
            )
        return Selection(taught, [i for part in chosen for i in part])


def refitted(features: np.ndarray, labels: np.ndarray, classes: int, *, balanced: bool = False) -> Ridge:
    """The ridge classifier of features `[n, d]` and their labels `[n]`; NotSupported where those are of one class.

    `balanced`: whether each class counts the same, instead of each example.
    """
    counts = np.bincount(labels, minlength=classes)
    if np.count_nonzero(counts) < 2:
        raise NotSupported("HeadRefit: expected examples of two classes or more to tell apart, got one class.")
    weights = len(labels) / (np.count_nonzero(counts) * counts[labels]) if balanced else np.ones(len(labels))
    return ridge_classifier(torch.from_numpy(features), torch.from_numpy(labels), classes, torch.from_numpy(weights))


@torch.no_grad()
def write(head: nn.Linear, fitted: Ridge) -> None:
    """Puts a linear map in the place of a head's own, in place; a head without bias gets one."""
    if head.bias is None:
        head.bias = nn.Parameter(head.weight.new_zeros(head.out_features))
    head.weight.copy_(fitted.weight.T)
    head.bias.copy_(fitted.bias)
