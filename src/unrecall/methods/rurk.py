"""RURK: unlearning that is robust against residual knowledge."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unrecall.data.examples import batch_size, repeat
from unrecall.methods.base import Batch, Batches, Fit, GradientMethod, Job, Phase, Rows, Strength, Task
from unrecall.models.perturb import Walk, fgsm, gaussian, other_classes, pgd
from unrecall.nn.functional import nll
from unrecall.nn.hooks import mode
from unrecall.spec.parameters import Count, NonNegative


@dataclass(frozen=True)
class RURK(GradientMethod):
    """Keeps retain, and pushes away forget examples *and* their perturbed copies.

        gaussian:   L = CE(X_r, Y_r) - lambda_f CE(X_f, Y_f) - lambda_a (1/v) sum_i CE(clamp(X_f + tau eps_i), Y_f)
        fgsm, pgd:  L = CE(X_r, Y_r) - lambda_f CE(X_f, Y_f) + lambda_a (1/v) sum_i CE(X'_i, Y'_i),  Y'_i != Y_f random,
                    X'_i crafted towards Y'_i against the model being trained

    One forget batch is drawn per retain batch. Retain, forget and perturbed copies go through the model in three
    separate passes, BatchNorm in train mode, as in the paper's Algorithm 1. Where an example's loss depends on its
    batch, each i has a pass of its own, so that copies are compared with copies of others and not with each other.

    Args:
        tau: perturbation size, as a share of the bounds' width; about 8/255.
        lambda_f: weight of the clean forget loss.
        lambda_a: weight of the perturbed forget loss (the paper: 0.03 on small CIFAR-5, 0.00045 on CIFAR-10).
        v: perturbed copies per forget example.
        attack: how copies are made; pgd takes `pgd_steps` steps of `pgd_step` from a random start.
        fit: SGD 1e-2, momentum 0.9, weight decay 5e-4, clip 1, cosine over 200 steps, 2 epochs over retain.

    Expected to fail: where lambda_a does not fit the model it over-forgets; the paper's values were set for ResNet-18.

    Reference: Hsu, Niroula, He, Brugere, Lecue, Chen, "The Unseen Threat: Residual Knowledge in Machine Unlearning
    under Perturbed Samples", NeurIPS 2025, arXiv 2601.22359, section 4.2 and appendix B. Differs in nothing known.
    Where the paper contradicts itself: epochs is 2 as in the text (an ablation table says 1); the update descends, as
    its SGD does (Algorithm 1 prints an ascent); "cap the iterations at 200" is read as the period of the cosine
    (steps=200 is the hard stop).
    """

    title = "RURK"
    strength = Strength(("lambda_f", "lambda_a"))

    tau: NonNegative = 0.03
    lambda_f: NonNegative = 0.03
    lambda_a: NonNegative = 0.03
    v: Count = 1
    attack: Literal["gaussian", "fgsm", "pgd"] = "gaussian"
    pgd_steps: Count = 10
    pgd_step: NonNegative = 2 / 255
    fit: Fit = Fit(lr=1e-2, weight_decay=5e-4, clip=1.0, schedule="cosine", period=200, epochs=2)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, with forget cycling beside it."""
        request, task, generator = job.request, job.task, job.generator

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            retain = task.rows(model, batches["retain"]).losses().mean()
            forget = task.rows(model, batches["forget"])
            passes, times = (self.v, 1) if task.rows_depend_on_batch else (1, self.v)
            copies = repeat(batches["forget"], times)
            terms = [self._term(model, task, copies, forget, generator) for _ in range(passes)]
            return retain - self.lambda_f * forget.losses().mean() + self.lambda_a * torch.stack(terms).mean()

        return [Phase(loss, {"retain": request.retain, "forget": request.forget}, self.fit)]

    def _term(self, model: nn.Module, task: Task, copies: Batch, forget: Rows, generator: torch.Generator) -> Tensor:
        """Computes the term of perturbed copies: minus their loss, or their loss under other classes."""
        if self.attack == "gaussian":
            perturbed = task.rows(model, gaussian(task, copies, self.tau, generator))
            return -nll(perturbed.logits, perturbed.targets).mean()
        truth = forget.targets.repeat_interleave(batch_size(copies) // forget.examples)
        classes = other_classes(truth, forget.logits.shape[1], generator)
        walk = Walk(self.tau, self.pgd_step, self.pgd_steps, targets=classes)
        with mode(model, training=False):  # so that BatchNorm's statistics stay as they are
            if self.attack == "fgsm":
                crafted = fgsm(model, task, copies, radius=self.tau, targets=classes)
            else:
                crafted = pgd(model, task, copies, walk, generator)
        return nll(task.rows(model, crafted).logits, classes).mean()
