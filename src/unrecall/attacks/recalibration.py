"""Recalibration: BatchNorm statistics are re-estimated on unlabelled inputs; what only they had hidden comes back."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.batches import move
from unrecall.data.examples import Examples
from unrecall.data.loading import BatchIndices, batches_of
from unrecall.errors import NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import device_of
from unrecall.nn.hooks import batchnorms
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count
from unrecall.tasks.base import Task
from unrecall.training.job import Job


@dataclass(frozen=True)
class Recalibration(RecoveryAttack):
    """Resets the running statistics of every BatchNorm and averages them anew; no label and no gradient is used.

        mean, var <- average over batches of the batch mean and (unbiased) batch variance of retain inputs

    Training in train mode moves these statistics even at learning rate 0, and a model whose statistics have drifted
    looks forgetful. All else (dropout too) stays in eval mode. Deterministic, given the draw of the inputs.

    Args:
        counts: numbers of unlabelled inputs, one point of the curve each; larger ones use all of retain.
        batch_size: inputs a forward pass; a rest is spread evenly, so that no pass sees a single input.

    Expected to fail: on a model that forgot with its weights. NotSupported on one without BatchNorm statistics.

    Reference: ours. The estimate is that of Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021,
    arXiv 2105.07576 ("PreciseBN"), here used as an attack.
    """

    title: ClassVar[str] = "BatchNorm recalibration"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: resets normalisation statistics",
        data="unlabelled inputs like those of retain; none of forget",
        budget="the number of unlabelled inputs; no training",
    )
    axis: ClassVar[str] = "unlabelled inputs"
    judged: ClassVar[str] = "mean"

    counts: tuple[Count, ...] = (32, 128, 512)
    batch_size: Count = 128

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One recalibrated copy for each count."""
        if not batchnorms(model):
            raise NotSupported("Recalibration: expected a model with BatchNorm statistics, got none.")
        retain, task = setting.request.retain, setting.task
        order = torch.randperm(len(retain), generator=pool.generator()).tolist()
        for count in sorted({min(count, len(order)) for count in self.counts}):
            attacked = copy.deepcopy(model)
            recalibrate(attacked, task, retain, order[:count], self.batch_size)
            yield Attacked(count, attacked, pool.tested)

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original with BatchNorm means that have moved by three deviations."""
        copied = copy.deepcopy(original).eval()
        for norm in batchnorms(copied):
            if norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.add_(3 * norm.running_var.sqrt())
        return copied


@torch.no_grad()
def recalibrate(model: nn.Module, task: Task, examples: Examples, chosen: list[int], batch_size: int) -> None:
    """Re-estimates all BatchNorm statistics on the chosen examples' inputs, in place; leaves the model in eval mode.

    A batch has two inputs at least, for one has no variance; NotSupported where there is one in all.
    """
    if len(chosen) < 2:
        raise NotSupported(f"Recalibration: expected 2 inputs or more, got {len(chosen)}, which have no variance.")
    norms = batchnorms(model)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    passes = min(math.ceil(len(chosen) / batch_size), len(chosen) // 2)
    groups = [BatchIndices(chosen[i::passes]) for i in range(passes)]
    for batch in batches_of(examples, task.collate, groups, passes):
        task.rows(model, move(batch, device_of(model)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
