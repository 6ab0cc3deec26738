"""DELETE: distillation from the original with the forgotten classes masked out."""

from dataclasses import dataclass

from torch import Tensor, nn

from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, phase_over
from unrecall.training.teacher import masked_distance, remembered


@dataclass(frozen=True)
class Delete(GradientMethod):
    """On forget, answers as the original would if the forgotten classes did not exist; sees no retain data.

        L = KL(mask(p(x)) || q(x)) over forget,   p the original's softmax, q the student's
        mask(p)_k = p_k / sum_{j not masked} p_j where k is not masked, 0 where it is

    All of `request.masked` is masked; where it is empty (samples), each row's own target is.

    Args:
        fit: SGD, lr 1e-4, momentum 0.9, weight decay 5e-4, batch 128, 10 epochs over forget, BatchNorm frozen.

    Expected to fail: for samples, it forbids an answer that the retrained model often still gives, and over-forgets;
    nothing but the original's ranking of the other classes protects retain.

    Reference: Zhou, Zheng, Mo, Lu, Lin, Zheng, "Decoupled Distillation to Erase: A General Unlearning Method for Any
    Class-centric Tasks", CVPR 2025, arXiv 2503.23751. Differs from the paper in the fit: its own was not found, so
    the one that Spotter's code uses with this loss stands in. Where request.masked names several classes, all are
    masked in every row, as in Spotter's code.
    """

    title = "DELETE"
    strength = Strength(("fit.lr",))

    fit: Fit = Fit(lr=1e-4, weight_decay=5e-4, epochs=10, batchnorm="frozen")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget; the teacher's outputs are computed once."""
        teacher = remembered(original, job.task, job.request.forget)

        def loss(rows: Rows, batch: Batch) -> Tensor:
            return masked_distance(rows, teacher(batch), job.request.masked)

        return [phase_over("forget", job, self.fit, loss)]
