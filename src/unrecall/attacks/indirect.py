"""The indirect unlearning attack: an adversary has examples of its own deleted, and another class pays for it."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import jvp

from unrecall.attacks.deletion import Candidates, DeletionAttack
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples, Selection
from unrecall.errors import BadInput, Diverged
from unrecall.models.contribution import contributions
from unrecall.models.importance import Losses, Weights, trainable
from unrecall.models.observe import batches, device_of, observe
from unrecall.nn.functional import nll
from unrecall.nn.hooks import mode
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Index
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import classed
from unrecall.training.copies import own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import draw_seed

Class = Annotated[int, Field(ge=-1)]


@dataclass(frozen=True)
class Indirect(DeletionAttack):
    """Asks for the deletion of examples of other classes, so that the victim's class is answered wrongly afterwards.

    A request R is a legitimate one: training examples, none of them the victim's, nothing altered or added. Each
    example x is ranked, and R holds the highest; with v the victim's known examples and w the wished-for class

        gradient:      -<grad CE(v, w), grad CE(x)>;  with none wished for:  <grad CE(v), grad CE(x)>
        surrogate:     harm to v after the surrogate forgot as many examples of x's class as the largest request holds,
                       then by how much the accuracy on v fell
        contribution:  cos(C(x), mean of C(v)),  C the Input x Gradient of what enters the head
        random:        a random number

    Gradient ascent on x moves the weights by + grad CE(x), which to first order changes CE(v, w) by the inner product.
    All inner products with the one vector come from forward-mode differentiation, a pass over the pool in eval mode.

    Args:
        victim: the class to be harmed, by its number.
        answered_as: the class that its examples should be answered with; -1: any wrong one.
        asks_for: the only class whose examples the adversary may ask for; -1: any but the victim's. A request for all
            training examples of a class is a class request.
        sizes: how many examples are asked for, one point of the curve each. The figures are those of the size that the
            adversary picks: what harms the examples that it knows most by its surrogate, the smallest of equals.
        controls: random requests of the same sizes from the same examples, beside which the attack means something. One
            more asks for other examples with like losses, for the examples chosen by gradient are hard ones.
        retrain: models trained without the picked request, where the scenario can train them.
        pool: examples to choose from, at most; a random part of forget and retain.
        victims: examples of the victim's class, out of retain, that the adversary looks at, at most.
        by: how the examples are chosen.
        fit: the surrogate, gradient ascent on R: SGD, lr 1e-2, momentum 0.9, clip 1, 10 steps of 128 examples.

    Expected to fail: where the defender's method repairs the retained classes as it forgets, or hardly forgets at all
    (how much of R it still answers right stands beside). Damage that random requests do as well is not this attack's.
    Contribution knows no wish: it asks for whatever leans on the victim's units, the wished-for class first of all.

    Reference: Shin, Tapia, Diaz, Jeon, Ferreira, Daneshyari, "ROKA", 2026, arXiv 2603.00436, which names the attack and
    not how requests are chosen: all four rankings are ours, so is every setting. Differs from the paper in measuring on
    unseen examples, against random requests, and in asking for single examples too.
    """

    title: ClassVar[str] = "Indirect unlearning attack"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="asks for deletions, which are honoured; chooses with the model before unlearning at hand",
        data="own training examples, none of the victim's class; knows some of the victim's training examples",
        budget="the number of examples that it asks for",
    )
    named_by: ClassVar[tuple[str, ...]] = ("victim", "answered_as")

    victim: Index = 0
    answered_as: Class = -1
    asks_for: Class = -1
    sizes: tuple[Count, ...] = (10, 30, 100)
    controls: Count = 3
    retrain: Index = 0
    pool: Count = 5000
    victims: Count = 200
    by: Literal["gradient", "surrogate", "contribution", "random"] = "gradient"
    fit: Fit = Fit(lr=1e-2, weight_decay=0.0, clip=1.0, epochs=10, steps=10, batchnorm="frozen")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("answered_as", "asks_for"):
            if getattr(self, name) == self.victim:
                raise BadInput(
                    f"Indirect: expected {name} to be another class than victim, got {self.victim} for both."
                )
        if not self.sizes:
            raise BadInput("Indirect: expected at least one size, got none. Name how many examples to ask for.")

    def rank(self, model: nn.Module, candidates: Candidates, job: Job) -> np.ndarray:
        """The harm that `by` foresees: an inner product of gradients, a cosine, a surrogate's harm, or chance."""
        task = classed(self, job.task).classified()
        if self.by == "gradient":
            towards = self.answered_as if self.answered_as >= 0 else None
            products = alignments(model, task, candidates.examples, slope(model, task, candidates.victims, towards))
            return products if towards is None else -products
        if self.by == "contribution":
            centre = contributed(model, task, candidates.victims).mean(0)
            vectors = contributed(model, task, candidates.examples)
            return F.cosine_similarity(vectors, centre[None], dim=1).cpu().numpy()
        if self.by == "surrogate":
            return self._harm_by_class(model, candidates, task, job)
        return torch.rand(len(candidates.examples), generator=job.generator).numpy()

    def rehearse(self, model: nn.Module, examples: Examples, job: Job) -> nn.Module:
        """A copy of the model after gradient ascent on the examples, by `fit`."""
        copied, task = own_copy(model), job.task
        loss = loss_on("forget", task, lambda rows, _: -rows.losses().mean())
        phase = Phase(loss, {"forget": examples}, self.fit)
        fit(copied, task, phase, job.generator, job.session.quiet().named("surrogate"))
        return copied.eval()

    def _harm_by_class(self, model: nn.Module, candidates: Candidates, task: Task, job: Job) -> np.ndarray:
        """What forgetting examples of its class does to the victim, for each candidate `[n]`.

        Every class's surrogate draws the same batches. `task`: one row an example, its target the class.
        """
        before = observe(model, task, candidates.victims).prediction
        scores, seed = np.zeros(len(candidates.classes)), draw_seed(job.generator)
        for c in np.unique(candidates.classes):
            members = np.flatnonzero(candidates.classes == c)
            examples = Selection(candidates.examples, members[: max(self.sizes)].tolist())
            try:
                surrogate = self.rehearse(model, examples, job.seeded(seed))
            except Diverged:
                continue
            after = observe(surrogate, task, candidates.victims).prediction
            fell = np.mean(before == self.victim) - np.mean(after == self.victim)
            scores[members] = self.harmed(before, after).mean() + fell / (2 * len(before) + 1)
        return scores


def slope(model: nn.Module, task: Task, examples: Examples, towards: int | None = None) -> Weights:
    """The gradient of the mean loss towards a class, or each example's own, by weight; the model in eval mode."""
    weights = dict(model.named_parameters())
    names = list(trainable(model))
    total = {name: torch.zeros_like(weights[name]) for name in names}
    with mode(model, training=False), torch.enable_grad():
        for batch in batches(examples, task, device=device_of(model)):
            rows = task.rows(model, batch)
            targets = rows.targets if towards is None else torch.full_like(rows.targets, towards)
            loss = nll(rows.logits, targets).sum() / len(examples)
            gradients = torch.autograd.grad(loss, [weights[name] for name in names], allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                total[name] += 0 if gradient is None else gradient
    return total


def alignments(model: nn.Module, task: Task, examples: Examples, direction: Weights) -> np.ndarray:
    """<grad L(x), direction> of each example's own loss `[n]`, the model in eval mode.

    One forward pass with tangents gives them all. Attention is computed in its plain form, because the fused kernels
    carry no tangents; where another layer carries none, each example takes a backward pass of its own.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    losses, weights = Losses(model, task), trainable(model)
    tangents = {name: direction[name] for name in weights}
    products = []
    with mode(model, training=False), sdpa_kernel(SDPBackend.MATH):
        for batch in batches(examples, task, device=device_of(model)):
            try:
                products.append(jvp(partial(losses.under, batch=batch), (weights,), (tangents,))[1].detach())
            except RuntimeError:
                products.append(_one_by_one(model, task, batch, direction))
    return torch.cat(products).double().cpu().numpy()


def _one_by_one(model: nn.Module, task: Task, batch: Batch, direction: Weights) -> Tensor:
    """<grad L(x), direction> of each example of a batch, by one backward pass an example."""
    weights = dict(model.named_parameters())
    moved, products = [weights[name] for name in direction], []
    with torch.enable_grad():
        for loss in task.losses(model, batch):  # no list of gradients: each is as large as the model
            gradients = torch.autograd.grad(loss, moved, retain_graph=True, allow_unused=True)
            pairs = zip(gradients, direction.values(), strict=True)
            products.append(torch.stack([(g * part).sum() for g, part in pairs if g is not None]).sum())
    return torch.stack(products)


def contributed(model: nn.Module, task: Task, examples: Examples) -> Tensor:
    """Input x Gradient of what enters the head, `[n, units]`, each towards the example's own class."""
    data = batches(examples, task, device=device_of(model))
    return torch.cat([contributions(model, task, batch).vectors for batch in data])
