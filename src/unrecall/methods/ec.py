"""EC, Erase at the Core: contrastive unlearning at several depths, alone or around another method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import move
from unrecall.data.examples import Examples
from unrecall.errors import NotSupported
from unrecall.methods.base import (
    Batch,
    Batches,
    Fit,
    GradientMethod,
    Job,
    Method,
    Phase,
    Rows,
    Strength,
    Task,
    Wrapper,
    classified,
    copy_of,
    restore_flags,
    train,
    with_loss,
)
from unrecall.models.layers import before_head, layer_outputs, named, pooled
from unrecall.models.observe import device_of
from unrecall.nn.functional import contrastive_forgetting, nll
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.training.loop import fit
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.teacher import frozen_copy

STAGES = 4
"""How many parts of a model are read unless they are named."""

WIDTH = 128
"""How long z is."""

BESIDE = "auxiliary_modules_of_ec"
"""Under which name a layer of the student holds the auxiliary modules."""


@dataclass(frozen=True)
class EC(Method):
    """Unlearns contrastively at several depths, in what small modules read there, which are thrown away afterwards.

        z_l = normalised MLP_l(pool(h_l)),    MLP_l: d_l -> d_l -> 128,    h_l what layer l of L gives out
        L   = sum_l w_l [ lambda_ul L_UL(z_l) + lambda_ce CE(H_l(z_l(x_r)), y_r) ] + CE(f(x_r), y_r)
        w_l = l / (1 + ... + L)

    L_UL is Contrastive Unlearning's: forget is pulled to retain of other classes and pushed from retain of its own. H_l
    is linear. `pool` is the mean over places [examples, d, height, width] or positions [examples, positions, d]. The
    auxiliary modules (all MLP_l and H_l) first learn to classify retain, from the model held in eval mode, and are then
    trained with it. BatchNorm is frozen: forget and retain pass one after the other, and what is normalised by
    different batches can't be compared. Each step costs a pass over a batch of forget and one of retain. For a task
    whose rows are no classes but whose examples have some, z_l, H_l and y_r are those of zero-shot classification, and
    the last term is the task's own loss. Around a base, as in ec(scrub), it is `ECAround`.

    Args:
        temperature, lambda_ul, lambda_ce: tau of L_UL, and the weights of both terms.
        layers: dotted names of the modules that are read, in order of depth. Empty: the ends of four equal parts of
            what lies before the head and has an output for each example (all of its blocks where there are fewer).
        warm_up: of the auxiliary modules alone; Adam, lr 1e-3, batch 64, 1 epoch over retain.
        fit: SGD, lr 1e-3, momentum 0.9, no weight decay, batch 64, 10 epochs over forget, BatchNorm frozen.

    Expected to fail: without classes, or layers that give each example an output of its own (NotSupported). The modules
    learn too, so that what they unlearn themselves the layers below them needn't; what pooling averages away is not
    unlearned at all.

    Reference: Lee, Kim, Kim, "Erase at the Core: Representation Unlearning for Machine Unlearning", arXiv 2602.05375,
    from notes that name its parts and no form: modules, warm-up, w_l, rates and epochs are our reading, and so is the
    weight beside a base. L_UL and its defaults are from Lee, Zhang, Yang, Lou, Xiong, "Contrastive Unlearning", IJCAI
    2025, arXiv 2401.10458. Differs from the paper in nothing else known.
    """

    title = "EC"
    strength = Strength(("fit.lr",))

    temperature: Positive = 0.7
    lambda_ul: NonNegative = 3.0
    lambda_ce: NonNegative = 1.0
    layers: tuple[str, ...] = ()
    warm_up: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0, batch_size=64)
    fit: Fit = Fit(lr=1e-3, weight_decay=0.0, epochs=10, batch_size=64, batchnorm="frozen")

    @classmethod
    def wrapper(cls) -> type[Wrapper]:
        """Gives the class of EC around a base."""
        return ECAround

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Warms the auxiliary modules up beside a copy of the model, and trains both together."""
        student, classed = copy_of(model, job), classified(job.task, "EC")
        reader = Reader.warmed_up(self, student, classed, job)
        reader.train([Phase(reader.loss, reader.streams, self.fit, whole=True)])
        return restore_flags(student, model)


@dataclass(frozen=True)
class ECAround(Wrapper):
    """EC's loss beside a base's own, in each of its phases.

        L_total = L_base + eta L

    L is that of `EC`. Fit and step are the base's; the added passes leave BatchNorm's statistics alone.

    Args:
        base: the method that is extended.
        temperature, lambda_ul, lambda_ce, layers, warm_up: as in `EC`.
        eta: weight of L; 0 is the base, bit for bit.
    """

    title = "EC"
    has_null = True

    temperature: Positive = 0.7
    lambda_ul: NonNegative = 3.0
    lambda_ce: NonNegative = 1.0
    eta: NonNegative = 1.0
    layers: tuple[str, ...] = ()
    warm_up: Fit = EC.warm_up

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Runs the base's phases on a copy of the model, with the auxiliary modules trained beside it."""
        if self.eta == 0:
            return self.base.unlearn(model, job)
        classed, student = classified(job.task, "EC"), copy_of(model, job)
        phases = self.base.phases(student, frozen_copy(student), job)
        reader = Reader.warmed_up(self, student, classed, job)
        reader.train([self._extended(phase, reader) for phase in phases])
        return restore_flags(student, model)

    def null_base(self) -> GradientMethod | None:
        """Gives the base, for the auxiliary modules' own passes leave statistics alone."""
        return self.base

    def _extended(self, phase: Phase, reader: "Reader") -> Phase:
        """Puts L beside the loss of one of the base's phases."""
        # A base may have data of its own under these names: then L draws beside it.
        streams = reader.streams
        keys = {split: split if phase.streams.get(split, x) is x else f"ec {split}" for split, x in streams.items()}

        def added(model: nn.Module, batches: Batches) -> Tensor:
            return self.eta * reader.loss(model, {split: batches[key] for split, key in keys.items()})

        more = {keys[split]: examples for split, examples in streams.items()}
        return replace(phase, loss=with_loss(phase, added), streams={**phase.streams, **more}, whole=True)


class Reader(NamedTuple):
    """The student, the layers of it that are read, and the modules that read them for the classes of `classed`."""

    method: EC | ECAround
    student: nn.Module
    classed: Task
    job: Job
    layers: Mapping[str, nn.Module]
    auxiliary: "Auxiliary"

    @classmethod
    def warmed_up(cls, method: EC | ECAround, student: nn.Module, classed: Task, job: Job) -> "Reader":
        """Makes the modules, and lets them learn to classify retain."""
        request, session = job.request, job.session
        widths, classes = stages(student.eval(), classed, [request.forget[0], request.retain[0]], method.layers)
        with own_randomness(draw_seed(job.generator)):
            auxiliary = Auxiliary(list(widths.values()), classes).to(session.torch_device())
        layers = {name: student.get_submodule(name) for name in widths}

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            with torch.no_grad():
                rows, vectors = rows_and_vectors(student, layers, classed, batches["retain"])
            losses = [nll(reading.logits, rows.targets).mean() for reading in model(vectors)]
            return torch.stack(losses).sum()

        alone = Phase(loss, {"retain": request.retain}, method.warm_up)
        fit(auxiliary, job.task, alone, job.generator, session.named("ec, auxiliary modules"))
        return cls(method, student, classed, job, layers, auxiliary)

    @property
    def streams(self) -> dict[str, Examples]:
        """The data that L draws its batches from."""
        return {"forget": self.job.request.forget, "retain": self.job.request.retain}

    def loss(self, model: nn.Module, batches: Batches) -> Tensor:
        """Computes L of a batch of forget and one of retain."""
        retain, retain_vectors = rows_and_vectors(model, self.layers, self.classed, batches["retain"])
        forget, forget_vectors = rows_and_vectors(model, self.layers, self.classed, batches["forget"])
        forget_readings = self.auxiliary(forget_vectors), forget.targets
        depths = sum_over_layers(self.method, forget_readings, (self.auxiliary(retain_vectors), retain.targets))
        rows = retain if self.classed is self.job.task else self.job.task.rows(model, batches["retain"])
        return depths + rows.losses().mean()

    def train(self, phases: Sequence[Phase]) -> None:
        """Runs the phases with the modules inside the student, so that the loop trains and keeps them too."""
        home = last_layer(self.student)
        home.add_module(BESIDE, self.auxiliary)
        train(self.student, phases, self.job, self.method)
        delattr(home, BESIDE)


def sum_over_layers(
    method: EC | ECAround, forget: "tuple[Sequence[Reading], Tensor]", retain: "tuple[Sequence[Reading], Tensor]"
) -> Tensor:
    """Sums L over layers, from the readings of a batch of forget and of one of retain, each with their classes."""
    (forgets, forget_classes), (retains, retain_classes), terms = forget, retain, list[Tensor]()
    for weight, u, r in zip(weights(len(retains)), forgets, retains, strict=True):
        contrast = contrastive_forgetting(u.vectors, forget_classes, r.vectors, retain_classes, method.temperature)
        terms.append(weight * (method.lambda_ul * contrast + method.lambda_ce * nll(r.logits, retain_classes).mean()))
    return torch.stack(terms).sum()


class Reading(NamedTuple):
    """What the auxiliary modules of one layer make of a batch: z `[n, 128]`, of length 1, and logits `[n, classes]`."""

    vectors: Tensor
    logits: Tensor


class Auxiliary(nn.Module):
    """MLP_l and H_l of each layer, for layers that give out `widths` numbers an example."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, WIDTH)) for d in widths)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, classes) for _ in widths)

    def forward(self, pooled: Sequence[Tensor]) -> list[Reading]:
        """Reads a batch from what each layer gave out of it, `[n, d_l]` each."""
        vectors = [F.normalize(mlp(h), dim=1) for mlp, h in zip(self.projections, pooled, strict=True)]
        return [Reading(z, head(z)) for z, head in zip(vectors, self.heads, strict=True)]


def weights(count: int) -> list[float]:
    """Gives w_l of layers 1 to `count`: in proportion to l, 1 together."""
    return [2 * layer / (count * (count + 1)) for layer in range(1, count + 1)]


def rows_and_vectors(
    model: nn.Module, layers: Mapping[str, nn.Module], task: Task, batch: Batch
) -> tuple[Rows, list[Tensor]]:
    """Gives the rows of a batch, and h_l pooled of each layer, `[n, d_l]` in float32; empty if it took no part."""
    rows, outputs, positions = layer_outputs(model, layers, task, batch)
    nothing = torch.empty(0, 0)
    return rows, [pooled(outputs[name], positions) if name in outputs else nothing for name in layers]


class Stages(NamedTuple):
    """The layers that are read, by dotted name, with d_l of each; and how many classes the model tells apart."""

    widths: dict[str, int]
    classes: int


def stages(model: nn.Module, task: Task, items: Sequence[Any], layers: Sequence[str] = ()) -> Stages:
    """Finds the layers to read: those named, or the ends of four equal parts of what lies before the head.

    Only layers that have an output for each example count. `model` is in eval mode; `items` are two examples. A layer
    that has outputs for something else, as a tower that reads the classes' names, gives itself away: its outputs are
    not one for one example and two for two.
    """
    batches = [move(task.collate(items[:n]), device_of(model)) for n in (1, 2)]
    modules = named(model, layers) or before_head(model, task, batches[0])
    widths = dict.fromkeys(modules, 0)
    for n, batch in enumerate(batches, 1):
        with torch.no_grad():
            rows, vectors = rows_and_vectors(model, {name: modules[name] for name in widths}, task, batch)
        widths = {name: h.shape[1] for name, h in zip(widths, vectors, strict=True) if h.ndim == 2 and len(h) == n}
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
    """Finds the last module that holds weights and no module: what is put below it has no say in its pass."""
    layers = [m for m in model.modules() if not any(True for _ in m.children()) and any(True for _ in m.parameters())]
    return layers[-1]
