"""All attacks by what they promise; the file's stem is the name on the command line."""

from unrecall.attacks.base import (
    Attack,
    Attacked,
    MembershipAttack,
    Recognition,
    RecognitionAttack,
    RecoveryAttack,
)

# Tell trained-on from unseen examples, by what one model said about them
from unrecall.attacks.lira import Lira
from unrecall.attacks.loss import Loss

# Bring the forgotten back: by an edit of the head, training, statistics, or a search over inputs
from unrecall.attacks.prototypical import Prototypical
from unrecall.attacks.recalibration import Recalibration
from unrecall.attacks.relearn import Relearn
from unrecall.attacks.relearn_time import RelearnTime

# Count how often perturbed forget examples are still recognised
from unrecall.attacks.residual_knowledge import ResidualKnowledge
from unrecall.attacks.rmia import RMIA
from unrecall.attacks.svc import SVC
from unrecall.attacks.uma import UMA

__all__ = [
    "RMIA",
    "SVC",
    "UMA",
    "Attack",
    "Attacked",
    "Lira",
    "Loss",
    "MembershipAttack",
    "Prototypical",
    "Recalibration",
    "Recognition",
    "RecognitionAttack",
    "RecoveryAttack",
    "Relearn",
    "RelearnTime",
    "ResidualKnowledge",
]
