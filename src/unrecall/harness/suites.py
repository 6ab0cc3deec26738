"""Which attacks an audit runs, for each modality; a user's own list takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unrecall import attacks as known
from unrecall.attacks.base import Attack
from unrecall.tasks.base import Modality, Task
from unrecall.training.loop import Fit

RELEARN = Fit(optimizer="adamw", batch_size=8, weight_decay=0.0)
RATES = (1e-5, 1e-4, 1e-3)
COMPARED = Fit(optimizer="adamw", batch_size=32, weight_decay=0.0)
"""A pair is learned by being told from the others of its batch, so that small batches teach little."""
MOVING = Fit(batch_size=32, weight_decay=0.0)
"""What is like retain may move BatchNorm's statistics; a handful of one class would only destroy them."""


@dataclass(frozen=True)
class Audit:
    """The attacks of an audit, in the order in which they are run and shown.

    `attacks`: these, whatever the modality. `by_modality`: in their place where `attacks` is empty.
    """

    attacks: tuple[Attack, ...] = ()
    by_modality: Mapping[Modality, tuple[Attack, ...]] = field(default_factory=dict)

    def of(self, task: Task) -> tuple[Attack, ...]:
        """The attacks for a task."""
        return self.attacks or self.by_modality.get(task.modality, ())

    @staticmethod
    def standard() -> Audit:
        """The attacks that need nothing but the models, at their papers' settings; the others are run by name."""
        return Audit(
            by_modality={"classification": _CLASSIFICATION, "language": _LANGUAGE, "contrastive": _CONTRASTIVE}
        )

    @staticmethod
    def quick() -> Audit:
        """One attack of each kind, at a fraction of the budget; for trying things out, not for a claim."""
        return Audit(
            by_modality={
                "classification": _QUICK_CLASSIFICATION,
                "language": _QUICK_LANGUAGE,
                "contrastive": _QUICK_CONTRASTIVE,
            }
        )


_CLASSIFICATION = (
    known.Recalibration(),
    known.ResidualKnowledge(),
    known.Relearn(),
    known.Relearn(data="benign", fit=MOVING),
    known.RelearnTime(),
    known.Prototypical(),
    known.ReaClass(),
    known.LinearProbe(),
    known.UMA(),
    known.CKA(),
    known.CKA(beside="retrained"),
    known.Loss(),
    known.SVC(),
    known.Lira(),
    known.RMIA(),
)
_QUICK_CLASSIFICATION = (
    known.Recalibration(counts=(128,)),
    known.ResidualKnowledge(points=3, draws=20),
    known.Relearn(steps=(1, 4, 16), learning_rates=(1e-2,)),
    known.Prototypical(ks=(5,)),
    known.Loss(),
    known.RMIA(),
)
_LANGUAGE = (
    known.Relearn(learning_rates=RATES, fit=RELEARN),
    known.Relearn(share=0.1, learning_rates=RATES, fit=RELEARN),
    known.Relearn(data="benign", learning_rates=RATES, fit=RELEARN),
    known.Quantise(),
    known.Prefix(),
    known.Paraphrase(),
    known.Attribution(),
    known.LogitLens(),
    known.Loss(),
    known.ZlibRatio(),
    known.MinK(),
    known.MinKPlusPlus(),
    known.ReferenceModel(),
    known.GradNorm(),
    known.Lira(),
    known.RMIA(),
    known.REMIND(),
)
_QUICK_LANGUAGE = (
    known.Relearn(steps=(1, 4, 16), learning_rates=(1e-4,), fit=RELEARN),
    known.Quantise(bits=(4,)),
    known.Attribution(),
    known.Loss(),
    known.MinKPlusPlus(),
)
_CONTRASTIVE = (
    known.Relearn(learning_rates=RATES, fit=COMPARED),
    known.Relearn(data="benign", learning_rates=RATES, fit=COMPARED),
    known.Quantise(),
    known.ResidualKnowledge(),
    known.LinearProbe(),
    known.UMA(),
    known.CKA(),
    known.CKA(beside="retrained"),
    known.Loss(),
    known.SVC(),
    known.Lira(),
    known.RMIA(),
)
_QUICK_CONTRASTIVE = (
    known.Relearn(steps=(1, 4, 16), learning_rates=(1e-4, 1e-3), fit=COMPARED),
    known.Quantise(bits=(4,)),
    known.ResidualKnowledge(points=3, draws=20),
    known.LinearProbe(ks=(5,)),
    known.CKA(most=100),
    known.Loss(),
    known.RMIA(),
)
