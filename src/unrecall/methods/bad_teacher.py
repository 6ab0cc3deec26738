"""Bad Teacher: forget is taught by a network that knows nothing, retain by the original."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrecall.data.examples import Joined, split_off
from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, loss_on
from unrecall.spec.parameters import Positive, Share
from unrecall.training.fresh import reinitialise
from unrecall.training.teacher import distance, frozen_copy, remembered


@dataclass(frozen=True)
class BadTeacher(GradientMethod):
    """Distils ignorance into forget and the original into a part of retain, in mixed batches.

        L = mean over the mixed batch of   KL(T_d(x) || S(x)) for x in forget,   T_d randomly initialised
                                           KL(T_s(x) || S(x)) for x in retain,   T_s the original

    Softmaxes are taken at temperature T. The divergence runs from teacher to student, as in distillation.

    Args:
        share: how much of retain is used, in [0, 1]; drawn once.
        temperature: T; no factor T^2 is applied.
        fit: Adam, lr 1e-4, no weight decay, batch 256, 1 epoch over forget and the part of retain together.

    Expected to fail: forget ends near a random network's output, which no retrained model gives: items stand out by
    their high entropy. NotSupported where a layer can't be started anew (weights in a module without
    `reset_parameters`).

    Reference: Chundawat, Tarun, Mandal, Kankanhalli, "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks
    using an Incompetent Teacher", AAAI 2023, arXiv 2205.08096. Differs from its code in the scale of the loss (mean
    over examples of the sum over classes), which Adam hardly notices; the direction of KL is from the paper's formula
    as we know it, not checked against the text.
    """

    title = "Bad Teacher"
    strength = Strength(("fit.lr",))

    share: Share = 0.3
    temperature: Positive = 1.0
    fit: Fit = Fit(optimizer="adam", lr=1e-4, weight_decay=0.0, batch_size=256)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over the mixture, forget first in its numbering."""
        request, task, generator = job.request, job.task, job.generator
        incompetent = frozen_copy(original)
        reinitialise(incompetent, generator)
        part, _ = split_off(request.retain, round(self.share * len(request.retain)), generator)
        mixed = Joined([request.forget, part])
        ignorant, knowing = remembered(incompetent, task, mixed), remembered(original, task, mixed)

        def loss(rows: Rows, batch: Batch) -> Tensor:
            forget = batch["index"][rows.example] < len(request.forget)
            target = torch.where(forget[:, None], ignorant(batch), knowing(batch))
            return distance(rows, target, self.temperature)

        return [Phase(loss_on("mixed", task, loss), {"mixed": mixed}, self.fit)]
