"""GIF, the graph influence function: the influence of what must go, and of what it changes for its neighbours."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar, cast

from torch import nn

from unrecall.data.examples import Joined, Selection, split_off
from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, repair
from unrecall.models.curvature import Curvature, series, summed_gradient
from unrecall.models.importance import trainable
from unrecall.models.vector import move
from unrecall.spec.parameters import Count, Index, Positive, Share
from unrecall.tasks.interaction_graph import neighbourhood, without
from unrecall.tasks.protocols import Ranked, check_offers
from unrecall.training.session import Effort


@dataclass(frozen=True)
class GIF(GradientMethod):
    """Undoes what forgotten interactions did to the weights: by themselves, and through those nearby; then repairs.

        v   = (sum over forget of grad L  + sum over N in G of grad L  - sum over N in G' of grad L) / n
        x_0 = v,    x_t = v + (1 - damping) x_t-1 - H x_t-1 / scale,       theta <- theta + step x_T / scale

    G is the graph of all interactions, G' the same without those of forget. N are retained interactions of users within
    `hops` of a user who forgets, where two users of one item are two hops apart. In G' no history holds what its user
    forgets; an interaction with nothing left of its history is not there. A model that reads no histories gives N the
    same losses in both, so that the two sums cancel. n counts the training examples; H is the Hessian of the mean loss
    over them, in eval mode. x_T / scale goes to (H + damping scale I)^-1 v. The repair is training on retain.

    Args:
        step: how many times the step is taken; 1 in the paper.
        hops: how far from a user who forgets N reaches; even numbers lead to users.
        damping: share of x that each iteration drops.
        scale: more than half of the largest eigenvalue of H, for the series to converge.
        iterations: T; each passes the sampled examples through the model once.
        sampled: training examples in H, at most all there are.
        repaired: examples of retain that the repair draws, for each forget example; 0 leaves the repair out.
        fit: of the repair; Adam, lr 1e-3, batch 128. Its epochs are so many times those examples.

    Expected to fail: where there is no graph of users and items (NotSupported). At scale 1000 the series has hardly
    begun after 100 iterations: x_T / scale is about v / 16, a short climb of forget's loss. A graph that a
    model holds inside itself, to pass messages along, is the same for both sums.

    Reference: Wu, Yang, Qian, Sui, Wang, He, "GIF: A General Graph Unlearning Strategy via Influence Function", WWW
    2023, arXiv 2304.02835, the series from its code; iterations, damping, scale and repair are those of Lubitzsch, de
    Rijke, Schelter, "ERASE", arXiv 2603.08341. Differs from ERASE's code, which divides by neither scale nor n,
    so that it climbs that many times as far, and whose series has I - damping H / scale in place of (1 - damping) I -
    H / scale.
    """

    title = "GIF"
    strength = Strength(("step",), high=2**16)
    has_null: ClassVar[bool] = False

    step: Positive = 1.0
    hops: Index = 2
    damping: Share = 0.01
    scale: Positive = 1000.0
    iterations: Count = 100
    sampled: Count = 1024
    repaired: Index = 128
    fit: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Moves the student, and makes one phase over retain."""
        start, request, task = time.perf_counter(), job.request, job.task
        check_offers(self, task, Ranked, advice="Choose CertifiedEdge, which needs no users and items.")
        graph = cast(Ranked, task)
        weights, whole = trainable(student), Joined([request.forget, request.retain])
        before = Selection(request.retain, neighbourhood(graph, request, self.hops))
        after = without(graph, before, request.forget)
        v = summed_gradient(student, task, request.forget, weights)
        v = v + summed_gradient(student, task, before, weights) - summed_gradient(student, task, after, weights)
        curvature = Curvature(student, task, split_off(whole, self.sampled, job.generator)[0], weights)
        change = series(repeat(curvature, self.iterations), v / len(whole), self.damping, self.scale)
        move(student, weights, self.step * change)
        passes = len(request.forget) + len(before) + len(after) + curvature.passes
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return repair(job, self.fit, self.repaired)
