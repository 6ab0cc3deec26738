"""IDEA: the influence function's step by stochastic curvature, blurred as a certificate would ask, and repaired."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from unrecall.data.examples import split_off
from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, repair
from unrecall.models.curvature import Curvature, largest, series, summed_gradient
from unrecall.models.importance import trainable
from unrecall.models.perturb import noise_like
from unrecall.models.vector import move
from unrecall.spec.parameters import Count, Index, NonNegative, Positive, ProperShare
from unrecall.tasks.interaction_graph import by_user
from unrecall.training.session import Effort


@dataclass(frozen=True)
class IDEA(GradientMethod):
    """Undoes what forget did to the weights, to first order, blurs what is left of it, and repairs use.

        b = (sum over forget of grad L - sum over cleaned of grad L) / n
        x_0 = b,    x_t = b + x_t-1 - (H_t + damping I) x_t-1 / scale,      x = step x_T / scale
        theta <- theta + x + noise,     noise ~ N(0, s^2 I),     s = max(sigma, zeta sqrt(2 ln(1.25 / delta)) / epsilon)
        zeta = damping |x|

    n is the number of training examples. Cleaned is what retain has of the users who forget; a task without users has
    no such part: cleaned is retain as a whole. H_t is the Hessian of the mean loss over `sampled` examples of retain,
    drawn anew each time, in eval mode. The repair is training on retain.

    Args:
        step: how many times the step is taken; 1 in the paper.
        damping: shortens x along directions in which the loss hardly curves; zeta grows with it.
        scale: more than half of the largest eigenvalue of H + damping I; None: that eigenvalue, which SciPy looks for.
        iterations: T.
        sampled: examples of retain in each H_t, at most all there are.
        sigma: the least standard deviation of the noise, on each weight.
        epsilon: of the certificate; smaller asks for more noise.
        delta: of the certificate, above 0 and below 1; smaller asks for more noise.
        repaired: examples of retain that the repair draws, for each forget example; 0 leaves the repair out.
        fit: of the repair; Adam, lr 1e-3, batch 128. Its epochs are so many times those examples.

    Expected to fail: zeta is no bound on the distance to the retrained weights, least of all for a network, so that
    epsilon and delta certify nothing here. A sigma of 0.1 on every weight wrecks most networks; what the repair makes
    of the wreck is the result, and where retain is small that is bad.

    Reference: Dong, Zhang, Lei, Zou, Li, "IDEA: A Flexible Framework of Certified Unlearning for Graph Neural
    Networks", KDD 2024, arXiv 2407.19398, in the form and with the defaults of Lubitzsch, de Rijke, Schelter, "ERASE",
    arXiv 2603.08341, from its code. Differs from that code in the sign of the step, which there lowers the loss of
    forget; in sums over n, where it has means over forget and over cleaned; in the root of s, by which it divides, so
    that its noise is smaller than the Gaussian mechanism's; and in the series, whose own diverges where H has an
    eigenvalue above 2 damping.
    """

    title = "IDEA"
    strength = Strength(("step",), high=2**16)
    has_null: ClassVar[bool] = False

    step: Positive = 1.0
    damping: Positive = 0.01
    scale: Positive | None = None
    iterations: Count = 100
    sampled: Count = 1024
    sigma: NonNegative = 0.1
    epsilon: Positive = 0.1
    delta: ProperShare = 0.01
    repaired: Index = 128
    fit: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Moves the student, and makes one phase over retain."""
        start, request, task = time.perf_counter(), job.request, job.task
        weights, cleaned = trainable(student), by_user(task, request).cleaned
        right = summed_gradient(student, task, request.forget, weights)
        right = (right - summed_gradient(student, task, cleaned, weights)) / (len(request.forget) + len(request.retain))

        def drawn() -> Curvature:
            return Curvature(student, task, split_off(request.retain, self.sampled, job.generator)[0], weights)

        first = drawn()
        scale = self.scale or max(largest(first), 0.0) + self.damping
        change = self.step * series((drawn() for _ in range(self.iterations)), right, self.damping / scale, scale)
        move(student, weights, change + self.deviation(float(change.norm())) * noise_like(change, job.generator))
        passes = len(request.forget) + len(cleaned) + first.passes + self.iterations * len(first.examples)
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return repair(job, self.fit, self.repaired)

    def deviation(self, length: float) -> float:
        """Computes the noise's standard deviation for a change of that length."""
        zeta = self.damping * length
        return max(self.sigma, zeta * math.sqrt(2 * math.log(1.25 / self.delta)) / self.epsilon)
