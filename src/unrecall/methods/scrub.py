"""SCRUB: a student that leaves its teacher on forget and stays with it on retain."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, phase_over
from unrecall.spec.parameters import Count, Index, NonNegative, Positive
from unrecall.training.teacher import distance, remembered


@dataclass(frozen=True)
class SCRUB(GradientMethod):
    """Disobeys the original on forget, then obeys it on retain, in turns.

        D(X) = T^2 KL( softmax(z_original(X) / T) || softmax(z_student(X) / T) )
        max-step:  L = -D(X_f)                                a pass over forget, in the first `max_epochs` epochs
        min-step:  L = alpha D(X_r) + gamma CE(X_r, Y_r)      a pass over retain, in every epoch

    The teacher is P, the student Q, and T^2 keeps gradients at one scale whatever T is. The teacher answers once, in
    eval mode, so its logits do not depend on the batch. Each pass has an optimiser of its own: momentum starts anew,
    and the rate of `fit` and its schedule are those of each pass.

    Args:
        alpha: weight of staying with the teacher on retain.
        gamma: weight of the retain loss (the paper: 1 on small CIFAR-5, 0.6 on CIFAR-10, 75 for a class of CIFAR-10).
        max_epochs: epochs that begin with a pass over forget; the authors' "msteps".
        temperature: T, above 0.
        forget_batch: examples of forget per max-step.
        fit: of both steps; SGD, lr 5e-4, momentum 0.9, weight decay 5e-4, 3 epochs; retain in batches of 128.

    Expected to fail: where the student starts out equal to its teacher (no BatchNorm in train mode, no dropout) the KL
    is at its minimum, its gradient 0, and ascent can't begin before a min-step has moved the student. Forget examples
    end up with *less* confidence than in a retrained model, unless passes are stopped in time.

    Reference: Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023,
    arXiv 2302.09880; rate, alpha and gamma as in Hsu et al., "The Unseen Threat", NeurIPS 2025, arXiv 2601.22359,
    appendix B.3; max_epochs, epochs and T from the authors' large-scale setting. Differs from the paper in not
    rewinding to an earlier checkpoint (SCRUB+R); from the authors' code, which keeps one optimiser, momentum included,
    over max- and min-steps and lowers its rate between epochs, in a new optimiser each pass at a constant rate.
    """

    title = "SCRUB"
    strength = Strength(("fit.lr",))

    alpha: NonNegative = 0.001
    gamma: NonNegative = 1.0
    max_epochs: Index = 2
    temperature: Positive = 4.0
    forget_batch: Count = 64
    fit: Fit = Fit(lr=5e-4, weight_decay=5e-4, epochs=3)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes, for each epoch, a phase over forget (in the first `max_epochs`) and one over retain."""
        request, task = job.request, job.task
        on_forget = remembered(original, task, request.forget)
        on_retain = remembered(original, task, request.retain)

        def apart(rows: Rows, teacher: Tensor) -> Tensor:
            return self.temperature**2 * distance(rows, teacher, self.temperature)

        def leave(rows: Rows, batch: Batch) -> Tensor:
            return -apart(rows, on_forget(batch))

        def stay(rows: Rows, batch: Batch) -> Tensor:
            return self.alpha * apart(rows, on_retain(batch)) + self.gamma * rows.losses().mean()

        once = replace(self.fit, epochs=1)
        minimum = phase_over("retain", job, once, stay)
        maximum = phase_over("forget", job, replace(once, batch_size=self.forget_batch), leave)
        early = min(self.max_epochs, self.fit.epochs)
        return [maximum, minimum] * early + [minimum] * (self.fit.epochs - early)
