"""RepSelect: one step up the loss of forget, along what its gradient has apart from its main directions."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unrecall.errors import BadInput
from unrecall.methods.base import Fit, Job, Method, Strength, copy_of, phase_over, train_helper, train_only
from unrecall.models.chosen_layers import FEED_FORWARD, Wanted, chosen
from unrecall.models.importance import Weights, mean_gradient
from unrecall.spec.parameters import Count, Positive
from unrecall.training.disruption import SAMPLE, disruption
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.session import Effort

EXACT = 1024
"""The smaller side of the largest matrix whose singular vectors are computed exactly; above, by random projection."""
DOUBLINGS, HALVINGS = 40, 10
"""How often a distance is doubled or halved in search of the budget, and how often what is left is halved then."""


@dataclass(frozen=True)
class RepSelect(Method):
    """Climbs the loss of forget in directions that little else uses, as far as a budget on retain allows.

        G = grad of CE(forget) in each matrix, taken beside a low-rank change that was trained on forget first
        U, S, V = the first q singular vectors and values of G;   s_j = S_j / S_q
        G <- G - (G V - G V / s) V^T,    then  G <- G - U (U^T G - (U^T G) / s)
        W <- W + t G,   t the largest with KL(p_0 || p) <= kl on retain

    Of the directions that G has most of, which other knowledge and an attacker's fine-tuning share, it keeps as little
    as of the q-th, or less. The low-rank change (rank 8, as PEFT starts it) shows the gradient what relearning would
    use, and is dropped after. The weights of a convolution are a matrix `[out, channels height width]`.

    Args:
        kl: the budget: the largest KL on retain, in nats, in the mean over a sample of 512 examples.
        components: q, at most a quarter of a matrix's smaller side (as 512 is of a width of 2,048), and its rank.
        basis: whose gradient U, S, V are of: of forget's, or of "retain"'s.
        target: names of layers, or how they end. Empty: gate_proj, up_proj and down_proj where a model has them, and
            otherwise every linear layer and 2-D convolution but the head. Never one that shares its weights.
        elicit: of the low-rank change: SGD, lr 0.01, batch 32, one epoch over forget. At lr 0 there is none.

    Expected to fail: where forget fills few directions (few examples, few classes) and all of them are shared; where a
    small budget is spent before forget is gone. One straight step may end where no further one would lead.

    Reference: Sondej, Yang, Mahdi, "RepSelect: Robust LLM Unlearning via Representation Selectivity", arXiv 2606.17168,
    from the authors' one-pass code (RepSelectSimple). Differs from the code in the budget's data, Wikitext there; in
    finding t by doubling and halving in place of steps of 0.05 G; in a mean over examples and not tokens; and in q on
    small matrices. Convolutions, and models without feed-forward parts, are ours.
    """

    title = "RepSelect"
    strength = Strength(("kl",), high=2**10)

    kl: Positive = 0.01
    components: Count = 512
    basis: Literal["forget", "retain"] = "forget"
    target: tuple[str, ...] = ()
    elicit: Fit = Fit(lr=0.01, momentum=0.0, weight_decay=0.0, batch_size=32, batchnorm="frozen")

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Finds the direction, and moves a copy along it."""
        start, job = time.perf_counter(), job.settled(model)
        student = copy_of(model, job).eval()
        wanted = Wanted(self.target, FEED_FORWARD, "RepSelect")
        names = chosen(student, job.task, job.request.forget, wanted)
        gradients = mean_gradient(self._elicited(student, names, job), job.task, job.request.forget)
        bases = mean_gradient(student, job.task, job.request.retain) if self.basis == "retain" else gradients
        with own_randomness(draw_seed(job.generator)):
            direction = {name: collapsed(gradients[name], bases[name], self.components) for name in names}
        distance_of = disruption(copy.deepcopy(student), job)
        looks: list[float] = []

        def spent(distance: float) -> float:
            move(student, before, direction, distance)
            looks.append(distance_of(student))
            return looks[-1]

        before = {name: student.get_parameter(name).detach().clone() for name in names}
        move(student, before, direction, farthest(spent, self.kl, _first(before, direction)))
        passes = 2 * len(job.request.forget) + len(looks) * min(SAMPLE, len(job.request.retain))
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - start))
        return student

    def _elicited(self, model: nn.Module, names: list[str], job: Job) -> nn.Module:
        """A copy with a low-rank change of these weights that was trained on forget, and is part of them now."""
        if self.elicit.lr == 0:
            return model
        adapted = copy.deepcopy(model)
        flags = {name: p.requires_grad for name, p in adapted.named_parameters()}
        layers = [adapted.get_submodule(name.rpartition(".")[0]) for name in names]
        with own_randomness(draw_seed(job.generator)):
            changes = [LowRankChange(layer.weight) for layer in layers]  # type: ignore[arg-type]
        train_only(adapted, ())
        for layer, change in zip(layers, changes, strict=True):
            parametrize.register_parametrization(layer, "weight", change)
        train_helper(adapted, phase_over("forget", job, self.elicit), job, "repselect, elicitation")
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        for name, flag in flags.items():
            adapted.get_parameter(name).requires_grad_(flag)
        return adapted


class LowRankChange(nn.Module):
    """Adds B A of rank 8 to a weight, seen as a matrix `[out, d]`: A random, B zero at first."""

    def __init__(self, weight: Tensor, r: int = 8) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.a, self.b = (nn.Parameter(weight.new_zeros(shape)) for shape in ((r, columns), (rows, r)))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Computes the changed weight."""
        return weight + (self.b @ self.a).view_as(weight)


def collapsed(gradient: Tensor, basis: Tensor, components: int) -> Tensor:
    """Takes the main directions of `basis` out of a gradient, on both sides, down to what is left of the last of them.

    As matrices `[out, d]`: of the first q singular values of the basis each is divided by its ratio to the q-th.
    """
    matrix, of = gradient.flatten(1), basis.flatten(1)
    side = min(of.shape)
    q = min(max(2, side // 4), components, side)
    if side <= EXACT:
        u, s, vh = torch.linalg.svd(of, full_matrices=False)
        u, s, v = u[:, :q], s[:q], vh[:q].T
    else:
        u, s, v = torch.svd_lowrank(of, q)
    rank = int((s > s[0] * max(of.shape) * torch.finfo(s.dtype).eps).sum())
    if rank == 0:
        return gradient
    u, share, v = u[:, :rank], 1 - s[rank - 1] / s[:rank], v[:, :rank]
    matrix = matrix - (matrix @ v * share) @ v.T
    result: Tensor = matrix - u @ (share[:, None] * (u.T @ matrix))
    return result.view_as(gradient)


@torch.no_grad()
def move(model: nn.Module, before: Weights, direction: Weights, distance: float) -> None:
    """Puts the weights where they were before, and so far along the direction from there."""
    for name, start in before.items():
        model.get_parameter(name).copy_(start + distance * direction[name])


def _first(before: Weights, direction: Weights) -> float:
    """The distance at which weights have moved by a hundredth of their length; BadInput where there is no direction."""
    lengths = [float(torch.stack([t.norm() for t in tensors.values()]).norm()) for tensors in (before, direction)]
    if lengths[1] == 0:
        raise BadInput("RepSelect: expected a gradient of forget, got none. Set basis, components or target to others.")
    return 0.01 * (lengths[0] or 1.0) / lengths[1]


def farthest(spent: Callable[[float], float], budget: float, first: float) -> float:
    """Finds the largest distance that spends no more than the budget, to within a thousandth, from a `first` guess.

    `spent` should grow with the distance; where it isn't finite it is too much. BadInput where nothing is too much.
    """
    within = spent(first) <= budget
    low = high = first
    for _ in range(DOUBLINGS):
        low, high = (high, 2 * high) if within else (low / 2, low)
        if (spent(high if within else low) <= budget) != within:
            break
    else:
        if within:
            raise BadInput(f"RepSelect: expected a budget that can be spent, got {budget:g}. Lower it.")
        return 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) <= budget else (low, middle)
    return low
