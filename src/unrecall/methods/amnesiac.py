"""Amnesiac unlearning by relabelling: trains once more on all data, with wrong labels on what must go."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unrecall.data.examples import Joined
from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, loss_on
from unrecall.models.perturb import other_answers
from unrecall.tasks.protocols import check_own_rows


@dataclass(frozen=True)
class Amnesiac(GradientMethod):
    """Teaches forget other labels, drawn once, in batches that mix it with retain under its true ones.

        L = CE(x, y'),    y' = y for x in retain,    y' != y for x in forget, all other classes equally likely

    Where an example has many rows each has a label of its own. A batch holds as many forget examples as their share of
    all data makes likely; `random_label` draws the two apart, and labels anew at each step.

    Args:
        fit: Adam, lr 1e-4, no weight decay, batch 128, 3 epochs over forget and retain together.

    Expected to fail: a retrained model is not sure of wrong labels on what it never saw, so forgotten examples stand
    out by their high loss; and a label that is only overwritten comes back within a few steps of relearning.

    Reference: Graves, Nagisetty, Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981, in the relabelling
    form that peers compare with, from their code (Foster et al., "Fast Machine Unlearning Without Retraining Through
    Selective Synaptic Dampening", arXiv 2308.07707), and so are the defaults. Differs from the paper in what is called
    by its name: there amnesiac unlearning subtracts the updates of the batches that held the forgotten examples, which
    training must have logged; relabelling is its other method. Labels are drawn for forget alone.
    """

    title = "Amnesiac"
    strength = Strength(("fit.lr",))

    fit: Fit = Fit(optimizer="adam", lr=1e-4, weight_decay=0.0, epochs=3)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over both, forget first in their numbering."""
        request, task = job.request, job.task
        check_own_rows(self, task, "Choose random_label.")
        labels = other_answers(original, task, request.forget, job.generator)

        def relabelled(rows: Rows, batch: Batch) -> Tensor:
            forget = batch["index"] < len(request.forget)
            targets = rows.targets.clone()
            if bool(forget.any()):
                targets[forget[rows.example]] = torch.cat([labels[i] for i in batch["index"][forget].tolist()])
            return replace(rows, targets=targets).losses().mean()

        mixed = Joined([request.forget, request.retain])
        return [Phase(loss_on("mixed", task, relabelled), {"mixed": mixed}, self.fit)]
