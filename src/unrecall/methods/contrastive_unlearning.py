"""Contrastive Unlearning: moves what forget looks like to other classes, measured against retain."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength, classified
from unrecall.models.observe import in_order
from unrecall.nn.functional import contrastive_forgetting
from unrecall.spec.parameters import Count, NonNegative, Positive


@dataclass(frozen=True)
class ContrastiveUnlearning(GradientMethod):
    """Pulls each forget example's features to retain of other classes, and pushes them from retain of its own class.

        L_UL = -mean_u( (1/|P(u)|) sum_{p in P(u)} [ z_u.z_p / tau - log sum_{n in N(u)} exp(z_u.z_n / tau) ] )
        L    = lambda_ul L_UL + lambda_ce CE(retain)

    u are the forget batch's examples; P(u) those of the retain batch of other classes, N(u) those of u's class. Without
    N(u), as where a whole class is forgotten, there is no logarithm; without P(u), no term. z are the features that
    enter the model's own head, scaled to length 1. BatchNorm is frozen: forget and retain pass one after the other, and
    features that are normalised by different batches can't be compared. A class that is forgotten whole stops, unless
    `fit.until` says otherwise, where forget accuracy is at most 1 / classes. For samples the paper stops at the
    accuracy on unseen data, which no method sees, and retain's is no stand-in, for both start high: set `fit.until`.
    For a task whose rows are no classes but whose examples have some, L_UL is that of zero-shot classification, the
    retain loss the task's own, and nothing stops by itself.

    Args:
        temperature: tau.
        lambda_ul: weight of L_UL.
        lambda_ce: weight of the retain loss.
        omega: retain batches that a forget example meets in an epoch, in as many passes over forget.
        fit: SGD, lr 1e-3, momentum 0.9, no weight decay, batch 64, 3 epochs of `omega` passes over forget.

    Expected to fail: without classes (NotSupported). Where a retain batch holds nothing of an example's class, the
    example is only pulled; on many classes and random samples that is the rule. Layers before the features are reached
    only through them.

    Reference: Lee, Zhang, Yang, Lou, Xiong, "Contrastive Unlearning: A Contrastive Approach to Machine Unlearning",
    IJCAI 2025, arXiv 2401.10458, defaults from the official code, whose batch is 128. Differs from the code in z, there
    what a projection head gives out that the model was trained with and that its classifier reads; in the retain
    batches, of which a forget batch meets `omega` in a row there; in BatchNorm, as forget and retain pass together
    there; in the logarithm's weight, |P(u) + N(u)| / |P(u)| there; in an empty N(u) of samples, for which it has no
    guard; and in the stop for a class, which looks at unseen examples of it there.
    """

    title = "Contrastive unlearning"
    strength = Strength(("fit.lr",))

    temperature: Positive = 0.7
    lambda_ul: NonNegative = 3.0
    lambda_ce: NonNegative = 1.0
    omega: Count = 4
    fit: Fit = Fit(lr=1e-3, weight_decay=0.0, epochs=3, batch_size=64, batchnorm="frozen")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, `omega` times as long as `fit` says, with retain cycling beside it."""
        request, task = job.request, job.task
        classed = classified(task, "ContrastiveUnlearning")

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            forget, retain = (classed.view(model, batches[split]) for split in ("forget", "retain"))
            contrast = contrastive_forgetting(
                forget.features, forget.rows.targets, retain.features, retain.rows.targets, self.temperature
            )
            retain_rows = retain.rows if classed is task else task.rows(model, batches["retain"])
            return self.lambda_ul * contrast + self.lambda_ce * retain_rows.losses().mean()

        fit = replace(self.fit, epochs=self.fit.epochs * self.omega)
        if request.kind == "class" and fit.until is None and classed is task:
            with torch.no_grad():
                rows = task.rows(original, next(in_order(original, task, request.forget, 1)))
            fit = replace(fit, until=1 / rows.logits.shape[1])
        return [Phase(loss, {"forget": request.forget, "retain": request.retain}, fit, whole=True)]
