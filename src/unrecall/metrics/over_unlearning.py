"""OU@eps: what lies next to a forgotten class, and whether it was destroyed with it."""

from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Selection, evenly
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric
from unrecall.models.observe import batches, device_of
from unrecall.models.perturb import Walk, pgd, strongest_other
from unrecall.nn.functional import js, kl, masked_softmax
from unrecall.nn.hooks import mode
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import with_own_rows
from unrecall.training.randomness import seeded

JS = Row("ou_js", "OU@eps (JS)", "utility", margin=0.05, unit="nats")
KL = Row("ou_kl", "OU@eps (KL)", "utility", margin=0.05, unit="nats")
RADIUS, STEP, STEPS = 0.03, 0.01, 3
"""Of the perturbation: radius and step size, as shares of the width of the bounds, and the number of steps."""

SAMPLE = 1_000
"""Forget examples that are perturbed at most: JS, which lies in [0, ln 2], is told to .02 nats by so many."""


class Divergences(NamedTuple):
    """Of each perturbed row, in nats."""

    js: np.ndarray
    kl: np.ndarray


def measure(setting: Setting) -> Measured:
    """OU@eps: how far each model is from the original without the forgotten classes, on perturbed forget examples.

        OU@eps = mean over x' of D( mask(softmax(z_original(x'))) || softmax(z(x')) )

    x' are made once, from the original: random start in the ball of `RADIUS`, then `STEPS` steps *up* the loss of the
    strongest competing class, as in the authors' code. D is JS in that code, in [0, ln 2], and KL in the text; both
    come from one pass. Class requests only: rows with a reason for others.

    Of more than `SAMPLE` forget examples so many are looked at, evenly spread, and a note says so.

    Reference: Ha, Park, Yoon, "Unlearning's Blind Spots: Over-Unlearning and Prototypical Relearning Attack", ICML
    2026, arXiv 2506.01318. Differs from the code in clamping in the model's input range, not after normalisation, and
    in leaving out the code's second set, x' = clamp(x + 0.01 N(0, I)), of which it prints the same mean.
    """
    if setting.request.kind != "class":
        none = Estimate(value=None, note="defined for class requests only")
        return Measured([row.measured(dict.fromkeys(setting.models.by_role(), none)) for row in (JS, KL)])
    by_role = divergences(setting, seeded(setting.seed))
    js_by_role, kl_by_role = ({role: stats.mean(rows[i]) for role, rows in by_role.items()} for i in range(2))
    total = len(setting.request.forget)
    note = f"on {SAMPLE:,} of {total:,} forget examples, evenly spread" if total > SAMPLE else ""
    return Measured([JS.measured(js_by_role, note), KL.measured(kl_by_role, note)])


def divergences(setting: Setting, generator: torch.Generator) -> dict[str, Divergences]:
    """Divergences of each model from the original without the forgotten classes, per perturbed forget row."""
    original, subjects, request = setting.models.original, setting.models.by_role(), setting.request
    task = with_own_rows(setting.task)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {role: [] for role in subjects}
    device = device_of(original)
    with ExitStack() as stack:
        for model in (original, *subjects.values()):
            stack.enter_context(mode(model, training=False))
        examples = Selection(request.forget, evenly(len(request.forget), SAMPLE))
        for batch in batches(examples, task, 256, device):
            moved = away_from_competitor(original, task, batch, generator)
            with torch.no_grad():
                logits = task.rows(original, moved).logits
                masked = torch.zeros(logits.shape[1], dtype=torch.bool, device=device)
                masked[list(request.masked)] = True
                p = masked_softmax(logits, masked)
                for role, model in subjects.items():
                    logits = task.rows(model, moved).logits
                    parts[role].append((js(p, F.softmax(logits, -1)), kl(p.log(), F.log_softmax(logits, -1))))
    columns = {role: [torch.cat(column) for column in zip(*rows, strict=True)] for role, rows in parts.items()}
    return {role: Divergences(*(column.double().cpu().numpy() for column in both)) for role, both in columns.items()}


def away_from_competitor(model: nn.Module, task: Task, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch, moved up the loss of each row's strongest competing class, within `RADIUS` of where it was."""
    with torch.no_grad():
        competitor = strongest_other(task.rows(model, batch))
    walk = Walk(radius=RADIUS, step=STEP, steps=STEPS, targets=competitor, away=True)
    return pgd(model, task, batch, walk, generator)


OVER_UNLEARNING = Metric("over_unlearning", (JS, KL), measure)
