"""Built-in cases, and the shape of the user's own: a Python file whose function returns a Scenario."""

from unrecall.scenarios.base import Scenario
from unrecall.scenarios.cifar10 import Cifar10
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.small_cifar5 import SmallCifar5

__all__ = ["Cifar10", "Digits", "Scenario", "SmallCifar5"]
