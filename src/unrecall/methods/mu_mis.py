"""MU-Mis: makes forgotten examples' own classes no more sensitive to their inputs than any other class is."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unrecall.methods.base import Batch, Batches, Fit, GradientMethod, Job, Phase, Rows, Strength, Task
from unrecall.models.observe import in_order
from unrecall.models.perturb import other_classes
from unrecall.nn.hooks import frozen, mode
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.tasks.protocols import check_own_rows, perturbable
from unrecall.training.loop import StepState
from unrecall.training.randomness import draw_seed, seeded

LOWEST = "lowest"
"""Under which name the optimiser's state holds the lowest ratio so far, so that an interrupted run goes on the same."""


@dataclass(frozen=True)
class MUMis(GradientMethod):
    """Suppresses what forget examples contributed: the input sensitivity of their own logit, which training raised.

        L = mean_i( alpha ||grad_x f_c(x_i)||^2 - alpha_other ||grad_x f_c'(x_i)||^2 ),    c' != c random

    f are logits, c is an example's class and c' another one, drawn anew for each example at every evaluation; the norm
    is the Euclidean one of the gradient with respect to the whole input. All of it is that of the model in eval mode,
    so that `fit.batchnorm` decides nothing. No retain data. L has no lower bound: the stop is part of the method.

        stop once  r_t > delta  and  r_t > min_{s < t} r_s,    r_t = mean_i ||grad_x f_c'||(w_t) / the same at w_0

    r, 1 at the start, first falls and then rises; where it only rises, its minimum is the start. It is measured over
    the whole forget set, with one c' for each example that is drawn once, after each epoch and every `fit.check_every`
    steps. A step takes one pass and two gradients with respect to inputs that are differentiated again; a look takes
    one pass, forward and back, over forget. The lowest r is kept with the optimiser, so that an interrupted run ends
    the same.

    Args:
        delta: how far the sensitivity of the other classes must have come back, as a multiple of what it was.
        alpha: weight of the own class's term.
        alpha_other: weight of the other class's term.
        fit: SGD, lr 1e-4, momentum 0.9, no weight decay, batch 128, at most 20 epochs.

    Expected to fail: where the learning rate is so high that L runs away between two looks (Diverged); where forget
    examples are like many of retain (random samples, the paper's weak case), for then retain suffers. NotSupported on
    tasks without continuous inputs, and on those whose rows depend on the other examples of a batch.

    Reference: Cheng, Huang, Zhou, He, Yang, Wu, Huang, "Remaining-data-free Machine Unlearning by Suppressing Sample
    Contribution", ICLR 2026, arXiv 2402.15109, from notes; no official code could be had. Its learning rate and delta
    were not found: ours forget in small classifiers, and want tuning elsewhere. How often it looks, at which examples,
    and that the mean of norms is followed, is our reading. Differs from the paper in nothing else known.
    """

    title = "MU-Mis"
    strength = Strength(("fit.lr",), high=2**10)

    delta: Positive = 1.5
    alpha: NonNegative = 1.0
    alpha_other: NonNegative = 1.0
    fit: Fit = Fit(lr=1e-4, weight_decay=0.0, epochs=20, batchnorm="frozen")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, until the other classes' sensitivity has fallen and come back."""
        request, task, generator = job.request, job.task, job.generator
        perturbable(task)
        check_own_rows(self, task, "Choose another method.")
        seed = draw_seed(generator)

        def followed(model: nn.Module) -> float:
            """Measures the mean norm of another class's input gradient over forget, the same classes each time."""
            draws, total = seeded(seed), 0.0
            with frozen(model):
                for batch in in_order(model, task, request.forget):
                    response = respond(model, task, batch)
                    rivals = other_classes(response.rows.targets, response.rows.logits.shape[1], draws)
                    total += float(sensitivity(response, rivals).detach().sqrt().double().sum())
            return total / len(request.forget)

        start = max(followed(student), torch.finfo(torch.float32).tiny)

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            response = respond(model, task, batches["forget"])
            rivals = other_classes(response.rows.targets, response.rows.logits.shape[1], generator)
            target_term = self.alpha * sensitivity(response, response.rows.targets)
            return (target_term - self.alpha_other * sensitivity(response, rivals)).mean()

        def recovered(current: StepState) -> bool:
            trained = [p for group in current.optimizer.param_groups for p in group["params"]]
            state = current.optimizer.state[next(p for p in trained if p.grad is not None)]
            ratio, lowest = followed(student) / start, state.get(LOWEST, 1.0)
            state[LOWEST] = min(ratio, lowest)
            return past_minimum(ratio, lowest, self.delta)

        return [Phase(loss, {"forget": request.forget}, self.fit, ends=recovered)]


def past_minimum(ratio: float, lowest: float, delta: float) -> bool:
    """Says whether a ratio is above `delta` and on its way up from `lowest`, the lowest before it (1 at the start)."""
    return ratio > max(delta, lowest)


class Response(NamedTuple):
    """The rows that a model gives for a batch, and the inputs by which they can be differentiated."""

    rows: Rows
    inputs: Tensor


def respond(model: nn.Module, task: Task, batch: Batch) -> Response:
    """Answers a batch in eval mode. Attention goes step by step: its fused kernels can't be differentiated twice."""
    able = perturbable(task)
    inputs = able.inputs(batch).detach().requires_grad_(True)
    with mode(model, training=False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        return Response(task.rows(model, able.with_inputs(batch, inputs)), inputs)


def sensitivity(response: Response, classes: Tensor) -> Tensor:
    """Computes ||grad_x f_k(x_i)||^2 `[examples]`, k the class of each row `[rows]`; can be differentiated again.

    Examples don't mix in eval mode, so one backward pass of the summed logits gives the gradient of each its own.
    """
    summed = response.rows.logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(summed, response.inputs, create_graph=True)
    return gradient.flatten(1).float().square().sum(1)
