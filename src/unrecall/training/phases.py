"""What a method's phases are built from: their data and losses, and which parts of a model they train."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.data.request import Split
from unrecall.data.signals import Average
from unrecall.errors import BadInput
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import classed
from unrecall.training.job import Job
from unrecall.training.loop import (
    Batches,
    Fit,
    Loss,
    Phase,
    RowsLoss,
    averaged,
    cross_entropy,
    drawing,
    loss_on,
    set_training,
)
from unrecall.training.terms import Terms, weighted


def classified(task: Task, owner: str) -> Task:
    """Gives the task whose rows are the examples' classes; NotSupported, in `owner`'s name, where they have none."""
    return classed(owner, task, "Choose a method that needs no classes, such as GradDiff.").classified()


def last_blocks(model: nn.Module, count: int, task: Task, owner: str) -> list[nn.Module]:
    """Gives the modules of the last `count` blocks; BadInput, in the name of `owner`, where the model has fewer."""
    parts = task.blocks(model)
    if count > len(parts):
        raise BadInput(f"{owner}: expected blocks to be at most {len(parts)} (the model's), got {count}. Lower it.")
    return [module for _, modules in parts[-count:] for module in modules]


def train_only(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Freezes all parameters of a model but these; what was frozen before stays frozen."""
    free = {id(p) for p in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in free)


def phase_over(split: Split, job: Job, fit: Fit, of: RowsLoss = cross_entropy) -> Phase:
    """Makes a phase over one split of the request, which minimises what `of` computes from a pass; CE by default."""
    return Phase(loss_on(split, job.task, of), {split: job.request[split]}, fit)


def repair(job: Job, fit: Fit, times: int) -> list[Phase]:
    """A phase that draws `times` examples of retain for each of forget; none where that is none."""
    count = times * len(job.request.forget)
    return [phase_over("retain", job, drawing(fit, count, job.request.retain))] if count else []


class RetainTerm(NamedTuple):
    """The weight of CE(retain) beside a loss of forget (at 0 retain is not read), and what that CE is the mean over."""

    weight: float
    average: Average = "example"


def with_retain(forget: Loss, term: RetainTerm, job: Job, fit: Fit, leads: Split = "forget") -> list[Phase]:
    """Makes one phase over forget that minimises `forget` + weight CE(retain); retain cycles beside it.

    `leads`: which of the two an epoch is a pass over.
    """
    request, retain = job.request, loss_on("retain", job.task, averaged(term.average))
    if term.weight == 0:
        return [Phase(forget, {"forget": request.forget}, fit)]
    loss = Terms({"forget": forget, "retain": weighted(term.weight, retain)})
    streams: dict[str, Examples] = {leads: request[leads], "forget": request.forget, "retain": request.retain}
    return [Phase(loss, streams, fit)]


def with_loss(phase: Phase, added: Loss, weight: float = 1.0) -> Loss:
    """Sums `weight` times the phase's own loss and `added`, whose passes leave BatchNorm's statistics alone."""
    still = replace(phase.fit, batchnorm="frozen")

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        loss_of_phase = weight * phase.loss(model, batches)
        set_training(model, still)
        total = loss_of_phase + added(model, batches)
        set_training(model, phase.fit)
        return total

    return loss
