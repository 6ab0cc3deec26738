"""The fixed suite: which attacks judge a model without retrained ones, how long they run, and at what rate.

All of it is settled before any model is looked at: a suite that is chosen by what it finds in the original knows the
arms, and then calls retrained models leaks.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from unrecall import attacks
from unrecall.attacks.base import RecoveryAttack
from unrecall.data.request import Request
from unrecall.harness.mixed_arms import mix_arms
from unrecall.record.never_trained import TAUGHT_STEPS
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classifying, Textual, offers
from unrecall.training.loop import Fit

GENTLE = Fit(batch_size=64, momentum=0.9, weight_decay=0.0, batchnorm="frozen", clip=5.0)
GENTLE_TEXT = Fit(optimizer="adamw", batch_size=16, weight_decay=0.0, clip=5.0)
RATE, RATE_TEXT = 0.02, 1e-3
UNTIL = 0.5
"""Relearning stops once this part of its pool's excess loss is gone."""
LARGE, RANK = 300_000_000, 16
"""Weights from which on a language model is fine-tuned by a low-rank change of that rank, at the same rate."""


class FixedAttack(NamedTuple):
    """An attack of the fixed suite. `attack` None: the model is looked at as it is. `taught`: from both arms alike."""

    name: str
    title: str
    attack: RecoveryAttack | None = None
    taught: bool = False

    @property
    def steps(self) -> tuple[int, ...]:
        """After how many steps of fine-tuning it may end, the fewest first; none where it takes none."""
        return tuple(sorted(self.attack.steps)) if isinstance(self.attack, attacks.Relearn) else ()


def fixed_suite(task: Task, *, rate: float | None = None, large: bool = False) -> tuple[FixedAttack, ...]:
    """The attacks for a task, in order.

    `rate`: of fine-tuning; by default 0.02 with SGD, which is two fifths of what small classifiers are trained at, and
    0.001 with AdamW for texts. `large`: a language model's weights are held while it is fine-tuned, and a low-rank
    change is trained.
    """
    textual = offers(task, Textual)
    rate = (RATE_TEXT if textual else RATE) if rate is None else rate
    if textual:
        rank = RANK if large else 0
        return (
            FixedAttack("as_it_is", "As it is"),
            FixedAttack("quantise", "Rounding to 4 bits", attacks.Quantise(bits=(4,))),
            *(_benign(count, rate, GENTLE_TEXT, rank) for count in (15, 120)),
            _symmetric(rate, GENTLE_TEXT, rank),
        )
    of_classifiers = (
        FixedAttack("recalibration", "BatchNorm recalibration", attacks.Recalibration(counts=(2048,))),
        FixedAttack("head_refit", "Refit of the head on retain", attacks.HeadRefit(counts=(10_000,))),
    )
    return (
        FixedAttack("as_it_is", "As it is"),
        *(of_classifiers if offers(task, Classifying) else ()),
        _benign(20, rate, GENTLE),
        _symmetric(rate, GENTLE),
    )


def is_large(model: nn.Module) -> bool:
    """Whether a model, if of language, is fine-tuned by a low-rank change."""
    return sum(p.numel() for p in model.parameters()) > LARGE


def _benign(steps: int, rate: float, recipe: Fit, rank: int = 0) -> FixedAttack:
    attack = attacks.Relearn(data="benign", steps=(steps,), learning_rates=(rate,), fit=recipe, rank=rank)
    return FixedAttack(f"benign_{steps}", f"Fine-tuning on retain, {steps} steps", attack)


def _symmetric(rate: float, recipe: Fit, rank: int = 0) -> FixedAttack:
    attack = attacks.Relearn(
        dose="both", steps=TAUGHT_STEPS, until=UNTIL, learning_rates=(rate,), fit=recipe, rank=rank
    )
    title = f"Teaching it forgotten and never-trained records alike, at most {TAUGHT_STEPS[-1]} steps"
    return FixedAttack("symmetric", title, attack, taught=True)


def steps_taken(suite: Sequence[FixedAttack], request: Request) -> tuple[int, int]:
    """How many steps of fine-tuning the suite takes of a model, at least and at most."""
    halves = 2 if mix_arms(request, 0).crossed else 1  # each of which is taught to a copy of its own
    fewest, most = (
        sum(fixed.steps[end] * (halves if fixed.taught else 1) for fixed in suite if fixed.steps) for end in (0, -1)
    )
    return fewest, most
