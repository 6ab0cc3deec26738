"""MUDMAN: forgets what an adversary that relearns would need, in the weights in which retain agrees."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, loss_on, train_only
from unrecall.models.chosen_layers import Wanted, chosen
from unrecall.models.importance import Weights
from unrecall.nn.hooks import batchnorms, put_back
from unrecall.spec.parameters import Count, NonNegative, Share
from unrecall.training.loop import Loss, StepState
from unrecall.training.terms import Slope, Terms, check_own_loss, move_along, product, slope

MEMORY = "MUDMAN: adversary and retain's gradient"
"""Under which name the optimiser's state holds both, so that an interrupted run goes on the same."""


@dataclass(frozen=True)
class MUDMAN(GradientMethod):
    """Steps along forget's gradient at a relearning adversary's weights, where retain's own has the same sign.

        every `fork` steps:  phi <- theta
        a <- momentum a + (1 - momentum) grad CE(retain) at theta,     u = grad L_f(forget) at phi
        theta <- theta - lr (1[sign u = sign a] u / |u| + retain_weight a)
        phi <- phi - adversary_lr grad CE(forget) at phi

        entropy:  L_f = -H(p(.|x)), a mean over an example's rows and then over examples       ce:  L_f = -CE

    |u| is taken over all weights that are trained, before the mask. Passes at phi leave BatchNorm's statistics alone.
    Costs three passes a step, forward and back ("entropy"), or two, and two more copies of the trained weights.

    Args:
        form: "entropy" towards answers that are all alike likely, "ce" away from the true one.
        target: names of layers, or how they end. Empty: gate_proj where a model has it, and otherwise every linear
            layer and 2-D convolution but the head. Never one that shares its weights.
        momentum: of retain's gradient, in [0, 1].
        retain_weight: of a beside a step of length 1; 0.01 is a rate of 1e-3 beside one of 0.1. At 0 retain masks
            alone.
        adversary_lr: the rate at which the adversary relearns, by plain SGD; at 0 there is none.
        fork: after how many steps the adversary starts from the model again.
        fit: plain SGD, lr 0.1 (the length of a step without mask), batch 16, 100 steps.

    Expected to fail: relearning for longer, at other rates or in other weights than the adversary's. Half of all signs
    agree by chance, so that a mask alone holds little of retain where both gradients are noise.

    Reference: Sondej, Yang, Kniejski, Windys, "Robust LLM Unlearning with MUDMAN: Meta-Unlearning with Disruption
    Masking And Normalization", arXiv 2506.12484, from the authors' code (src/MUDMAN.py at 36241eb; its tables' code has
    form="ce", rates that are searched, and a decay of the adversary towards the model, which is left out). Differs from
    the code in L_f and CE, which are of the answers (there of all places of a text), and in |u|, whose gradients have
    the precision of the weights. Layers without that name are ours.
    """

    title = "MUDMAN"
    strength = Strength(("fit.lr",), high=2**10)

    form: Literal["entropy", "ce"] = "entropy"
    target: tuple[str, ...] = ()
    momentum: Share = 0.9
    retain_weight: NonNegative = 0.01
    adversary_lr: NonNegative = 1e-3
    fork: Count = 32
    fit: Fit = Fit(lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=16, epochs=100, steps=100)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it; all but the chosen weights are frozen."""
        request, task = job.request, job.task
        names = chosen(student, task, request.forget, Wanted(self.target, ["gate_proj"], "MUDMAN"))
        train_only(student, (student.get_parameter(name) for name in names))
        learned, retain = loss_on("forget", task), loss_on("retain", task)
        forget = loss_on("forget", task, sureness if self.form == "entropy" else surprise)

        def step(current: StepState) -> Tensor:
            check_own_loss("MUDMAN", current, phase)
            weights = {name: student.get_parameter(name) for name in names}
            memory = remembered(current, weights)
            if current.number % self.fork == 0:
                memory["adversary"] = {name: p.detach().clone() for name, p in weights.items()}
            pull = slope_in(weights, current, retain, "retain").gradients
            for name, p in weights.items():
                memory["retain"][name].mul_(self.momentum).add_(pull[p], alpha=1 - self.momentum)
            with at(student, memory["adversary"]):
                value, away = slope_in(weights, current, forget, "forget")
                entropy = self.form == "entropy"
                relearning = (
                    slope_in(weights, current, learned, "forget").gradients if entropy else {p: -away[p] for p in away}
                )
            size = product(away, away).sqrt()
            along = {}
            for name, p in weights.items():
                memory["adversary"][name].sub_(relearning[p], alpha=self.adversary_lr)
                steady = memory["retain"][name]
                along[p] = agreed(away[p], steady) / size.where(size > 0, 1) + self.retain_weight * steady
            move_along(current, along)
            return value

        loss = Terms({"forget": forget, "retain": retain})
        phase = Phase(loss, {"forget": request.forget, "retain": request.retain}, self.fit)
        return [replace(phase, step=step)]


def remembered(current: StepState, weights: Mapping[str, nn.Parameter]) -> dict[str, Weights]:
    """Gives the adversary's weights and retain's gradient as the steps before left them, where the weights are."""
    state: dict[Any, Any] = current.optimizer.state
    parts = state.setdefault(MEMORY, {}) or {"retain": {name: torch.zeros_like(p) for name, p in weights.items()}}
    state[MEMORY] = {part: {name: t.to(weights[name].device) for name, t in own.items()} for part, own in parts.items()}
    memory: dict[str, Weights] = state[MEMORY]
    return memory


def slope_in(weights: Mapping[str, nn.Parameter], current: StepState, loss: Loss, stream: str) -> Slope:
    """Differentiates a loss in each of the weights; the gradient is 0 in one that no pass goes through."""
    value, gradients = slope(current, loss, stream)
    return Slope(value, {p: gradients.get(p, torch.zeros_like(p)) for p in weights.values()})


@contextmanager
def at(model: nn.Module, values: Weights) -> Iterator[None]:
    """Gives some weights of a model other values, and puts them and BatchNorm's statistics back exactly."""
    weights = [(model.get_parameter(name), value) for name, value in values.items()]
    statistics = [buffer for norm in batchnorms(model) for buffer in norm.buffers()]
    with put_back((*(weight for weight, _ in weights), *statistics)):
        with torch.no_grad():
            for weight, value in weights:
                weight.copy_(value)
        yield


def agreed(away: Tensor, steady: Tensor) -> Tensor:
    """Gives forget's gradient where retain's has the same sign, and 0 elsewhere."""
    return away * (away.sign() == steady.sign())


def sureness(rows: Rows, _: Batch) -> Tensor:
    """Computes -H(p), in nats: the mean over an example's rows, then over examples."""
    log_p = rows.logits.log_softmax(1)
    return rows.mean((log_p.exp() * log_p).sum(1))


def surprise(rows: Rows, _: Batch) -> Tensor:
    """Computes -CE."""
    return -rows.losses().mean()
