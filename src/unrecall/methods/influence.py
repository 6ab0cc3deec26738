"""Influence unlearning: one Newton-like step to where the loss of retain alone would be smallest."""

import time
from dataclasses import dataclass

from torch import nn

from unrecall.data.examples import split_off
from unrecall.methods.base import Job, Method, Strength, copy_of
from unrecall.models.importance import mean_gradient, trainable
from unrecall.models.jacobian import Bound, jacobian
from unrecall.models.vector import flat, move
from unrecall.nn.gram import damped_inverse
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.protocols import check_own_rows
from unrecall.training.session import Effort


@dataclass(frozen=True)
class Influence(Method):
    """Moves the weights once, to where influence functions predict that training without forget would have ended.

        theta <- theta + alpha H^-1 (g_f / (n_f + n_r) - n_f g_r / ((n_f + n_r) n_r))
        H      = damping I + (1/N) sum_{i of N} grad loss_i grad loss_i^T

    g_f and g_r are the gradients of the summed losses of forget and of retain, the model in eval mode; H comes from N
    retained examples drawn at random. Its inverse, WoodFisher's N rank-1 updates, is one solve of N equations.

    Args:
        alpha: how far to go; 1 is the step itself, and the paper tunes it (its code: 1 to 130, by task).
        damping: what stands on H's diagonal; smaller makes a longer step.
        examples: N, at most; their gradients are held at once.
        memory: the most that these may take, in GB (float32); above, NotSupported says what to lower.

    Expected to fail: where the model fits forget so well that g_f is next to 0, the step is too, whatever must go; a
    large alpha leaves the neighbourhood in which it means anything. H, of a sample and damped, is no Hessian.

    Reference: Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS
    2023, arXiv 2304.04934, whose baseline "IU" it is; WoodFisher is that of Singh and Alistarh, NeurIPS 2020, arXiv
    2004.14340. Differs from the paper's code in the inverse: that keeps one vector for all updates and so leaves each
    example's own direction out, where all updates are made here. The damping, 1, is that code's.
    """

    title = "Influence unlearning"
    strength = Strength(("alpha",), high=2**14)

    alpha: Positive = 1.0
    damping: Positive = 1.0
    examples: Count = 1000
    memory: Positive = 4.0

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Computes the step from gradients alone, and moves a copy."""
        start = time.perf_counter()
        forget, retain, task = job.request.forget, job.request.retain, job.settled(model).task
        check_own_rows(self, task, "Choose another method, such as SSD.")
        student = copy_of(model, job).eval()
        sample, _ = split_off(retain, self.examples, job.generator)
        gradients = jacobian(student, task, sample, Bound(type(self).__name__, self.memory))
        share = len(forget) / (len(forget) + len(retain))
        push = share * (flat(mean_gradient(student, task, forget)) - flat(mean_gradient(student, task, retain)))
        move(student, trainable(student), self.alpha * damped_inverse(gradients, push, self.damping))
        passes = len(forget) + len(retain) + len(sample)
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return student
