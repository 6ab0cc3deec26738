"""All attacks, and what each kind promises; the file's stem is the name on the command line."""

from unrecall.attacks.attribution import Attribution
from unrecall.attacks.base import (
    Attack,
    Attacked,
    MembershipAttack,
    RecoveryAttack,
    ScoredAttack,
    Success,
)
from unrecall.attacks.cka import CKA
from unrecall.attacks.deletion import DeletionAttack
from unrecall.attacks.grad_norm import GradNorm
from unrecall.attacks.indirect import Indirect
from unrecall.attacks.inspection import Inspection, InspectionAttack
from unrecall.attacks.linear_probe import LinearProbe
from unrecall.attacks.lira import Lira
from unrecall.attacks.logit_lens import LogitLens
from unrecall.attacks.loss import Loss
from unrecall.attacks.min_k import MinK
from unrecall.attacks.min_k_plus_plus import MinKPlusPlus
from unrecall.attacks.paraphrase import Paraphrase
from unrecall.attacks.prefix import Prefix
from unrecall.attacks.prototypical import Prototypical
from unrecall.attacks.quantise import Quantise
from unrecall.attacks.rea_class import ReaClass
from unrecall.attacks.rea_sample import ReaSample
from unrecall.attacks.recalibration import Recalibration
from unrecall.attacks.reference_model import ReferenceModel
from unrecall.attacks.relearn import Relearn
from unrecall.attacks.relearn_time import RelearnTime
from unrecall.attacks.remind import REMIND
from unrecall.attacks.residual_knowledge import ResidualKnowledge
from unrecall.attacks.rmia import RMIA
from unrecall.attacks.svc import SVC
from unrecall.attacks.uma import UMA
from unrecall.attacks.zlib_ratio import ZlibRatio

__all__ = [
    "CKA",
    "REMIND",
    "RMIA",
    "SVC",
    "UMA",
    "Attack",
    "Attacked",
    "Attribution",
    "DeletionAttack",
    "GradNorm",
    "Indirect",
    "Inspection",
    "InspectionAttack",
    "LinearProbe",
    "Lira",
    "LogitLens",
    "Loss",
    "MembershipAttack",
    "MinK",
    "MinKPlusPlus",
    "Paraphrase",
    "Prefix",
    "Prototypical",
    "Quantise",
    "ReaClass",
    "ReaSample",
    "Recalibration",
    "RecoveryAttack",
    "ReferenceModel",
    "Relearn",
    "RelearnTime",
    "ResidualKnowledge",
    "ScoredAttack",
    "Success",
    "ZlibRatio",
]
