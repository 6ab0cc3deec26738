"""Training anew on retain: what every other method is held against."""

from dataclasses import dataclass

from torch import nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, phase_over
from unrecall.training.fresh import reinitialise


@dataclass(frozen=True)
class Retrain(GradientMethod):
    """Throws every weight away and trains from scratch on retain: exact unlearning, at the price of a training run.

        theta ~ initialisation,   L = CE(retain)

    Every layer draws its weights anew by its own `reset_parameters`; parameters that were frozen are trained too, for
    fresh weights that stay frozen would be noise. The recipe is a generic one for small classifiers; a scenario's own
    references use the scenario's recipe, and only those are trained like the original.

    Args:
        fit: SGD, lr 0.1 falling as a cosine, momentum 0.9, weight decay 5e-4, 30 epochs over retain, batches of 128.

    Expected to fail: to forget, never; to be as useful as the original wherever the recipe does not fit the model, or
    where the original stood on pre-trained weights, which are gone here.

    Reference: the baseline "Re-train" of Hsu et al., "The Unseen Threat: Residual Knowledge in Machine Unlearning under
    Perturbed Samples", NeurIPS 2025, arXiv 2601.22359. Differs from the paper in the recipe: there 137 epochs at lr
    0.01 on CIFAR-10, and on small CIFAR-5 a start from weights pre-trained on all of CIFAR-10.
    """

    title = "Retrain"
    has_null = False

    fit: Fit = Fit(lr=0.1, weight_decay=5e-4, schedule="cosine", epochs=30)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, on fresh weights."""
        reinitialise(student, job.generator)
        student.requires_grad_(True)
        return [phase_over("retain", job, self.fit)]
