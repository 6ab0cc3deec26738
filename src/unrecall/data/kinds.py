"""What may be asked to be forgotten; needs no torch, so that records can say it too."""

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["samples", "class", "concept", "backdoor"]
