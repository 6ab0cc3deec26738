"""EC, Erase at the Core: contrastive unlearning at several depths, alone or around another method."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.examples import Batch, Examples, move
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Fit, GradientMethod, Method, Phase, Strength
from unrecall.models.layers import before_head, named, pooled
from unrecall.models.observe import device_of
from unrecall.nn.functional import contrastive_forgetting, nll
from unrecall.nn.hooks import differentiable
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Loss, fit, set_training
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.teacher import frozen_copy

STAGES = 4
"""How many parts of a model are read unless they are named."""

WIDTH = 128
"""How long z is."""

BESIDE = "auxiliary_modules_of_ec"
"""Under which name a layer of the student holds the auxiliary modules, so that the loop trains and keeps them too."""


@dataclass(frozen=True)
class EC(Method):
    """Unlearns contrastively at several depths, in what small modules read there, which are thrown away afterwards.

        z_l = normalised MLP_l(pool(h_l)),    MLP_l: d_l -> d_l -> 128,    h_l what layer l of L gives out
        L   = sum_l w_l [ lambda_ul L_UL(z_l) + lambda_ce CE(H_l(z_l(x_r)), y_r) ] + CE(f(x_r), y_r)
        w_l = l / (1 + ... + L);      around a base, in each of its phases:   L_total = L_base + eta L

    L_UL is Contrastive Unlearning's: forget is pulled to retain of other classes and pushed from retain of its own. H_l
    is linear. `pool` is the mean over places [examples, d, height, width] or positions [examples, positions, d]. The
    auxiliary modules (all MLP_l and H_l) first learn to classify retain, from the model held in eval mode, and are then
    trained with it. BatchNorm is frozen: forget and retain pass one after the other, and what is normalised by
    different batches can't be compared; around a base only the added passes leave it alone. Each step costs a pass over
    a batch of forget and one of retain. For a task whose rows are no classes but whose examples have some, z_l, H_l and
    y_r are those of zero-shot classification, and the last term is the task's own loss.

    Args:
        temperature, lambda_ul, lambda_ce: tau of L_UL, and the weights of both terms.
        eta: weight of L beside a base's loss; 0 is the base, bit for bit.
        layers: dotted names of the modules that are read, in order of depth. Empty: the ends of four equal parts of
            what lies before the head and has an output for each example (all of its blocks where there are fewer).
        warm_up: of the auxiliary modules alone; Adam, lr 1e-3, batch 64, 1 epoch over retain.
        base: the method that is extended; None for EC on its own.
        fit: SGD, lr 1e-3, momentum 0.9, no weight decay, batch 64, 10 epochs over forget, BatchNorm frozen; must be
            left alone where a base is given, whose own counts.

    Expected to fail: without classes, or layers that give each example an output of its own (NotSupported). The modules
    learn too, so that what they unlearn themselves the layers below them needn't; what pooling averages away is not
    unlearned at all.

    Reference: Lee, Kim, Kim, "Erase at the Core: Representation Unlearning for Machine Unlearning", arXiv 2602.05375,
    from notes that name its parts and no form: modules, warm-up, w_l, eta, rates and epochs are our reading. L_UL and
    its defaults are from Lee, Zhang, Yang, Lou, Xiong, "Contrastive Unlearning", IJCAI 2025, arXiv 2401.10458. Differs
    from the paper in nothing else known.
    """

    title: ClassVar[str] = "EC"
    strength: ClassVar[Strength | None] = Strength(("fit.lr",))

    temperature: Positive = 0.7
    lambda_ul: NonNegative = 3.0
    lambda_ce: NonNegative = 1.0
    eta: NonNegative = 1.0
    layers: tuple[str, ...] = ()
    warm_up: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0, batch_size=64)
    base: GradientMethod | None = None
    fit: Fit = Fit(lr=1e-3, weight_decay=0.0, epochs=10, batch_size=64, batchnorm="frozen")

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Warms the auxiliary modules up beside a copy of the model, and trains both together."""
        request, task, generator, session = job.request, job.task, job.generator, job.session
        if self.base is not None and self.fit != EC.fit:
            raise BadInput("EC: expected fit to be left alone where a base is given, got one. Set base.fit.")
        if self.base is not None and self.eta == 0:
            return self.base.unlearn(model, job)
        if not isinstance(task, Classed):
            raise NotSupported(
                f"EC: expected examples with a class each, got {type(task).__name__}'s. "
                "Choose a method that needs no classes, such as GradDiff."
            )
        classed = task.classified()
        student = copy.deepcopy(model).to(session.place())
        trainable = [p.requires_grad for p in student.parameters()]
        phases: Sequence[Phase] = ()
        if self.base is not None:
            phases = self.base.phases(student, frozen_copy(student), job)
        found = stages(student.eval(), classed, [request.forget[0], request.retain[0]], self.layers)
        with own_randomness(draw_seed(generator)):
            auxiliary = Auxiliary(list(found.widths.values()), found.classes).to(session.place())
        layers = {name: student.get_submodule(name) for name in found.widths}

        def look(model: nn.Module, batch: Batch) -> Looked:
            return looked(model, layers, classed, batch)

        def warm(model: nn.Module, batches: Batches) -> Tensor:
            with torch.no_grad():
                retain = look(student, batches["retain"])
            return torch.stack([nll(one.logits, retain.rows.targets).mean() for one in model(retain.pooled)]).sum()

        def erase(model: nn.Module, batches: Batches) -> Tensor:
            retain, forget = look(model, batches["retain"]), look(model, batches["forget"])
            seen = self.summed(
                auxiliary(forget.pooled), forget.rows.targets, auxiliary(retain.pooled), retain.rows.targets
            )
            kept = retain.rows if classed is task else task.rows(model, batches["retain"])
            return seen + kept.losses().mean()

        alone = Phase(warm, {"retain": request.retain}, self.warm_up)
        fit(auxiliary, task, alone, generator, session.named("ec-warm-up"))
        both = {"forget": request.forget, "retain": request.retain}
        if self.base is None:
            phases = [Phase(erase, both, self.fit)]
        else:
            phases = [self._extended(phase, erase, both) for phase in phases]
        home = last_layer(student)
        home.add_module(BESIDE, auxiliary)
        for i, phase in enumerate(phases):
            fit(student, task, phase, generator, session.named(f"ec-{i + 1}"))
        delattr(home, BESIDE)
        for parameter, was in zip(student.parameters(), trainable, strict=True):
            parameter.requires_grad_(was)
        return student.eval()

    def moving(self) -> GradientMethod | None:
        """The base: the auxiliary modules' own passes leave statistics alone."""
        return self.base

    def summed(self, forget: Sequence[Read], own: Tensor, retain: Sequence[Read], other: Tensor) -> Tensor:
        """The sum over layers, from what is read of a batch of forget, of classes `own`, and of retain, of `other`."""
        terms = [
            weight
            * (
                self.lambda_ul * contrastive_forgetting(u.vectors, own, r.vectors, other, self.temperature)
                + self.lambda_ce * nll(r.logits, other).mean()
            )
            for weight, u, r in zip(weights(len(retain)), forget, retain, strict=True)
        ]
        return torch.stack(terms).sum()

    def _extended(self, phase: Phase, erase: Loss, both: Mapping[str, Examples]) -> Phase:
        """A phase of the base with L beside its own loss."""
        still = replace(phase.fit, batchnorm="frozen")
        # A base may have data of its own under these names: then L draws beside it.
        keys = {name: name if phase.streams.get(name, data) is data else f"ec {name}" for name, data in both.items()}

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            own = phase.loss(model, batches)
            set_training(model, still)
            total = own + self.eta * erase(model, {split: batches[key] for split, key in keys.items()})
            set_training(model, phase.fit)
            return total

        return replace(phase, loss=loss, streams={**phase.streams, **{keys[name]: both[name] for name in both}})


class Read(NamedTuple):
    """What the auxiliary modules of one layer make of a batch: z `[n, 128]`, of length 1, and logits `[n, classes]`."""

    vectors: Tensor
    logits: Tensor


class Auxiliary(nn.Module):
    """MLP_l and H_l of each layer, for layers that give out `widths` numbers an example."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, WIDTH)) for d in widths)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, classes) for _ in widths)

    def forward(self, pooled: Sequence[Tensor]) -> list[Read]:
        """From `[n, d_l]` of each layer."""
        vectors = [F.normalize(mlp(h), dim=1) for mlp, h in zip(self.projections, pooled, strict=True)]
        return [Read(z, head(z)) for z, head in zip(vectors, self.heads, strict=True)]


def weights(count: int) -> list[float]:
    """w_l of layers 1 to `count`: in proportion to l, 1 together."""
    return [2 * layer / (count * (count + 1)) for layer in range(1, count + 1)]


class Looked(NamedTuple):
    """Rows of a batch, and what each layer gave out in the same pass, `[n, d_l]` in float32; empty if it had none."""

    rows: Rows
    pooled: list[Tensor]


def looked(model: nn.Module, layers: Mapping[str, nn.Module], task: Task, batch: Batch) -> Looked:
    """One pass; of a layer that is used several times, its first use."""
    with differentiable(layers) as seen:
        rows = task.rows(model, batch)
    return Looked(
        rows, [pooled(uses[0], task.positions(batch)) if uses else torch.empty(0, 0) for uses in seen.values()]
    )


class Stages(NamedTuple):
    """The layers that are read, by dotted name, with d_l of each; and how many classes the model tells apart."""

    widths: dict[str, int]
    classes: int


def stages(model: nn.Module, task: Task, items: Sequence[Any], layers: Sequence[str] = ()) -> Stages:
    """Those named, or the ends of four equal parts of what lies before the head and has an output for each example.

    `model` is in eval mode; `items` are two examples. A layer that has outputs for something else, as a tower that
    reads the classes' names, gives itself away: its outputs are not one for one example and two for two.
    """
    batches = [move(task.collate(items[:n]), device_of(model)) for n in (1, 2)]
    known = named(model, layers) or before_head(model, task, batches[0])
    widths = dict.fromkeys(known, 0)
    for n, batch in enumerate(batches, 1):
        with torch.no_grad():
            rows, pooled = looked(model, {name: known[name] for name in widths}, task, batch)
        given = zip(widths, pooled, strict=True)
        widths = {name: h.shape[1] for name, h in given if h.ndim == 2 and len(h) == n}
    useless = [name for name in layers if name not in widths]
    if useless or not widths:
        raise NotSupported(
            "EC: expected layers before the head that give each example an output of its own, "
            f"got {', '.join(useless) or 'none'}. Set layers to others."
        )
    if not layers:
        count, names = min(STAGES, len(widths)), list(widths)
        ends = [names[-(-len(names) * part // count) - 1] for part in range(1, count + 1)]
        widths = {name: widths[name] for name in ends}
    return Stages(widths, rows.logits.shape[1])


def last_layer(model: nn.Module) -> nn.Module:
    """The last module that holds weights itself and no module: its pass is its own, whatever is put below it."""
    layers = [m for m in model.modules() if not any(True for _ in m.children()) and any(True for _ in m.parameters())]
    return layers[-1]
