"""Built-in cases, and the shape of the user's own: a Python file whose function returns a Scenario."""

from unrecall.scenarios.base import Scenario
from unrecall.scenarios.cifar10 import Cifar10
from unrecall.scenarios.cifar10_indirect import Cifar10Indirect
from unrecall.scenarios.clip_backdoor import ClipBackdoor
from unrecall.scenarios.coloured_digits import ColouredDigits
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.emoji import Emoji
from unrecall.scenarios.knowundo import KnowUnDo
from unrecall.scenarios.movielens import MovieLens
from unrecall.scenarios.pairs import Pairs
from unrecall.scenarios.pictures import Pictures
from unrecall.scenarios.restor import Restor
from unrecall.scenarios.shortcuts import Shortcuts
from unrecall.scenarios.small_cifar5 import SmallCifar5
from unrecall.scenarios.texts import Texts
from unrecall.scenarios.tinystories import TinyStories
from unrecall.scenarios.tofu import Tofu

__all__ = [
    "Cifar10",
    "Cifar10Indirect",
    "ClipBackdoor",
    "ColouredDigits",
    "Digits",
    "Emoji",
    "KnowUnDo",
    "MovieLens",
    "Pairs",
    "Pictures",
    "Restor",
    "Scenario",
    "Shortcuts",
    "SmallCifar5",
    "Texts",
    "TinyStories",
    "Tofu",
]
