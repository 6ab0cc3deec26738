"""Re-learn time: how many epochs on the forget set until the model knows it as well as the original did."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack, ScoreReading
from unrecall.data.request import Request
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import mean_loss
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Positive
from unrecall.training.copies import copies
from unrecall.training.loop import Fit, Phase, epoch_steps, loss_on


@dataclass(frozen=True)
class RelearnTime(RecoveryAttack):
    """Fine-tunes a copy on the whole forget set; the fewer epochs it takes, the less was forgotten.

        T = min {e: CE(model after e epochs, forget) <= factor * CE(original, forget)},  "more than" where never

    It stops at T. The probe is the forget set itself, the very examples trained on: this measures how fast memory
    returns, and by no means whether other examples come back with it.

    Args:
        factor: how close to the original's loss counts as re-learned; the paper: 1.05.
        fit: the recipe; `epochs` is where the search ends (the paper: 30).
        dose: "forget", as in the paper, or "both": forget and holdout alike.

    Expected to fail: an original that was trained to a loss near 0 sets a threshold that takes many epochs to reach,
    also for a model that forgot nothing but has drifted a little.

    Reference: Hsu, Niroula, He, Brugere, Lecue, Chen, "The Unseen Threat: Residual Knowledge in Machine Unlearning
    under Perturbed Samples", NeurIPS 2025, arXiv 2601.22359, section 5. The paper doesn't give its optimiser; ours is
    that of its RURK: SGD 1e-2, momentum 0.9, weight decay 5e-4, batch 128.
    """

    title: ClassVar[str] = "Re-learn time"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: trains a copy",
        data="the whole forget set with labels",
        budget="epochs over the forget set, 30 at most",
    )
    axis: ClassVar[str] = "epochs over forget"
    reading: ClassVar[ScoreReading] = "time"
    retested: ClassVar[bool] = True

    factor: Positive = 1.05
    fit: Fit = Fit(lr=1e-2, weight_decay=5e-4, epochs=30)
    dose: Dose = "forget"

    def teaches(self, n: int, request: Request) -> int:
        """With all of them."""
        return n

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The copy after each epoch, until it has re-learned; at least one epoch."""
        task = setting.task
        threshold = self.factor * mean_loss(setting.models.original, task, pool.taught)
        phase = Phase(loss_on("forget", task), {"forget": pool.taught}, self.fit)
        per_epoch = epoch_steps(phase)
        for steps, student in copies(model, task, phase, pool.generator(), setting.session.named("relearn_time")):
            if steps % per_epoch == 0:
                yield Attacked(steps // per_epoch, student, pool.tested)
                if mean_loss(student, task, pool.taught) <= threshold:
                    return
