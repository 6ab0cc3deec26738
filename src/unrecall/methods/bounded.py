"""A bound on retain: another method's training, which ends as soon as it has changed what should stay too much."""

from dataclasses import dataclass, replace

from torch import nn

from unrecall.methods.base import Around, GradientMethod, Job, Phase, Plugin
from unrecall.methods.npo import NPO
from unrecall.spec.parameters import Positive
from unrecall.training.disruption import disruption
from unrecall.training.loop import StepState

SPENT = "bounded: KL on retain, nats"
"""Under which name a record holds the median over the looks at it."""


@dataclass(frozen=True)
class Bounded(Plugin):
    """Ends each phase over forget at the first look at which KL(p_0 || p) on retain is above a bound.

    So that methods can be compared at the same damage. It looks after each epoch and every `fit.check_every` steps of
    the base, at 512 examples of retain, evenly spread, in eval mode; KL is a mean over an example's rows, then over
    examples. What ends it is a little above the bound: as much as the last steps added. Where the bound is
    never reached it is the base.

    Args:
        base: the method that is ended; NPO by default.
        kl: the bound, in nats.

    Expected to fail: where one epoch, or `fit.check_every` steps, move it by many times the bound.

    Reference: the rule by which Sondej, Yang, Mahdi, "RepSelect: Robust LLM Unlearning via Representation Selectivity",
    arXiv 2606.17168, stop all methods that they compare, from their code. Differs from the code in the data, Wikitext
    there and retain here.
    """

    title = "Bounded on retain"

    base: GradientMethod = NPO()
    kl: Positive = 0.01

    def touches(self, phase: Phase) -> bool:
        """Says that phases over forget are ended, and no others."""
        return "forget" in phase.streams

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Gives each phase a rule to end by, beside its own."""
        spent = disruption(original, job)

        def ending(phase: Phase) -> Phase:
            def ends(current: StepState) -> bool:
                value = spent(current.model)
                current.notes.setdefault(SPENT, []).append(value)
                return value > self.kl or (phase.ends is not None and phase.ends(current))

            return replace(phase, ends=ends)

        return ending
