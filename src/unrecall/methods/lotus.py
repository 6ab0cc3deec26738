"""LoTUS: the original's answers to forget, drawn and flattened until they are no surer than its answers elsewhere."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.examples import Joined, split_off
from unrecall.errors import NotSupported
from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, loss_on
from unrecall.models.observe import accuracy
from unrecall.spec.parameters import Positive, Share
from unrecall.training.loop import StepState, epoch_steps, plain_step
from unrecall.training.teacher import remembered
from unrecall.training.terms import check_own_loss

MARGIN = 0.01
"""How far below `unseen` the accuracy on forget ends it, as in the authors' code."""
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class LoTUS(GradientMethod):
    """Teaches forget softened draws from the original's answers, and a part of retain hard ones, in mixed batches.

        L = -mean over the mixed batch of  sum_k t_k log s_k,     s the student's softmax, z_0 the original's logits
        forget:  t = softmax((z_0 + G) / tau)       retain:  t = onehot(argmax_k (z_0 + G)_k)
        tau = exp(alpha (A_f - unseen)) anew for each epoch,     A_f the student's accuracy on forget

    G is Gumbel noise, drawn anew for each batch: retain's labels are draws from the original's softmax. It ends with
    the first epoch after which A_f is 0.01 or more below `unseen`. Where an example has many rows, each has a draw of
    its own.

    Args:
        unseen: the original's accuracy on examples it never saw, in [0, 1], which is what forget's should fall to.
            None: 0 where a class is forgotten, as in the authors' code. Otherwise it must be given, for forget and
            retain, all that a method sees, can't tell it; a record of the original has it as its test accuracy.
        alpha: how fast tau grows with what is left to forget; the authors: 8 for random samples of CIFAR-10, 2 for
            those of CIFAR-100 and MUFAC and for vision transformers, 32 for classes.
        share: how much of retain is used, in [0, 1]; drawn once.
        fit: AdamW, lr 1e-4, weight decay 5e-4, batch 128, 10 epochs over forget and the part of retain together.

    Expected to fail: relearning, for only answers are taught. Where alpha or what is left is large, every answer is
    taught as alike likely, which no retrained model finds. Where the original answers all of retain surely, it is
    distillation with hard labels.

    Reference: Spartalis, Semertzidis, Gavves, Daras, "LoTUS: Large-Scale Machine Unlearning with a Taste of
    Uncertainty", CVPR 2025, arXiv 2503.18314, from the authors' code (ResNet-18). Differs from the code in `unseen`,
    which it measures on validation data, rounded to 0.01 as A_f is; and in looking for the end after epochs alone, and
    not before the first. Examples of several rows are ours.
    """

    title = "LoTUS"
    strength = Strength(("fit.lr",))

    unseen: Share | None = None
    alpha: Positive = 8.0
    share: Share = 0.3
    fit: Fit = Fit(optimizer="adamw", lr=1e-4, weight_decay=5e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over the mixture, forget first in its numbering."""
        request, task, generator = job.request, job.task, job.generator
        goal = self._goal(job)
        part, _ = split_off(request.retain, round(self.share * len(request.retain)), generator)
        mixed = Joined([request.forget, part])
        teacher = remembered(original, task, mixed)
        tau = [1.0]

        def loss(rows: Rows, batch: Batch) -> Tensor:
            forget = batch["index"][rows.example] < len(request.forget)
            target = drawn(teacher(batch), forget, tau[0], generator)
            return rows.mean(-(target * F.log_softmax(rows.logits, 1)).sum(1))

        def left(model: nn.Module) -> float:
            return float(accuracy(model, task, request.forget).mean()) - goal

        def step(current: StepState) -> Tensor:
            check_own_loss("LoTUS", current, phase)
            if current.number % epoch_steps(phase) == 0:
                tau[0] = temperature(self.alpha, left(current.model))
            return plain_step(current)

        def ends(current: StepState) -> bool:
            return (current.number + 1) % epoch_steps(phase) == 0 and left(current.model) <= -MARGIN

        phase = Phase(loss_on("mixed", task, loss), {"mixed": mixed}, self.fit, ends=ends)
        return [replace(phase, step=step)]

    def _goal(self, job: Job) -> float:
        """What forget's accuracy should fall to; NotSupported where nobody says it."""
        if self.unseen is not None:
            return self.unseen
        if job.request.kind != "class":
            raise NotSupported(
                "LoTUS: expected unseen, what forget's accuracy should fall to, got none, and only of a class it is "
                "known. Set it to the original's test accuracy, as in lotus:unseen=0.9."
            )
        return 0.0


def temperature(alpha: float, left: float) -> float:
    """Computes exp(alpha left), as far as float32 goes."""
    return min(math.exp(min(alpha * left, 80.0)), 1e30)


def drawn(logits: Tensor, forget: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """Draws each row's target, `[rows, classes]`: a softened draw where `forget` `[rows]` says so, or a hard one."""
    uniform = torch.rand(logits.shape, generator=generator, device=generator.device).clamp_min(TINY)
    noisy = logits + -(-uniform.log()).clamp_min(TINY).log().to(logits)
    hard = F.one_hot(noisy.argmax(1), logits.shape[1]).to(noisy)
    return torch.where(forget[:, None], (noisy / tau).softmax(1), hard)
