"""SAM smoothing: another method's forgetting, made to hold in the weights' surroundings too."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unrecall.methods.base import Around, GradientMethod, Job, Phase, Plugin
from unrecall.methods.npo import NPO
from unrecall.nn.hooks import batchnorms, put_back
from unrecall.nn.seeds import reseed
from unrecall.spec.parameters import Positive
from unrecall.training.loop import StepState, plain_step
from unrecall.training.terms import Gradients, added, check_own_loss, move_along, product, slope, terms_of


@dataclass(frozen=True)
class SAM(Plugin):
    """Takes forget's gradient where its loss is highest nearby, so that a few steps of relearning don't undo it.

        e = rho g_f(theta) / |g_f(theta)|,     the step is along  g_f(theta + e) + g_r(theta)

    g_f and g_r are the gradients of the base's losses, each with the base's weight, the norm is over all weights that
    are trained. Of a base that reads no retain there is g_f alone. Weights are put back exactly, and the passes at
    theta + e leave BatchNorm's statistics alone. Costs one more pass over forget, forward and back, and one more copy
    of weights and gradients.

    Args:
        base: a method that takes plain steps on a loss of forget, alone or beside one of retain; NPO by default.
        rho: how far away, in the Euclidean norm of all weights.

    Expected to fail: against more steps of relearning, or larger ones, than rho stands for; where rho is small beside
    the weights' norm it is the base at twice the price.

    Reference: Fan, Jia, Zhang, Ramakrishna, Hong, Liu, "Towards LLM Unlearning Resilient to Relearning Attacks: A
    Sharpness-Aware Minimization Perspective and Beyond", ICML 2025, arXiv 2502.05374, from the authors' code (MUSE,
    NPO). Differs from the code in NPO, which there compares logits, and here the probability of answers; in its fit;
    and in weights that are put back exactly.
    """

    title = "SAM"
    wanted = "takes plain steps on a loss of forget, alone or apart from that of retain"
    advice = "Choose npo, simnpo, grad_diff, grad_ascent, random_label or another such."

    base: GradientMethod = NPO()
    rho: Positive = 0.01

    def touches(self, phase: Phase) -> bool:
        """Says that phases over forget with plain steps are changed, where the loss of forget can be had alone."""
        return phase.step is plain_step and "forget" in phase.streams and "forget" in terms_of(phase).terms

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Gives each phase a step along the gradient from nearby."""

        def smoothed(phase: Phase) -> Phase:
            others = dict(terms_of(phase).terms)
            forget = others.pop("forget")

            def step(current: StepState) -> Tensor:
                check_own_loss("SAM", current, phase)
                seed, state = torch.initial_seed() % 2**32, job.generator.get_state()
                reseed(seed)
                steepest = slope(current, forget, "forget").gradients
                reseed(seed)  # whatever the loss draws, from either generator, both passes draw alike
                job.generator.set_state(state)
                with moved(current.model, steepest, self.rho):
                    value, gradients = slope(current, forget, "forget")
                for name, other in others.items():
                    beside = slope(current, other, name)
                    value = value + beside.value
                    gradients = added(gradients, beside.gradients)
                move_along(current, gradients)
                return value

            return replace(phase, step=step)

        return smoothed


@contextmanager
def moved(model: nn.Module, direction: Gradients, distance: float) -> Iterator[None]:
    """Moves the weights so far in that direction (not at all where it is 0), and puts them back exactly.

    BatchNorm's statistics come back too.
    """
    statistics = [buffer for norm in batchnorms(model) for buffer in norm.buffers()]
    size = product(direction, direction).sqrt()
    with put_back((*direction, *statistics)):
        with torch.no_grad():
            for weight, gradient in direction.items():
                weight.add_(gradient * (distance / size.where(size > 0, 1)))
        yield
