"""Task vector: learns forget even better, and goes the same way backwards."""

from dataclasses import dataclass

import torch
from torch import nn

from unrecall.methods.base import Fit, Job, Method, Strength, copy_of, phase_over, train
from unrecall.spec.parameters import Positive


@dataclass(frozen=True)
class TaskVector(Method):
    """Subtracts from the weights what further training on forget would add to them.

        theta <- theta - alpha (theta_reinforced - theta)

    theta_reinforced is the model after `fit` on forget, min CE(forget). BatchNorm's statistics stay the original's.
    No retain data.

    Args:
        alpha: how far to go; the papers choose it by validation, and MUSE has 5 for its books.
        fit: AdamW, lr 1e-5, batch 32, 10 epochs over forget, BatchNorm frozen.

    Expected to fail: where forget is known by heart its loss is flat, so that the vector is short and says little;
    a large alpha then breaks what is not forgotten. The factors of an adapter are negated, not their product.

    Reference: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089. Differs from the
    paper in the start: theta there is a pretrained model that never saw the task, and the rate and length of `fit` are
    those of Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", ICLR 2025, arXiv 2407.06460,
    whose theta, like ours, has learned forget.
    """

    title = "Task vector"
    strength = Strength(("alpha",), high=2**10)

    alpha: Positive = 1.0
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10, batchnorm="frozen")

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Trains one copy on forget, and moves another away from it."""
        student, reinforced, job = copy_of(model, job), copy_of(model, job), job.settled(model)
        reinforcing = job.until(None)  # it learns forget better, and doesn't stop where that is forgotten
        train(reinforced, [phase_over("forget", job, self.fit)], reinforcing, self)
        with torch.no_grad():
            for weight, further in zip(student.parameters(), reinforced.parameters(), strict=True):
                weight.sub_(self.alpha * (further - weight))
        return student.eval()
