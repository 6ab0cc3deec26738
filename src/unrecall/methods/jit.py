"""JiT: makes a model insensitive around what must go, with nothing but the model and those examples."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrecall.methods.base import Batch, Batches, Fit, GradientMethod, Job, Phase, Strength, Task
from unrecall.models.perturb import gaussian
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.protocols import check_own_rows, perturbable

NO_DISTANCE = 1e-6
"""What a shorter change of an input counts as."""


@dataclass(frozen=True)
class JiT(GradientMethod):
    """Lowers the local Lipschitz constant at each forget example: what it says there hardly depends on the input.

        L = (1/n) sum_j sum_i ||f(x_i) - f(x_ij)||_2 / ||x_i - x_ij||_2,    x_ij = clamp(x_i + sigma N(0, I))

    f are logits; f(x_ij) counts as a constant, so that f(x_i) is drawn to what the model says nearby. The sum runs over
    a batch of forget. No retain data, and no labels. All passes go through the model in train mode.

    Args:
        samples: n, noisy copies of each example.
        sigma: deviation of the noise, as a share of the width of the task's bounds. The paper's VGG: 0.5 for a class
            and 0.01 for random samples, of inputs normalised by a deviation of 0.27: 0.13 and 0.0027 of the width.
        fit: plain SGD, lr 3e-4 without momentum or weight decay, batch 128, 1 pass over forget.

    Expected to fail: where it is tuned wrongly, for nothing stops it and nothing holds retain: flat around forget is
    flat around whatever is near. A rate that forgets in one model does nothing, or wrecks all, in another (the paper
    has 3e-4 for VGG and 1.5 for a ViT). NotSupported on tasks without continuous inputs, and where rows depend on the
    other examples of a batch.

    Reference: Foster et al., "An Information Theoretic Approach to Machine Unlearning", arXiv 2402.01401 (first named
    "Zero-Shot Machine Unlearning at Scale via Lipschitz Regularization"), from its code. Differs from the code in
    clamping to the task's bounds (there to the range of the batch), and in starting each step from a gradient of 0,
    where the code adds up those of all batches before it.
    """

    title = "JiT"
    strength = Strength(("fit.lr",), high=2**10)

    samples: Count = 25
    sigma: Positive = 0.13
    fit: Fit = Fit(lr=3e-4, momentum=0.0, weight_decay=0.0)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget."""
        task = job.task
        perturbable(task)
        check_own_rows(self, task, "Choose another method.")

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            batch = batches["forget"]
            logits = task.rows(model, batch).logits
            noisy = (gaussian(task, batch, self.sigma, job.generator) for _ in range(self.samples))
            return torch.stack([steepness(model, task, (batch, logits), copies).sum() for copies in noisy]).mean()

        return [Phase(loss, {"forget": job.request.forget}, self.fit, whole=True)]


def steepness(model: nn.Module, task: Task, clean: tuple[Batch, Tensor], copies: Batch) -> Tensor:
    """Computes ||f(x) - f(x')|| / ||x - x'|| of each example `[examples]`, f(x') a constant.

    `clean`: the examples, and their logits. `copies`: the same examples with other inputs.
    """
    able, (batch, logits) = perturbable(task), clean
    with torch.no_grad():
        rows = task.rows(model, copies)
    apart: Tensor = torch.linalg.vector_norm(logits - rows.logits, dim=1)
    moved: Tensor = torch.linalg.vector_norm((able.inputs(batch) - able.inputs(copies)).flatten(1), dim=1)
    return rows.per_example(apart) / moved.clamp_min(NO_DISTANCE)
