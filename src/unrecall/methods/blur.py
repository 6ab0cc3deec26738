"""BLUR: another method's two losses, of which retain's comes first and forget's takes the rest."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unrecall.methods.base import Around, GradientMethod, Job, Phase, Plugin
from unrecall.methods.npo import NPO
from unrecall.spec.parameters import NonNegative
from unrecall.training.loop import StepState, plain_step
from unrecall.training.terms import Gradients, Terms, added, check_own_loss, move_along, product, slope


@dataclass(frozen=True)
class BLUR(Plugin):
    """Steps along retain's gradient without its part along forget's, and along forget's with a weight of its own.

        g = g_r + xi g_f,   xi = gamma - <g_r, g_f> / |g_f|^2;    so that <g, g_f> = gamma |g_f|^2 at every step

    g_f and g_r are the gradients of the base's two losses, each with the base's weight, over all weights together; the
    optimiser then moves along g. However retain pulls, a step along g lowers the loss of forget at first order as it
    would alone, gamma times as fast. Where g_f is 0, g is g_r. Costs one more copy of the gradients.

    Args:
        base: a method that minimises one loss of forget beside one of retain, with plain steps; NPO by default.
        gamma: the weight of forget's gradient; at 0 only what doesn't change the loss of forget is repaired.

    Expected to fail: where g_f all but vanishes, xi is decided by rounding; where both gradients are nearly parallel,
    retain is repaired in what little is left. Like its base it may leave the answer in the weights.

    Reference: Reisizadeh, Jia, Bu, Vinzamuri, Ramakrishna, Chang, Cevher, Liu, Hong, "BLUR: A Bi-Level Optimization
    Approach for LLM Unlearning", arXiv 2506.08164, from the authors' code (BLUR-NPO). Differs from the code in the
    base's fit, which is NPO's here but for the rate of 2.5e-5, and where gradients are accumulated: it projects with
    those of the last part alone.
    """

    title = "BLUR"
    wanted = "takes plain steps on a loss of forget beside one of retain"
    advice = "Choose npo, simnpo, grad_diff, random_label or another with both, and weights above 0."

    base: GradientMethod = NPO(fit=replace(NPO.fit, lr=2.5e-5))
    gamma: NonNegative = 1.0

    def touches(self, phase: Phase) -> bool:
        """Says that phases with both losses and plain steps are changed."""
        return (
            phase.step is plain_step and isinstance(phase.loss, Terms) and {*phase.loss.terms} == {"forget", "retain"}
        )

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Gives each phase a step along the deflected gradient."""

        def deflected(phase: Phase) -> Phase:
            loss = phase.loss

            def step(current: StepState) -> Tensor:
                check_own_loss("BLUR", current, phase)
                assert isinstance(loss, Terms)
                forget, retain = (slope(current, loss.terms[name], name) for name in ("forget", "retain"))
                move_along(current, deflect(retain.gradients, forget.gradients, self.gamma))
                return forget.value + retain.value

            return replace(phase, step=step)

        return deflected


def deflect(retain: Gradients, forget: Gradients, gamma: float) -> Gradients:
    """Computes g_r + (gamma - <g_r, g_f> / |g_f|^2) g_f; g_r where g_f is 0."""
    size = product(forget, forget)
    share = product(retain, forget) / size.where(size > 0, 1)
    return added(retain, {p: (gamma - share) * g for p, g in forget.items()})
