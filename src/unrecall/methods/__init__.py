"""All methods by what they do; the file's stem is the name on the command line."""

from unrecall.methods.bad_teacher import BadTeacher
from unrecall.methods.base import GradientMethod, Method, Plugin, Wrapper
from unrecall.methods.ce_u import CEU
from unrecall.methods.cf_k import CFk
from unrecall.methods.contrastive_unlearning import ContrastiveUnlearning
from unrecall.methods.delete import Delete
from unrecall.methods.dpo import DPO
from unrecall.methods.ec import EC, ECAround
from unrecall.methods.eu_k import EUk
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.l2ul import L2UL
from unrecall.methods.lora import LoRA
from unrecall.methods.mu_mis import MUMis
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.ngd import NGD
from unrecall.methods.npo import NPO
from unrecall.methods.our import OUR
from unrecall.methods.pgu import PGU
from unrecall.methods.random_label import RandomLabel
from unrecall.methods.retrain import Retrain
from unrecall.methods.rmu import RMU
from unrecall.methods.roka import ROKA
from unrecall.methods.rurk import RURK
from unrecall.methods.salun import SalUn
from unrecall.methods.satimp import SatImp
from unrecall.methods.scrub import SCRUB
from unrecall.methods.simnpo import SimNPO
from unrecall.methods.spotter import Spotter, SpotterAround
from unrecall.methods.ssd import SSD
from unrecall.methods.ssiuu import SSIUU
from unrecall.methods.task_vector import TaskVector
from unrecall.methods.ubt import UBT
from unrecall.methods.undial import UNDIAL
from unrecall.methods.wga import WGA
from unrecall.methods.whp import WHP

__all__ = [
    "CEU",
    "DPO",
    "EC",
    "L2UL",
    "NGD",
    "NPO",
    "OUR",
    "PGU",
    "RMU",
    "ROKA",
    "RURK",
    "SCRUB",
    "SSD",
    "SSIUU",
    "UBT",
    "UNDIAL",
    "WGA",
    "WHP",
    "BadTeacher",
    "CFk",
    "ContrastiveUnlearning",
    "Delete",
    "ECAround",
    "EUk",
    "Finetune",
    "GradAscent",
    "GradDiff",
    "GradientMethod",
    "LoRA",
    "MUMis",
    "Method",
    "NegGradPlus",
    "Plugin",
    "RandomLabel",
    "Retrain",
    "SalUn",
    "SatImp",
    "SimNPO",
    "Spotter",
    "SpotterAround",
    "TaskVector",
    "Wrapper",
]
