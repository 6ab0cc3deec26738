"""NegGrad+: gradient ascent on forget, held by descent on retain."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from unrecall.methods.base import Fit, GradientMethod, Job, Phase, Strength, loss_on
from unrecall.spec.parameters import NonNegative
from unrecall.training.terms import Terms, weighted


@dataclass(frozen=True)
class NegGradPlus(GradientMethod):
    """Goes down the loss of retain and, more slowly, up the loss of forget.

        rurk:   L = CE(retain) - beta CE(forget)
        scrub:  L = alpha CE(retain) - (1 - alpha) CE(forget),  alpha = 1 / (1 + beta)

    Both weigh forget against retain by beta; scrub also shrinks the whole loss, and its authors' alpha of 0.95 is a
    beta of 1/19. One forget batch is drawn per retain batch; the two go through the model in separate passes.

    Args:
        beta: weight of the forget loss relative to the retain loss; the paper: 0.001.
        form: "rurk" by default.
        fit: SGD, lr 1e-2, momentum 0.9, weight decay 1e-4, clip 1, 1 epoch over retain (3 for a whole class).

    Expected to fail: at a beta this small it is fine-tuning; at a larger one the forget loss has no upper bound and
    takes over, and beta has to be set for each model.

    Reference: Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023,
    arXiv 2302.09880; defaults of Hsu et al., "The Unseen Threat", NeurIPS 2025, arXiv 2601.22359, appendix B.3. Differs
    from the paper in nothing known; Hsu et al. do not say whether the retain term carries (1 - beta), which at 0.001
    makes no difference.
    """

    title = "NegGrad+"
    strength = Strength(("beta",), high=2**10)

    beta: NonNegative = 0.001
    form: Literal["rurk", "scrub"] = "rurk"
    fit: Fit = Fit(lr=1e-2, weight_decay=1e-4, clip=1.0, epochs=1)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over retain, with forget cycling beside it."""
        request = job.request
        on_retain, on_forget = loss_on("retain", job.task), loss_on("forget", job.task)
        share = 1.0 if self.form == "rurk" else 1 / (1 + self.beta)
        loss = Terms({"retain": weighted(share, on_retain), "forget": weighted(-share * self.beta, on_forget)})
        return [Phase(loss, {"retain": request.retain, "forget": request.forget}, self.fit)]
