"""Corrupted pictures, made where they are asked for: noise, blur and contrast of five severities."""

from typing import Literal, NamedTuple, TypeAlias, cast, get_args

import torch
from torch import Tensor

from unrecall.data.examples import Examples
from unrecall.errors import BadInput
from unrecall.scenarios.choice import LONGEST_NUMBER
from unrecall.training.randomness import seeded

Kind: TypeAlias = Literal["noise", "blur", "contrast"]
STRENGTHS: dict[Kind, tuple[float, ...]] = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}
"""By severity: the deviation of Gaussian noise, that of a Gaussian blur in pixels, and what is left of the contrast."""


class Corruption(NamedTuple):
    """A corruption of pictures in [0, 1] and its severity, from 1 to 5; the constants are those of CIFAR-10-C.

        noise: x + s e, e ~ N(0, I)      blur: a Gaussian of deviation s      contrast: m + s (x - m)

    m is a channel's mean; all are cut off at 0 and 1.

    Reference: Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
    ICLR 2019, arXiv 1903.12261. Differs from the paper in three corruptions of its fifteen, and in pictures that are
    not rounded to bytes.
    """

    kind: Kind
    severity: int

    def __call__(self, picture: Tensor, seed: int) -> Tensor:
        """The corrupted picture `[channels, height, width]`; the seed decides the noise."""
        strength = STRENGTHS[self.kind][self.severity - 1]
        if self.kind == "noise":
            changed = picture + strength * torch.randn(picture.shape, generator=seeded(seed))
        elif self.kind == "blur":
            from scipy import ndimage

            blurred = ndimage.gaussian_filter(picture.numpy(), (0, strength, strength), mode="nearest")
            changed = torch.from_numpy(blurred)
        else:
            mean = picture.mean((1, 2), keepdim=True)
            changed = mean + strength * (picture - mean)
        return changed.clamp(0, 1)


class Corrupted:
    """The same pictures, each corrupted, in the same way whenever it is read."""

    def __init__(self, pictures: Examples, corruption: Corruption) -> None:
        self.pictures, self.corruption = pictures, corruption

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        picture, label = self.pictures[index]
        return self.corruption(picture, index), label


def corrupted(pictures: Examples, line: str) -> Examples:
    """Pictures corrupted as a line such as "blur:3" says; as they are where it is empty. BadInput names what is off."""
    if not line:
        return pictures
    kind, _, severity = line.partition(":")
    right = (
        kind in get_args(Kind) and severity.isdecimal() and len(severity) <= LONGEST_NUMBER and 1 <= int(severity) <= 5
    )
    if not right:
        kinds = ", ".join(get_args(Kind))
        raise BadInput(f"corruption: expected KIND:SEVERITY with KIND of {kinds} and SEVERITY 1 to 5, got '{line}'.")
    return Corrupted(pictures, Corruption(cast(Kind, kind), int(severity)))
