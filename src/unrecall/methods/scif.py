"""SCIF: one step of Newton's, in the embeddings and the last layer alone.

A reconstruction: the paper was known from its abstract alone, so that the form is that of ERASE's code.
"""

import time
from dataclasses import dataclass

from torch import nn

from unrecall.data.examples import Examples, split_off
from unrecall.methods.base import Job, Method, Strength, Task, copy_of
from unrecall.models.curvature import Curvature, solved, summed_gradient
from unrecall.models.importance import Weights, trainable
from unrecall.models.observe import in_order
from unrecall.models.vector import move
from unrecall.spec.parameters import Count, NonNegative, Positive
from unrecall.tasks.interaction_graph import retained
from unrecall.training.session import Effort


@dataclass(frozen=True)
class SCIF(Method):
    """Moves the weights that stand for users and items where the loss without forget has its minimum, to second order.

        g = (- sum over forget of grad L  + sum over cleaned of grad L  + sum over others of grad L) / n_r
        (H + damping I) x = g,      theta <- theta - step x / |D_r|

    theta are the trainable weights of every nn.Embedding and of the last linear layer (all, where none of these are);
    the others stay as they are.
    Cleaned is what retain has of the users who forget; others are random examples of all other users, so many that
    there are `retained` for each forget example (or all there are). n_r counts cleaned and others. A task without users
    has no others: cleaned is retain as a whole. H is the Hessian of the mean loss over retain, in eval mode; MINRES
    solves for x.

    Args:
        step: how many times the step is taken; 1 in ERASE, whose n_r makes it n_r / |forget| times shorter than the
            influence function's, at least.
        damping: shortens x along directions in which the loss hardly curves.
        retained: examples of retain in g for each forget example.
        sampled: examples of retain in H for each forget example, at most all there are.
        iterations: of MINRES, at most; each passes the sampled examples through the model once.
        tolerance: the residual, as a share of |H| |x|, at which they end.
        clip: the largest length of the whole change; None for no limit (ERASE also tries 10).

    Expected to fail: at step 1 it changes next to nothing; what layers between the embeddings and the last know stays.
    A step made much longer leaves the region where the loss is like its second-order form, and use goes first.

    Reference: Li, Chen, Zheng, Zhang, Gong, Wang, "Selective and Collaborative Influence Function for Efficient
    Recommendation Unlearning", arXiv 2304.10199, in the form and with the defaults of Lubitzsch, de Rijke, Schelter,
    "ERASE", arXiv 2603.08341, from its code. Differs from that code in H, of which every iteration sees the same
    examples, where the code draws 16 others for each; in MINRES, where it has conjugate gradients, which a saddle leads
    astray; in 64 iterations, which is what it makes for one forgotten example; in a relative tolerance; and in n_r,
    which there leaves cleaned out.
    """

    title = "SCIF"
    strength = Strength(("step",), high=2**16)

    step: Positive = 1.0
    damping: NonNegative = 0.01
    retained: Count = 128
    sampled: Count = 1024
    iterations: Count = 64
    tolerance: Positive = 1e-5
    clip: Positive | None = None

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Computes g and x, and moves the chosen weights of a copy."""
        start = time.perf_counter()
        request, task = job.request, job.settled(model).task
        student = copy_of(model, job).eval()
        weights = of_users_and_items(student, task, request.forget)
        staying = retained(task, request, self.retained * len(request.forget), job.generator)
        gradient = summed_gradient(student, task, staying, weights)
        gradient = (gradient - summed_gradient(student, task, request.forget, weights)) / len(staying)
        sample, _ = split_off(request.retain, self.sampled * len(request.forget), job.generator)
        curvature = Curvature(student, task, sample, weights)
        change = (
            -self.step
            / len(request.retain)
            * solved(curvature, gradient, self.damping, self.iterations, self.tolerance)
        )
        if self.clip is not None:
            change = change * min(1.0, self.clip / max(float(change.double().norm()), 1e-30))
        move(student, weights, change)
        passes = len(staying) + len(request.forget) + curvature.passes
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return student


def of_users_and_items(model: nn.Module, task: Task, examples: Examples) -> Weights:
    """Gives the trainable weights of the embeddings and the last linear layer, detached; all where none are."""
    last = task.endings(model, next(in_order(model, task, examples, 1)))
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    chosen = {id(weight) for module in [*embeddings, *last] for weight in module.parameters()}
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad and id(p) in chosen}
    return weights or trainable(model)
