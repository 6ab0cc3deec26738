"""Fisher forgetting: noise in the weights that retain does not need."""

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unrecall.methods.base import Job, Method, Strength, Task, copy_of
from unrecall.models.importance import classes_of, exact, fisher
from unrecall.models.observe import in_order
from unrecall.nn.hooks import check_no_experts, transposed_weights
from unrecall.spec.parameters import Positive
from unrecall.tasks.protocols import classed
from unrecall.training.session import Effort


@dataclass(frozen=True)
class Fisher(Method):
    """Adds noise to the weights, the more the less retain depends on them; trains nothing.

        theta <- theta + N(0, v),    v = alpha min(1 / (F + 1e-8), ceiling)
        F_j    = (1/n) sum_{i in retain} sum_k p_ik (d log p_ik / d theta_j)^2

    F is the diagonal of the Fisher information. The head's ceiling is `head_ceiling`. The weights of a matrix that
    enter the same output from the same place (its second dimension) share the mean of their v. v is `wider` times as
    large in the head, and in whatever is a vector: biases, and BatchNorm's weights. Where a class is forgotten whole,
    the head's weights for it are drawn anew: mean 0, v = wider 1e-4. BatchNorm's statistics stay as they are.

    Args:
        alpha: variance of the noise; larger forgets more.
        labels: F over the labels that the model itself draws, as in the paper (one pass a class, for classifiers), or
            over the true ones, the empirical Fisher, which any task has.
        ceiling: most that 1 / F counts.
        head_ceiling: the same in the head.
        wider: how much more noise the head and vectors get.

    Expected to fail: the noise knows nothing of forget but what retain leaves out: where forget looks like retain, its
    weights are retain's, and whatever noise hits the one hits the other.

    Reference: Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks",
    CVPR 2020, arXiv 1911.04933. Ceilings, shared v, `wider` and the class drawn anew are those of the authors' code.
    """

    title = "Fisher forgetting"
    strength = Strength(("alpha",), high=2**20)

    alpha: Positive = 1e-6
    labels: Literal["model", "true"] = "model"
    ceiling: Positive = 1e3
    head_ceiling: Positive = 1e2
    wider: Positive = 10.0

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Computes F of retain, and draws the noise of a copy."""
        start = time.perf_counter()
        task, retain = job.settled(model).task, job.request.retain
        check_no_experts(model, "Fisher", "Choose another method.")
        student = copy_of(model, job).eval()
        if self.labels == "model":
            task = classed(self, task, "Set labels=true.").classified()
            passes, information = classes_of(student, task, retain), fisher(student, task, retain)
        else:
            passes, information = 1, exact(student, task, retain)
        head, transposed = _head(student, task, job), transposed_weights(student)
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if name in information:
                    by_output = information[name].T if name in transposed else information[name]
                    variance = self.variance(by_output, name in head)
                    self._disturb(weight, variance.T if name in transposed else variance, name in head, job)
        job.session.efforts.append(Effort(passes=passes * len(retain), seconds=time.perf_counter() - start))
        return student

    def variance(self, information: Tensor, in_head: bool) -> Tensor:
        """Computes v of one parameter from its F."""
        inverse = (1 / (information + 1e-8)).clamp(
            max=min(self.ceiling, self.head_ceiling if in_head else self.ceiling)
        )
        shared = inverse.mean(1, keepdim=True).expand_as(inverse) if inverse.ndim > 1 else inverse
        return self.alpha * shared * (self.wider if in_head or inverse.ndim == 1 else 1.0)

    def _disturb(self, weight: Tensor, variance: Tensor, in_head: bool, job: Job) -> None:
        """Adds noise to one parameter, in place; the head's weights of forgotten classes start from 0."""
        if in_head and job.request.masked:
            forgotten = list(job.request.masked)
            weight[forgotten], variance = 0.0, variance.clone()
            variance[forgotten] = 1e-4 * self.wider
        noise = torch.randn(weight.shape, generator=job.generator, device=job.generator.device).to(weight)
        weight.add_(variance.sqrt() * noise)


def _head(model: nn.Module, task: Task, job: Job) -> set[str]:
    """Names the parameters of the modules that the last representation enters."""
    batch = next(in_order(model, task, job.request.retain, 1))
    inside = {id(p) for module in task.endings(model, batch) for p in module.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in inside}
