"""Fanchuan: pushes the answers on forget towards chance, then its features away from all that stays."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Rows, Strength, phase_over, repair
from unrecall.nn.functional import kl
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.interaction_graph import by_user


@dataclass(frozen=True)
class Fanchuan(GradientMethod):
    """Makes the model know nothing of forget, then makes forget equally unlike everything, in rounds with a repair.

        first:   L = mean over forget of KL(uniform || p)
        rounds:  L = C(z_f, z_c) + C(z_f, z_r),    C(z, z') = mean over i, j of -log softmax_j(z_i . z'_j / temperature)
                 then min CE(retain)

    z are the features that enter the head, z_f of a batch of forget, z_c of cleaned, z_r of retain. Cleaned is what
    retain has of the users who forget; where that is nothing its term is left out. For a task without users cleaned is
    retain as a whole, of which z_c is then another batch. C is at least the logarithm of the batch size, where a forget
    example is as near to one retained example as to any other.

    Args:
        temperature: of C.
        rounds: of a pass over forget and a repair.
        repaired: examples of retain that the repair of each round draws, for each forget example.
        forget: how the passes over forget are made; Adam, lr 1e-3, batch 128, one pass in each round.
        fit: of the repairs; Adam, lr 1e-3, batch 128. Its epochs are so many times those examples.

    Expected to fail: the repair draws every retained example many times where retain is small, and may bring back what
    the pass before took away. No retrained model answers forget by chance, so that the first step alone gives it away.

    Reference: the entry of team Fanchuan to the NeurIPS 2023 Machine Unlearning Challenge, in Triantafillou et al.,
    "Are we making progress in unlearning?", arXiv 2406.09073, in the form and with the defaults of Lubitzsch, de Rijke,
    Schelter, "ERASE", arXiv 2603.08341, from its code. Differs from that code in one step for the sum of the two C,
    which there are a step each; in z of a model of users, the user's embedding there; and in optimisers of each phase's
    own, where it goes on with the one that the model was trained with.
    """

    title = "Fanchuan"
    strength = Strength(("forget.lr",), high=2**10)

    temperature: Positive = 1.15
    rounds: Count = 8
    repaired: Count = 32
    forget: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0)
    fit: Fit = Fit(optimizer="adam", lr=1e-3, weight_decay=0.0)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Makes a phase over forget, and two for each round."""
        request, task = job.request, job.task
        cleaned, _ = by_user(task, request)
        streams: dict[str, Examples] = {"forget": request.forget, "retain": request.retain}
        if len(cleaned):
            streams["cleaned"] = cleaned

        def contrast(model: nn.Module, batches: Batches) -> Tensor:
            features = {name: task.view(model, batches[name]).features.flatten(1) for name in streams}
            forgotten = features.pop("forget")
            return torch.stack([spread(forgotten, other, self.temperature) for other in features.values()]).sum()

        first = phase_over("forget", job, self.forget, lambda rows, _: from_uniform(rows))
        apart = Phase(contrast, streams, self.forget, whole=True)
        return [first, *[apart, *repair(job, self.fit, self.repaired)] * self.rounds]


def from_uniform(rows: Rows) -> Tensor:
    """Computes KL(uniform || p), the mean over an example's rows, then over examples."""
    log_p = F.log_softmax(rows.logits, 1)
    chance = torch.full_like(log_p, 1 / log_p.shape[1]).log()
    return rows.per_example(kl(chance, log_p)).mean()


def spread(forgotten: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Computes C of features `[n, d]` and `[m, d]`: how far from equally near to all others each forgotten one is."""
    return -F.log_softmax(forgotten @ others.T / temperature, 1).mean()
