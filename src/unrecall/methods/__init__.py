"""All methods by what they do; the file's stem is the name on the command line."""

from typing import NoReturn

# "X as X" gives a name on, so that type checkers and editors find it here.
from unrecall.methods.altpo import AltPO as AltPO
from unrecall.methods.amnesiac import Amnesiac as Amnesiac
from unrecall.methods.arm import ARM as ARM
from unrecall.methods.bad_teacher import BadTeacher as BadTeacher
from unrecall.methods.base import GradientMethod as GradientMethod
from unrecall.methods.base import Method as Method
from unrecall.methods.base import Plugin as Plugin
from unrecall.methods.base import Wrapper as Wrapper
from unrecall.methods.blur import BLUR as BLUR
from unrecall.methods.boundary_expand import BoundaryExpand as BoundaryExpand
from unrecall.methods.boundary_shrink import BoundaryShrink as BoundaryShrink
from unrecall.methods.bounded import Bounded as Bounded
from unrecall.methods.ce_u import CEU as CEU
from unrecall.methods.certified_edge import CertifiedEdge as CertifiedEdge
from unrecall.methods.certified_removal import CertifiedRemoval as CertifiedRemoval
from unrecall.methods.cf_k import CFk as CFk
from unrecall.methods.cir import CIR as CIR
from unrecall.methods.contrastive_unlearning import ContrastiveUnlearning as ContrastiveUnlearning
from unrecall.methods.delete import Delete as Delete
from unrecall.methods.distort import Distort as Distort
from unrecall.methods.dpo import DPO as DPO
from unrecall.methods.ec import EC as EC
from unrecall.methods.ec import ECAround as ECAround
from unrecall.methods.eu_k import EUk as EUk
from unrecall.methods.example_localization import ExampleLocalization as ExampleLocalization
from unrecall.methods.fanchuan import Fanchuan as Fanchuan
from unrecall.methods.finetune import Finetune as Finetune
from unrecall.methods.fisher import Fisher as Fisher
from unrecall.methods.flat import FLAT as FLAT
from unrecall.methods.gif import GIF as GIF
from unrecall.methods.grad_ascent import GradAscent as GradAscent
from unrecall.methods.grad_diff import GradDiff as GradDiff
from unrecall.methods.idea import IDEA as IDEA
from unrecall.methods.influence import Influence as Influence
from unrecall.methods.jensun import JensUn as JensUn
from unrecall.methods.jit import JiT as JiT
from unrecall.methods.kookmin import Kookmin as Kookmin
from unrecall.methods.l1_sparse import L1Sparse as L1Sparse
from unrecall.methods.l2ul import L2UL as L2UL
from unrecall.methods.lat import LAT as LAT
from unrecall.methods.lora import LoRA as LoRA
from unrecall.methods.lotus import LoTUS as LoTUS
from unrecall.methods.mu_mis import MUMis as MUMis
from unrecall.methods.mudman import MUDMAN as MUDMAN
from unrecall.methods.neggrad_plus import NegGradPlus as NegGradPlus
from unrecall.methods.ngd import NGD as NGD
from unrecall.methods.npo import NPO as NPO
from unrecall.methods.ntk import NTK as NTK
from unrecall.methods.our import OUR as OUR
from unrecall.methods.pgu import PGU as PGU
from unrecall.methods.random_label import RandomLabel as RandomLabel
from unrecall.methods.reheat import Reheat as Reheat
from unrecall.methods.repselect import RepSelect as RepSelect
from unrecall.methods.retrain import Retrain as Retrain
from unrecall.methods.rmu import RMU as RMU
from unrecall.methods.roka import ROKA as ROKA
from unrecall.methods.rurk import RURK as RURK
from unrecall.methods.salun import SalUn as SalUn
from unrecall.methods.sam import SAM as SAM
from unrecall.methods.satimp import SatImp as SatImp
from unrecall.methods.scif import SCIF as SCIF
from unrecall.methods.scrub import SCRUB as SCRUB
from unrecall.methods.sfron import SFRon as SFRon
from unrecall.methods.simnpo import SimNPO as SimNPO
from unrecall.methods.spotter import Spotter as Spotter
from unrecall.methods.spotter import SpotterAround as SpotterAround
from unrecall.methods.ssd import SSD as SSD
from unrecall.methods.ssiuu import SSIUU as SSIUU
from unrecall.methods.task_vector import TaskVector as TaskVector
from unrecall.methods.ubt import UBT as UBT
from unrecall.methods.undial import UNDIAL as UNDIAL
from unrecall.methods.undo import UNDO as UNDO
from unrecall.methods.unsir import UNSIR as UNSIR
from unrecall.methods.wga import WGA as WGA
from unrecall.methods.whp import WHP as WHP
from unrecall.spec.catalog import unknown as _unknown


def __getattr__(name: str) -> NoReturn:
    """Names the class that is meant."""
    raise _unknown("methods", name)
