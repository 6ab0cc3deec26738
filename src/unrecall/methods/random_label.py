"""Random labels on forget, "RL" in the papers' tables; with other classes only, "Amnesiac"."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unrecall.methods.base import (
    Batch,
    Fit,
    GradientMethod,
    Job,
    Phase,
    RetainTerm,
    Rows,
    Strength,
    loss_on,
    with_retain,
)
from unrecall.models.perturb import any_classes, other_classes
from unrecall.spec.parameters import NonNegative


@dataclass(frozen=True)
class RandomLabel(GradientMethod):
    """Teaches forget anew under random labels, beside retain under its true ones.

        L = CE(X_f, Y') + retain_weight CE(X_r, Y_r),   Y' uniform over the classes, drawn anew for each batch

    One forget batch is drawn per retain batch; the two go through the model in separate passes. Where an example has
    many rows, each row draws its own label.

    Args:
        exclude_true: whether Y' must differ from the true label (Amnesiac) or may equal it (as in SalUn's code).
        retain_weight: weight of the retain loss; at 0 retain is not read and an epoch is a pass over forget.
        fit: SGD, lr 0.013, momentum 0.9, weight decay 5e-4, 10 epochs over retain.

    Expected to fail: a retrained model is not uniformly unsure of examples that it never saw. Forgotten ones stand out
    by their high loss, and a label that is only overwritten comes back within a few steps of relearning.

    Reference: Graves, Nagisetty, Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981; as a baseline, and
    its defaults (CIFAR-10, 10 % forgotten), in Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based
    Weight Saliency", ICLR 2024, arXiv 2310.12508. Differs from the paper in drawing both sets at each step, as SalUn's
    objective has it; its code passes once over forget and then once over retain each epoch, so forget is met more
    often here. Amnesiac draws labels once and trains with Adam, lr 1e-4, 3 epochs.
    """

    title = "Random label"
    strength = Strength(("fit.lr",))

    exclude_true: bool = False
    retain_weight: NonNegative = 1.0
    fit: Fit = Fit(lr=0.013, weight_decay=5e-4, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, with forget cycling beside it; over forget alone where retain has no weight."""
        draw = other_classes if self.exclude_true else any_classes

        def wrong(rows: Rows, _: Batch) -> Tensor:
            labels = draw(rows.targets, rows.logits.shape[1], job.generator)
            return replace(rows, targets=labels).losses().mean()

        return with_retain(
            loss_on("forget", job.task, wrong), RetainTerm(self.retain_weight), job, self.fit, leads="retain"
        )
