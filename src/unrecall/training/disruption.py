"""How far a model's answers on retain have moved from the original's: what a budget is spent on."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from unrecall.data.examples import Selection, evenly
from unrecall.models.observe import in_order, repeated
from unrecall.nn.functional import kl
from unrecall.nn.hooks import mode
from unrecall.training.job import Job
from unrecall.training.teacher import remembered

SAMPLE = 512
"""On how many examples of retain, evenly spread, answers are compared."""

Disruption: TypeAlias = Callable[[nn.Module], float]
"""Computes KL(p_0 || p) of a model, in nats: the mean over an example's rows, then over examples, in eval mode."""


def disruption(original: nn.Module, job: Job) -> Disruption:
    """Makes the measure of how far a model is from the original, which is asked once, on a sample of retain."""
    task, sample = job.task, Selection(job.request.retain, evenly(len(job.request.retain), SAMPLE))
    before = remembered(original, task, sample)

    @torch.no_grad()
    def distance(model: nn.Module) -> float:
        total, count = 0.0, 0
        with mode(model, training=False):
            for batch in in_order(model, task, sample):
                rows = task.rows(model, batch)
                distances = kl(before(batch).double().log_softmax(1), rows.logits.double().log_softmax(1))
                each = rows.per_example(distances)[repeated(batch, count) :]
                total, count = total + float(each.sum()), count + len(each)
        return total / count

    return distance
