"""One answer wanted more than another, both measured against the original."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import move
from unrecall.data.examples import Examples
from unrecall.data.signals import Rows
from unrecall.tasks.base import Task
from unrecall.training.loop import Batches, Loss
from unrecall.training.teacher import remembered, summed_losses


def preferring(wanted: Sequence[Any], forget: Examples, original: nn.Module, task: Task, beta: float) -> Loss:
    """Makes the loss of forget that wants, in place of each of its examples, the one at the same place of `wanted`."""
    before_wanted = remembered(original, task, wanted, summed_losses)
    before_answers = remembered(original, task, forget, summed_losses)

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        batch = batches["forget"]
        wanted_batch = task.collate([wanted[i] for i in batch["index"].tolist()])
        wanted_rows = task.rows(model, move(wanted_batch, batch["index"].device))
        answers = task.rows(model, batch)
        return dpo_loss(wanted_rows, answers, before_wanted(batch), before_answers(batch), beta)

    return loss


def dpo_loss(wanted: Rows, answers: Rows, before_wanted: Tensor, before_answers: Tensor, beta: float) -> Tensor:
    """Computes -(2 / beta) mean log sigmoid(beta (log(p / p_0) of what is wanted - log(p / p_0) of the answer)).

    `before_wanted`, `before_answers`: the original's summed negative log-likelihoods `[examples]`.
    """
    up = before_wanted - summed_losses(wanted)
    down = before_answers - summed_losses(answers)
    return -2 / beta * F.logsigmoid(beta * (up - down)).mean()
