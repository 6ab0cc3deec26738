"""All methods by what they do; the file's stem is the name on the command line."""

from unrecall.methods.bad_teacher import BadTeacher
from unrecall.methods.base import GradientMethod, Method
from unrecall.methods.cf_k import CFk
from unrecall.methods.delete import Delete
from unrecall.methods.eu_k import EUk
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.ngd import NGD
from unrecall.methods.random_label import RandomLabel
from unrecall.methods.retrain import Retrain
from unrecall.methods.rurk import RURK
from unrecall.methods.salun import SalUn
from unrecall.methods.scrub import SCRUB
from unrecall.methods.spotter import Spotter
from unrecall.methods.ssd import SSD

__all__ = [
    "NGD",
    "RURK",
    "SCRUB",
    "SSD",
    "BadTeacher",
    "CFk",
    "Delete",
    "EUk",
    "Finetune",
    "GradAscent",
    "GradientMethod",
    "Method",
    "NegGradPlus",
    "RandomLabel",
    "Retrain",
    "SalUn",
    "Spotter",
]
