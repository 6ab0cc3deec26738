"""WHP, "Who's Harry Potter": trains on the answers that a model without the memory might have given."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, phase_over, train_helper
from unrecall.spec.parameters import Positive
from unrecall.training.teacher import remembered


@dataclass(frozen=True)
class WHP(GradientMethod):
    """Finds what forget made more likely by learning it even better, and teaches what is left without that.

        v = v_base - alpha relu(v_reinforced - v_base)
        hard:  L = CE(argmax v) over forget           soft:  L = CE(softmax v) over forget

    v_base are the original's logits of each row, v_reinforced those of a copy after `reinforce` on forget's own
    targets. v is made once. L is the mean over an example's rows, then over examples. No retain data.

    Args:
        alpha: how much of a rise is taken off; the paper: 5, MUSE, which only decodes with v: 1.
        targets: "hard", as in the paper, or "soft".
        reinforce: the copy's training: AdamW, lr 1e-5, batch 32, 10 epochs over forget.
        fit: the student's: the same.

    Expected to fail: relearning. Where the copy's logits hardly rise above the original's, as for what is known by
    heart, argmax v is the old answer and is learned once more.

    Reference: Eldan, Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs", 2023, arXiv 2310.02238. Differs
    from the paper in having no dictionary of anchored terms: there, v_base is read from a text whose names and places
    were exchanged for common ones, which takes another model to find them. Rates and lengths are those of later
    comparisons.
    """

    title = "WHP"
    strength = Strength(("fit.lr", "reinforce.lr"), high=2**10)

    alpha: Positive = 5.0
    targets: Literal["hard", "soft"] = "hard"
    reinforce: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, after a copy was reinforced on it."""
        request, task = job.request, job.task
        reinforced = copy.deepcopy(student, {id(p): p for p in student.parameters() if not p.requires_grad})
        train_helper(reinforced, phase_over("forget", job, self.reinforce), job, "whp-0")
        base, more = remembered(original, task, request.forget), remembered(reinforced, task, request.forget)

        def loss(rows: Rows, batch: Batch) -> Tensor:
            v = generic(base(batch), more(batch), self.alpha)
            target = v.argmax(1) if self.targets == "hard" else v.softmax(1)
            return rows.per_example(F.cross_entropy(rows.logits, target, reduction="none")).mean()

        return [phase_over("forget", job, self.fit, loss)]


def generic(base: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """Takes `alpha` times what reinforcement raised off the logits, `[rows, classes]`."""
    return base - alpha * F.relu(reinforced - base)
