"""Certified removal: Newton steps that take examples out of a convex head, and the budget that they spend."""

import math
import time
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.errors import NotSupported
from unrecall.methods.base import Job, Method, Task, copy_of
from unrecall.models.observe import in_order
from unrecall.nn.hooks import mode
from unrecall.nn.logistic import OneVsRest, removed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.protocols import classed
from unrecall.training.session import Effort

BOUND, SPENT = "bound on the gradient that is left", "share of the budget that is spent"
"""The names under which a removal notes what its certificate rests on."""


@dataclass(frozen=True)
class CertifiedRemoval(Method):
    """Fits the head anew to all training data, one logistic regression a class, and takes forget out by Newton steps.

        L(W) = sum_i sum_k log(1 + exp(-y_ik x_i w_k)) + n penalty / 2 |W|^2 + <b, W>,    b ~ N(0, sigma^2 I)
        w_k <- w_k + H_k^-1 d/dw_k (L's part of the examples that go),    H_k: Hessian over those that stay

    x is what enters the head, divided by the largest norm in retain, and a 1 for the bias; y is 1 for an example's own
    class, -1 for the others. Each step leaves a gradient of at most 1/4 |step| |X step| |X|_2 a class. While these,
    added up over steps, stay below sigma epsilon / sqrt(2 ln(1.5 / delta)), the head is certified: nobody can tell it
    from one that was fitted to retain alone, beyond (epsilon, delta) as differential privacy counts. Beyond, the budget
    is spent, which is an error. What was spent is among the run's notes.

    Args:
        penalty: lambda, the weight of the L2 term an example; larger spends less and fits worse. 0.1 keeps a thousand
            examples within the budget; the paper has 2e-4 (SVHN) and 1e-3 (MNIST) on 60,000 and more.
        sigma: standard deviation of b; larger certifies more and fits worse. At 0 there is no noise and no budget:
            the certificate is void, and the steps are no more than Newton's.
        epsilon: how much the head may give away.
        delta: how often it may give away more.
        at_once: examples that a step takes out; more are quicker, and their bound grows with the square.

    Expected to fail: the certificate is of the head. The layers below it were trained on forget and stay as they are,
    so that a network as a whole is certified only where nothing below the head was trained. The head is another one
    than the model's own: its logits are those of regressions, not of a softmax. With a thousand examples, the penalty
    and the noise that a certificate takes cost much accuracy, above all in a class of which many examples go.

    Reference: Guo, Goldstein, Hannun, van der Maaten, "Certified Data Removal from Machine Learning Models", ICML 2020,
    arXiv 1911.03030. Differs from the paper in dividing all x by one number, where it normalises each, in the bias, and
    in the penalty. The budget starts anew with each call, for each call fits the head anew.
    """

    title = "Certified removal"

    penalty: Annotated[float, Field(ge=1e-9, le=1e9)] = 0.1
    sigma: Annotated[float, Field(ge=0, le=1e9)] = 10.0
    epsilon: Positive = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    at_once: Count = 1

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Reads the features once, fits, removes, and puts the head into a copy."""
        start = time.perf_counter()
        task = classed(self, job.settled(model).task, "Choose another method, such as SSD.").classified()
        student = copy_of(model, job).eval()
        parts = [_entering(student, task, examples) for examples in (job.request.forget, job.request.retain)]
        head = parts[0].head
        scale = float(parts[1].features.norm(dim=1).max().clamp_min(1e-30))
        columns = torch.cat([part.features for part in parts]) / scale
        if head.bias is not None:
            columns = torch.cat([columns, torch.ones_like(columns[:, :1])], 1)
        shape, device = (columns.shape[1], head.out_features), job.generator.device
        noise = self.sigma * torch.randn(shape, generator=job.generator, device=device, dtype=torch.float64)
        labels = torch.cat([part.labels for part in parts])
        whole = OneVsRest.of(columns, labels, self.penalty, noise.to(columns.device))
        weight, ledger = self._remove(whole, len(job.request.forget))
        with torch.no_grad():
            head.weight.copy_(weight[: head.in_features].T / scale)
            if head.bias is not None:
                head.bias.copy_(weight[-1])
        job.session.say(_certificate(self, student, head, ledger))
        passes = len(job.request.forget) + len(job.request.retain)
        effort = Effort(passes=passes, seconds=time.perf_counter() - start, notes=ledger.notes())
        job.session.efforts.append(effort)
        return student

    def _remove(self, whole: OneVsRest, count: int) -> "tuple[Tensor, Ledger]":
        """Fits all, and takes the first `count` examples out, in order."""
        weight, ledger = whole.optimum(), Ledger(self.allowed)
        ledger.spend((whole.gradient(weight) + whole.noise).norm(dim=0))
        for first in range(0, count, self.at_once):
            last = min(first + self.at_once, count)
            weight, bound = removed(weight, whole.part(first, last), whole.part(last, len(whole.features)))
            ledger.spend(bound)
            if self.sigma > 0 and ledger.spent > ledger.allowed:
                raise _spent(self, ledger, f"{last} of {count} examples")
        return weight, ledger

    @property
    def allowed(self) -> float:
        """The largest gradient that the noise hides."""
        return self.sigma * self.epsilon / math.sqrt(2 * math.log(1.5 / self.delta))


@dataclass
class Ledger:
    """How large a gradient may be left for the certificate to hold, and what has been spent, a class `[k]`."""

    allowed: float
    classes: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def spend(self, bound: Tensor) -> None:
        """Adds what one step leaves at most."""
        self.classes = self.classes.to(bound) + bound

    @property
    def spent(self) -> float:
        """What the gradient of the whole head is at most."""
        return float(self.classes.norm())

    def notes(self) -> dict[str, list[float]]:
        """The same for the record."""
        share = {SPENT: [self.spent / self.allowed]} if self.allowed else {}
        return {BOUND: [self.spent], **share}


def _spent(method: CertifiedRemoval, ledger: Ledger, removals: str) -> NotSupported:
    """What to say where removals leave more than the noise hides."""
    hint = ", or set at_once=1" if method.at_once > 1 else ""
    return NotSupported(
        f"CertifiedRemoval: expected removals within a budget of {ledger.allowed:.3g} (sigma {method.sigma:g}, epsilon "
        f"{method.epsilon:g}, delta {method.delta:g}), got {ledger.spent:.3g} after {removals}: the budget is spent. "
        f"Retrain (--method retrain), or raise penalty, sigma, epsilon or delta{hint}."
    )


def _certificate(method: CertifiedRemoval, model: nn.Module, head: nn.Linear, ledger: Ledger) -> str:
    """What the certificate says, for people."""
    if method.sigma == 0:
        return "certified removal: no noise was drawn (sigma 0), so that nothing is certified"
    below = any(p is not head.weight and p is not head.bias for p in model.parameters())
    return (
        f"certified removal: {ledger.spent / ledger.allowed:.0%} of the budget is spent; certified is the head, "
        f"epsilon {method.epsilon:g}, delta {method.delta:g}"
        f"{'; the layers below it, which were trained on forget, are not' if below else ''}"
    )


class Entering(NamedTuple):
    """The head, what enters it `[n, d]` in float64, and labels `[n]`."""

    head: nn.Linear
    features: Tensor
    labels: Tensor


@torch.no_grad()
def _entering(model: nn.Module, task: Task, examples: Examples) -> Entering:
    """Reads what enters the head; NotSupported where the logits are not just its outputs, or it may not change."""
    head: nn.Linear | None = None
    features, labels = [], []
    with mode(model, training=False):
        for batch in in_order(model, task, examples):
            head = head or task.head(model, batch)
            rows, entered = task.view(model, batch)
            if entered.shape[1] != head.in_features or not _same(head(entered), rows.logits):
                raise NotSupported(
                    "CertifiedRemoval: expected logits that a linear layer gives out, got ones that change behind it. "
                    "Choose another method, such as SSD."
                )
            features.append(entered.double())
            labels.append(rows.targets)
    assert head is not None
    if not head.weight.requires_grad:
        raise NotSupported("CertifiedRemoval: expected a head that may change, got a frozen one. Unfreeze it.")
    return Entering(head, torch.cat(features), torch.cat(labels))


def _same(first: Tensor, second: Tensor) -> bool:
    scale = float(second.abs().max().clamp_min(1e-30))
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=1e-3 * scale)
