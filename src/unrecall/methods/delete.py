"""DELETE: distillation from the original with the forgotten classes masked out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength
from unrecall.nn.functional import kl, one_hot_mask
from unrecall.training.teacher import remembered


@dataclass(frozen=True)
class Delete(GradientMethod):
    """On forget, answers as the original would if the forgotten classes did not exist; sees no retain data.

        L = KL(mask(p(x)) || q(x)) over forget,   p the original's softmax, q the student's
        mask(p)_k = p_k / sum_{j not masked} p_j where k is not masked, 0 where it is

    All of `request.masked` is masked; where it is empty (samples), each row's own target is.

    Args:
        fit: SGD, lr 1e-4, momentum 0.9, weight decay 5e-4, batch 128, 10 epochs over forget, BatchNorm frozen.

    Expected to fail: for samples, it forbids an answer that the retrained model often still gives, and over-forgets;
    nothing but the original's ranking of the other classes protects retain.

    Reference: Zhou, Zheng, Mo, Lu, Lin, Zheng, "Decoupled Distillation to Erase: A General Unlearning Method for Any
    Class-centric Tasks", CVPR 2025, arXiv 2503.23751. Differs from the paper in the fit: its own was not found, so
    the one that Spotter's code uses with this loss stands in. Where request.masked names several classes, all are
    masked in every row, as in Spotter's code.
    """

    title = "DELETE"
    strength = Strength(("fit.lr",))

    fit: Fit = Fit(lr=1e-4, weight_decay=5e-4, epochs=10, batchnorm="frozen")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget; the teacher's outputs are computed once."""
        request, task = job.request, job.task
        teacher = remembered(original, task, request.forget)

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            rows = task.rows(model, batches["forget"])
            hidden = one_hot_mask(rows.targets, rows.logits.shape[1])
            if request.masked:
                hidden = torch.zeros_like(hidden)
                hidden[:, list(request.masked)] = True
            target = F.log_softmax(teacher(batches["forget"]).masked_fill(hidden, float("-inf")), 1)
            return rows.per_example(kl(target, F.log_softmax(rows.logits, 1))).mean()

        return [Phase(loss, {"forget": request.forget}, self.fit)]
