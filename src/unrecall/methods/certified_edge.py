"""CEU, Certified Edge Unlearning: the influence function's step, with noise on it."""

import time
from dataclasses import dataclass

from torch import nn

from unrecall.data.examples import split_off
from unrecall.methods.base import Job, Method, Strength, copy_of
from unrecall.models.curvature import Curvature, solved, summed_gradient
from unrecall.models.importance import trainable
from unrecall.models.perturb import noise_like
from unrecall.models.vector import move
from unrecall.spec.parameters import Count, NonNegative, Positive
from unrecall.tasks.interaction_graph import by_user
from unrecall.training.session import Effort


@dataclass(frozen=True)
class CertifiedEdge(Method):
    """Undoes what forget did to the weights, to first order, and blurs what is left of it.

        delta = sum over forget of grad L - sum over cleaned of grad L
        (H + damping I) x = delta,      theta <- theta + (step x + noise) / n,      noise ~ N(0, sigma^2 I)

    n is the number of training examples. Cleaned is what retain has of the users who forget: the paper's nodes at the
    ends of the removed edges, on the graph without these. A task without users has no such part: cleaned is retain as
    a whole. H is the Hessian of the mean loss over retain, in eval mode; MINRES solves for x.

    Args:
        step: how many times the step is taken; 1 in the paper.
        damping: shortens x along directions in which the loss hardly curves.
        sigma: standard deviation of the noise, before it is divided by n.
        sampled: examples of retain in H, at most all there are.
        iterations: of MINRES, at most; each passes the sampled examples through the model once.
        tolerance: the residual, as a share of |H| |x|, at which they end.

    Expected to fail: the certificate of the paper is for convex losses at their minimum, and says nothing of a network;
    none is claimed here. Examples known by heart have next to no gradient, so that the step is short. Where the loss
    curves downwards, x leads to a saddle along those directions.

    Reference: Wu, Shen, Ning, Wang, Wang, "Certified Edge Unlearning for Graph Neural Networks", KDD 2023, in the form
    and with the defaults of Lubitzsch, de Rijke, Schelter, "ERASE", arXiv 2603.08341, from its code; the paper itself
    was not to be had. Differs from that code in the sign of the step, which there lowers the loss of forget; in sums
    for delta and all training examples for n, as the influence function has them, where it has means and counts forget
    and cleaned alone; in `damping`, which it counts twice; and in MINRES, where it has conjugate gradients, which a
    saddle leads astray.
    """

    title = "CEU (edges)"
    strength = Strength(("step",), high=2**16)

    step: Positive = 1.0
    damping: NonNegative = 0.01
    sigma: NonNegative = 0.1
    sampled: Count = 1024
    iterations: Count = 100
    tolerance: Positive = 1e-6

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Computes delta and x, and moves a copy."""
        start = time.perf_counter()
        request, task = job.request, job.settled(model).task
        student = copy_of(model, job).eval()
        weights, cleaned = trainable(student), by_user(task, request).cleaned
        delta = summed_gradient(student, task, request.forget, weights)
        delta = delta - summed_gradient(student, task, cleaned, weights)
        sample, _ = split_off(request.retain, self.sampled, job.generator)
        curvature = Curvature(student, task, sample, weights)
        influence = solved(curvature, delta, self.damping, self.iterations, self.tolerance)
        change = self.step * influence + self.sigma * noise_like(influence, job.generator)
        move(student, weights, change / (len(request.forget) + len(request.retain)))
        passes = len(request.forget) + len(cleaned) + curvature.passes
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return student
