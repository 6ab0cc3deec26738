"""SSD, selective synaptic dampening: a direct edit of the weights that matter to forget above all."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from unrecall.data.examples import Joined
from unrecall.methods.base import Job, Method, Strength, copy_of
from unrecall.models.importance import batch_mean, exact
from unrecall.spec.parameters import Count, Positive
from unrecall.training.session import Effort


@dataclass(frozen=True)
class SSD(Method):
    """Shrinks the weights that matter much more to forget than to the training data as a whole; trains nothing.

        where I_f > alpha I_D:   theta <- theta min(lambda I_D / I_f, 1)

        I = (1/B) sum_b (d mean_{i in b} loss_i / d theta)^2

    I is a weight's importance to the loss over forget (I_f) or over the training data (I_D), from batches b in order,
    forget after retain. BatchNorm's statistics stay as they are.

    Args:
        alpha: how many times larger I_f must be; smaller forgets more (RURK's appendix: 10 CIFAR-10, 100 CIFAR-5).
        dampening: lambda; smaller forgets more, and 1 brings a weight down by I_D / I_f. An alpha below lambda chooses
            weights that the cap at 1 leaves alone, which is why a search scales the two together.
        against: I_D over retain and forget together, as in the paper, or over retain alone, as RURK's appendix has it.
        importance: "batch" is the formula above, which alpha was set for; it depends on `batch_size` and on the order
            of the data. "exact" is the mean of squared per-example gradients, which depends on neither.
        batch_size: examples a batch, for importance="batch" alone.

    Expected to fail: against="all" bounds I_f / I_D by n / n_f with exact importance, so that with a tenth or more of
    the data to forget nothing is ever chosen at alpha 10. By batches there is no strict bound, but forget has batches
    of its own among the whole: of the digits' weights next to none are chosen there either, and against="retain" is
    what acts. Where retain shares the weights of forget, it suffers with them.

    Reference: Foster, Schoepf, Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
    Dampening", AAAI 2024, arXiv 2308.07707. Differs from the paper, whose Fisher information is of single examples, in
    squaring the gradients of batches, as its code does; its code's batches are of 64.
    """

    title = "SSD"
    strength = Strength(("alpha", "dampening"), inverse=True, high=2**10)

    alpha: Positive = 10.0
    dampening: Positive = 1.0
    against: Literal["all", "retain"] = "all"
    importance: Literal["batch", "exact"] = "batch"
    batch_size: Count = 128

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Computes both importances, and shrinks the weights of a copy."""
        start = time.perf_counter()
        request, task = job.request, job.settled(model).task
        student = copy_of(model, job).eval()
        whole = Joined([request.retain, request.forget] if self.against == "all" else [request.retain])
        importance = exact if self.importance == "exact" else partial(batch_mean, batch_size=self.batch_size)
        forget, training = importance(student, task, request.forget), importance(student, task, whole)
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if name in forget:
                    factor = (self.dampening * training[name] / forget[name]).clamp(max=1)
                    mask = forget[name] > self.alpha * training[name]
                    weight.copy_(torch.where(mask, weight * factor, weight))
        passes = len(request.forget) + len(whole)
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return student
