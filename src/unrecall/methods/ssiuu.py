"""SSIUU: another method's training, held back where it would only teach weights to work against the answers."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.errors import NotSupported
from unrecall.methods.base import Around, Batches, GradientMethod, Job, Phase, Plugin, Task
from unrecall.methods.grad_diff import GradDiff
from unrecall.models.importance import Weights
from unrecall.models.influence import Probability, weight_gradients
from unrecall.models.observe import in_order
from unrecall.spec.parameters import NonNegative
from unrecall.training.loop import Step, StepState

Norm: TypeAlias = Literal["square", "absolute"]
RATIO = "SSIUU: gradient of the penalty over that of the base, norms"
"""Under which name a record holds the median over steps."""
TINY = 1e-30
"""A norm below which a gradient is none; it keeps the ratio finite."""
ATTRIBUTION = "attribution"
"""Under which name the optimiser's state holds A of the step before, so that an interrupted run goes on the same."""


@dataclass(frozen=True)
class SSIUU(Plugin):
    """Adds a penalty to the base's loss that keeps negative influence where it is, so that forgetting has to erase.

        A_t     = phi * g_t,    g_t = d/dphi sum P(y|x) over the step's forget batch, P = product of row probabilities
        L_SSIUU = lambda sum_j c(A_{t,j} - A_{t-1,j}) over all weights j with A_{t,j} < 0;    0 at the first step
        grad_j  = dL_base/dphi_j + lambda c'(A_{t,j} - A_{t-1,j}) g_{t,j} 1[A_{t,j} < 0]
        square:   c(d) = d^2,  c' = 2 d           absolute: c(d) = |d|,  c' = sign d

    g counts as a constant (first order; no Hessian), and so does A_{t-1}. A is float32, and P that of eval mode. The
    penalty is part of the loss: `fit.clip` bounds the gradient of both together, and a run's losses hold L_SSIUU. Each
    phase of the base has a first step of its own. The record's costs hold |gradient of the penalty| / |gradient of the
    base|, the median over steps, before clipping (in one process at full precision). Weights that the base gives no
    gradient are left alone. Needs the memory of two more copies of the trainable weights (and of a model for
    `reference="initial"`), and one more pass, forward and back, over each forget batch (two for "initial").

    Args:
        base: the method that is held back; gradient difference by default. Its `fit.until` is the paper's early stop.
        norm: "square", or "absolute". The paper contradicts itself: its equation 3 sums norms, which of one number are
            absolute values, and its appendix B and Algorithm 1 square them. The default is what the algorithm runs.
            The square's gradient is next to nothing, and falls with the size of a model, for each d is a small part of
            P; the absolute's does not shrink with d.
        lambda_: the paper: 1e-4 on TOFU, 1e-3 on FaithUn; above 1e-2 it costs use. 0 is the base, bit for bit.
        reference: what A_t is held against: that of the "previous" step, as Algorithm 1 does (and of its batch, so that
            the difference between batches counts too), or that of the "initial" weights on the same batch, as the
            paper's introduction says.
        probability: of an answer: the "product" of its rows' probabilities; their geometric "mean", or the "log" of the
            product, for answers so long that the product, and the penalty with it, vanishes.
        fixed_batch: A over the whole forget set at every step in place of the step's batch.
        only: "all" trainable weights, or "matrices": those of two dimensions or more between the first block and the
            last (attention and feed-forward of a language model).

    Expected to fail: where P is next to 0, for answers are long or already forgotten, the penalty is too, and the base
    goes on alone; where batches differ more than a step changes A, it is noise. On a small Llama that knew its answers
    by heart no form kept negative influence from growing and still forgot (papers.md, by-heart).

    Reference: Yang, Kim, Kwon, Kim, Jung, Cha, "Erase or Hide? Suppressing Spurious Unlearning Neurons", ICLR 2026,
    arXiv 2509.22263, Algorithm 1, from notes; no official code was found. Differs from the paper in nothing known in
    its defaults, but for the base's learning rate, batch size and number of epochs, which it does not give.
    """

    title = "SSIUU"
    advice = "Set fixed_batch=True."

    base: GradientMethod = GradDiff()
    norm: Norm = "square"
    lambda_: NonNegative = 1e-4
    reference: Literal["previous", "initial"] = "previous"
    probability: Probability = "product"
    fixed_batch: bool = False
    only: Literal["all", "matrices"] = "all"

    def touches(self, phase: Phase) -> bool:
        """Says that phases over forget are changed; with `fixed_batch`, all of them are."""
        return self.lambda_ == 0 or self.fixed_batch or "forget" in phase.streams

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Gives each phase a step that adds the penalty."""
        if self.lambda_ == 0:
            return lambda phase: phase
        initial = copy.deepcopy(student) if self.reference == "initial" else None
        names = _matrices(student, job.task) if self.only == "matrices" else {n for n, _ in student.named_parameters()}
        influence_penalty = InfluencePenalty(self, job, student, initial, names)
        return lambda phase: replace(phase, step=partial(influence_penalty.step, inner=phase.step))


class InfluencePenalty(NamedTuple):
    """The penalty on the weights `names` of `student`, held against those of `initial` or of the step before."""

    method: SSIUU
    job: Job
    student: nn.Module
    initial: nn.Module | None
    names: set[str]

    def step(self, current: StepState, inner: Step) -> Tensor:
        """Takes the step `inner`, with the penalty beside the loss."""
        student, state = self.student, current.optimizer.state
        trained = {name: p for name, p in student.named_parameters() if name in self.names and p.requires_grad}
        if self.initial is None:
            before = {name: state[p].pop(ATTRIBUTION) for name, p in trained.items() if ATTRIBUTION in state.get(p, {})}
        else:
            before = influence(self.initial, self.gradients(self.initial, current.batches, trained))
        gradients = self.gradients(student, current.batches, trained)
        now = influence(student, gradients)
        penalties = {
            name: penalty(influences, before.pop(name), gradients.pop(name), self.method.lambda_, self.method.norm)
            for name, influences in now.items()
            if name in before
        }
        del gradients

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            total = current.loss(model, batches)
            for name, pull in penalties.items():
                linear = (trained[name].float() * pull.gradient).sum()
                total = total + pull.value + (linear - linear.detach())
            return total

        def on_gradients() -> None:
            pulls = {trained[name]: pull.gradient for name, pull in penalties.items()}
            current.notes.setdefault(RATIO, []).append(ratio(pulls, student.parameters()))

        value = inner(replace(current, loss=loss, on_gradients=on_gradients if penalties else None))
        if self.initial is None:
            for name, influences in now.items():
                if trained[name].grad is not None:
                    state[trained[name]][ATTRIBUTION] = influences
        return value

    def gradients(self, model: nn.Module, batches: Batches, like: Iterable[str]) -> Weights:
        """Computes g of the weights of `model` named `like`, over the step's forget batch or all of forget."""
        task, weights = self.job.task, dict(model.named_parameters())
        whole = self.method.fixed_batch
        data = in_order(model, task, self.job.request.forget) if whole else [batches["forget"]]
        return weight_gradients(model, task, data, {name: weights[name] for name in like}, self.method.probability)


def influence(model: nn.Module, gradients: Mapping[str, Tensor]) -> Weights:
    """Computes A = phi * g of each weight that has a g, in float32."""
    return {name: p.detach().float() * gradients[name] for name, p in model.named_parameters() if name in gradients}


class Penalty(NamedTuple):
    """L_SSIUU of one tensor of weights, a scalar, and its gradient."""

    value: Tensor
    gradient: Tensor


def penalty(now: Tensor, before: Tensor, gradient: Tensor, lambda_: float, norm: Norm = "square") -> Penalty:
    """Computes lambda sum c(A_t - A_{t-1}) where A_t < 0, and lambda c'(A_t - A_{t-1}) g_t there, 0 elsewhere."""
    difference = (now - before) * (now < 0)
    if norm == "absolute":
        return Penalty(lambda_ * difference.abs().sum(), lambda_ * difference.sign() * gradient)
    return Penalty(lambda_ * difference.square().sum(), 2 * lambda_ * difference * gradient)


def ratio(pulls: Mapping[nn.Parameter, Tensor], weights: Iterable[nn.Parameter]) -> float:
    """Computes |gradient of the penalty| / |gradient of the base|, L2 over all weights, where they hold the sum."""
    base = [p.grad - pulls[p] if p in pulls else p.grad for p in weights if p.grad is not None]
    sizes = (torch.stack([part.float().norm() for part in parts]).norm() for parts in (pulls.values(), base))
    pull_size, base_size = (float(size) for size in sizes)
    return pull_size / max(base_size, TINY)


def _matrices(model: nn.Module, task: Task) -> set[str]:
    """Names the weights with at least two dimensions in all blocks but the first and the last."""
    inner = {id(p) for _, group in task.blocks(model)[1:-1] for module in group for p in module.parameters()}
    names = {name for name, p in model.named_parameters() if p.ndim >= 2 and id(p) in inner}
    if not names:
        raise NotSupported("SSIUU: expected matrices between the first block and the last, got none. Set only='all'.")
    return names
