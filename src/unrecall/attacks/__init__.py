"""All attacks, and what each kind promises; a file's stem is the name on the command line. `as` makes a name public."""

from typing import NoReturn

from unrecall.attacks.attribution import Attribution as Attribution
from unrecall.attacks.base import Attack as Attack
from unrecall.attacks.base import Attacked as Attacked
from unrecall.attacks.base import MembershipAttack as MembershipAttack
from unrecall.attacks.base import RecoveryAttack as RecoveryAttack
from unrecall.attacks.base import ScoredAttack as ScoredAttack
from unrecall.attacks.base import Success as Success
from unrecall.attacks.cka import CKA as CKA
from unrecall.attacks.cmia import CMIA as CMIA
from unrecall.attacks.deletion import DeletionAttack as DeletionAttack
from unrecall.attacks.few_shot import FewShot as FewShot
from unrecall.attacks.grad_norm import GradNorm as GradNorm
from unrecall.attacks.head_refit import HeadRefit as HeadRefit
from unrecall.attacks.indirect import Indirect as Indirect
from unrecall.attacks.inspection import Inspection as Inspection
from unrecall.attacks.inspection import InspectionAttack as InspectionAttack
from unrecall.attacks.interpolate import Interpolate as Interpolate
from unrecall.attacks.knowledge_holes import KnowledgeHoles as KnowledgeHoles
from unrecall.attacks.leak_at_k import LeakAtK as LeakAtK
from unrecall.attacks.linear_probe import LinearProbe as LinearProbe
from unrecall.attacks.lira import Lira as Lira
from unrecall.attacks.logit_lens import LogitLens as LogitLens
from unrecall.attacks.loss import Loss as Loss
from unrecall.attacks.min_k import MinK as MinK
from unrecall.attacks.min_k_plus_plus import MinKPlusPlus as MinKPlusPlus
from unrecall.attacks.multi_turn import MultiTurn as MultiTurn
from unrecall.attacks.paraphrase import Paraphrase as Paraphrase
from unrecall.attacks.patching import Patching as Patching
from unrecall.attacks.prefix import Prefix as Prefix
from unrecall.attacks.prototypical import Prototypical as Prototypical
from unrecall.attacks.prune import Prune as Prune
from unrecall.attacks.quantise import Quantise as Quantise
from unrecall.attacks.rea_class import ReaClass as ReaClass
from unrecall.attacks.rea_sample import ReaSample as ReaSample
from unrecall.attacks.recalibration import Recalibration as Recalibration
from unrecall.attacks.reference_model import ReferenceModel as ReferenceModel
from unrecall.attacks.relearn import Relearn as Relearn
from unrecall.attacks.relearn_time import RelearnTime as RelearnTime
from unrecall.attacks.remind import REMIND as REMIND
from unrecall.attacks.residual_knowledge import ResidualKnowledge as ResidualKnowledge
from unrecall.attacks.rmia import RMIA as RMIA
from unrecall.attacks.soft_prompt import SoftPrompt as SoftPrompt
from unrecall.attacks.steering import Steering as Steering
from unrecall.attacks.svc import SVC as SVC
from unrecall.attacks.traces import Traces as Traces
from unrecall.attacks.uma import UMA as UMA
from unrecall.attacks.update_inversion import UpdateInversion as UpdateInversion
from unrecall.attacks.weight_distance import WeightDistance as WeightDistance
from unrecall.attacks.weight_noise import WeightNoise as WeightNoise
from unrecall.attacks.zlib_ratio import ZlibRatio as ZlibRatio
from unrecall.spec.catalog import unknown as _unknown


def __getattr__(name: str) -> NoReturn:
    """Names the class that is meant."""
    raise _unknown("attacks", name)
