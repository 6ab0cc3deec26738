"""UBT: finds the pairs that carry a backdoor, and unlearns the few parts of them that it hangs on."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.data.batches import move
from unrecall.data.examples import Examples, Selection, split_off
from unrecall.errors import BadInput
from unrecall.methods.base import Batch, Batches, Fit, GradientMethod, Job, Phase, Strength, Task, train_helper
from unrecall.models.observe import in_order, repeated
from unrecall.nn.hooks import mode
from unrecall.spec.parameters import Count, NonNegative, Share
from unrecall.tasks.protocols import Composed, Embedded, composed
from unrecall.training.loop import StepState

LOOKED = 8
"""Pairs whose parts are left out at once."""


@dataclass(frozen=True)
class UBT(GradientMethod):
    """Finds which suspected pairs carry a backdoor by overfitting, then unlearns what it hangs on in a few of them.

        find:     a copy learns the `weak` share of forget whose sides are least alike, by
                  L_CLIP + lambda_ mean(1 - s_i),    s_i = cos(v_i, t_i);        g_i = s_i(copy) - s_i(original)
        choose:   the `few` pairs of highest g, and in each the `parts` parts of t of highest
                  I_j = cos(v, t) - cos(v, t without part j)
        unlearn:  L = mean_i cos(v_i, t_i | these parts alone)^2 + alpha L_CLIP(clean) + mu ||theta - theta_0||^2
                  until  mean_i s_i <= mean_{i != j} cos(v_i, t_j) over clean,    by the original

    v and t are the unit vectors of a pair's two sides; in pairs of pictures and captions the parts are the caption's
    tokens, without those that begin and end it. Forget holds the pairs that a defender suspects, poisoned or not: what
    they share, which is the backdoor, grows in the copy beyond the pairs that it learns. Clean pairs are drawn from
    retain. The stop looks at whole pairs, after each epoch and every `fit.check_every` steps.

    Args:
        weak: which share of forget, the least alike first, the copy learns.
        lambda_: weight of likeness in the copy's loss.
        few: pairs to unlearn from, at most.
        parts: parts of each, at most.
        clean: clean pairs, at most.
        alpha: weight of their contrastive loss; at 0 they serve the stop alone.
        mu: weight of the squared distance that the weights have moved.
        overfit: the copy's training: AdamW, lr 1e-5, batch 64, 5 epochs.
        fit: the unlearning: the same, at most 50 epochs over the chosen pairs.

    Expected to fail: where most of what is suspected is clean, or known by heart, so that g ranks nothing; at the
    defaults in small models, whose rates are a hundred times higher. What the attacker's class is called suffers too
    where it is among the parts, unless clean pairs hold it. Where unlike sides are no more alike than 0, nothing stops
    it before the last epoch. NotSupported on tasks whose examples are no pairs with parts.

    Reference: Liang, Liu, Gong, Liang, Xun, Chang, Cao, "Unlearning Backdoor Threats: Enhancing Backdoor Defense in
    Multimodal Contrastive Learning via Local Token Unlearning", CVPR workshop 2024, arXiv 2403.16257, from notes: they
    name the three steps and no formula, and no official code could be had. All formulas, the stop and every value here
    are reconstructed; the rate is that of defences it is compared with. A review of its follow-up, arXiv 2409.19526,
    says that pairs are ranked by s_i(copy) and that normal pairs join the overfitting. On small models s_i(copy) ranked
    better than g after much overfitting, and no better than chance after little.
    """

    title = "UBT"
    strength = Strength(("fit.lr",), high=2**10)

    weak: Share = 0.5
    lambda_: NonNegative = 10.0
    few: Count = 64
    parts: Count = 3
    clean: Count = 256
    alpha: NonNegative = 1.0
    mu: NonNegative = 0.0
    overfit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=64, epochs=5)
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=64, epochs=50)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over parts of the pairs most suspected, with clean ones cycling beside them."""
        request, task, generator = job.request, job.task, job.generator
        able = composed(self, task)
        if min(self.clean, len(request.retain)) < 2:
            raise BadInput(
                "UBT: expected at least 2 retain examples, and clean to be at least 2, for sides that don't belong "
                f"together, got {len(request.retain)} and {self.clean}."
            )
        order = torch.argsort(self.gains(student, job), descending=True, stable=True)
        suspects = Selection(request.forget, order[: self.few].tolist())
        clean, _ = split_off(request.retain, self.clean, generator)
        level, start = likeness_of_strangers(able.embedded(original, clean)), dict(original.named_parameters())

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            total = able.cosines(model, batches["forget"]).square().mean()
            if self.alpha > 0:
                total = total + self.alpha * task.rows(model, batches["clean"]).losses().mean()
            if self.mu > 0:
                distances = [(p - start[name]).square().sum() for name, p in student.named_parameters()]
                total = total + self.mu * torch.stack(distances).sum()
            return total

        def stop(_: StepState) -> bool:
            return float(likeness(able.embedded(student, suspects)).mean()) <= level

        streams: dict[str, Examples] = {"forget": reduce_to_parts(original, task, suspects, self.parts)}
        return [Phase(loss, streams if self.alpha == 0 else streams | {"clean": clean}, self.fit, ends=stop)]

    def gains(self, model: nn.Module, job: Job) -> Tensor:
        """Computes g of each forget example `[n]`: how much more alike an overfitted copy finds its sides."""
        forget, task = job.request.forget, job.task
        able = composed(self, task)
        before = likeness(able.embedded(model, forget))
        weakest = torch.argsort(before, stable=True)[: max(2, round(self.weak * len(before)))].tolist()

        def loss(learner: nn.Module, batches: Batches) -> Tensor:
            unlikeness = 1 - able.cosines(learner, batches["forget"])
            return task.rows(learner, batches["forget"]).losses().mean() + self.lambda_ * unlikeness.mean()

        learner = copy.deepcopy(model)
        overfit = Phase(loss, {"forget": Selection(forget, weakest)}, self.overfit)
        train_helper(learner, overfit, job, "ubt-0")
        return (likeness(able.embedded(learner, forget)) - before).cpu()


def likeness(pairs: Embedded) -> Tensor:
    """Computes the cosine of both sides of each pair, `[n]`."""
    return (pairs.first * pairs.second).sum(1)


def likeness_of_strangers(pairs: Embedded) -> float:
    """Computes the mean cosine of sides that don't belong together: of all i != j."""
    n = len(pairs.first)
    every = pairs.first.sum(0) @ pairs.second.sum(0)
    return float(every - likeness(pairs).sum()) / (n * (n - 1))


def influences(model: nn.Module, task: Composed, batch: Batch) -> Tensor:
    """Computes I_j of each part of each pair, `[examples, places]`, in one pass; minus infinity where no part is."""
    parts = task.parts(batch)
    pair, place = parts.nonzero(as_tuple=True)
    shown = torch.ones(len(pair), parts.shape[1], dtype=torch.bool, device=parts.device)
    shown[torch.arange(len(pair)), place] = False
    lacking = task.only({name: value[pair] for name, value in batch.items()}, shown)
    scores = torch.full(parts.shape, -torch.inf, device=parts.device)
    with mode(model, training=False), torch.no_grad():
        scores[pair, place] = task.cosines(model, batch)[pair] - task.cosines(model, lacking)
    return scores


def reduce_to_parts(model: nn.Module, task: Task, examples: Examples, count: int) -> list[Any]:
    """Leaves in each pair only the `count` parts of highest I, or all where there are no more."""
    able, pairs = composed("UBT", task), list[Any]()
    for batch in in_order(model, task, examples, LOOKED):
        order = influences(model, able, batch).argsort(dim=1, descending=True, stable=True)
        shown = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], True)
        reduced = able.items(move(able.only(batch, shown), torch.device("cpu")))
        pairs += reduced[repeated(batch, len(pairs)) :]
    return pairs
