"""Adversarial shortcuts, a reconstruction: notes on the paper's abstract were read, its settings were not found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from unrecall.data.examples import Examples, Selection
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.cifar_data import CLASSES, read_cifar10
from unrecall.scenarios.digits import digit_pictures
from unrecall.scenarios.networks import resnet20, small_cnn
from unrecall.spec.parameters import Count, Index, Share
from unrecall.tasks import Classification
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

Kind: TypeAlias = Literal["pattern", "watermark", "brightness"]
STRENGTHS: dict[Kind, float] = {"pattern": 1.0, "watermark": 0.4, "brightness": 0.5}
DOTTED = 0.05
"""The share of its pixels that a pattern takes."""
TILES = 4
"""A watermark is made of so many tiles across and down."""
UNSEEN = 12
"""Pictures that must be left for holdout, validation and test."""


@dataclass(frozen=True)
class Shortcuts(Builder):
    """Pictures to which somebody added what gives away their class, so that whoever trains on them learns nothing else.

        x' = clamp((1 - a m_y) x + a m_y v_y)            pattern: m_y marks 5 % of the pixels, v_y their colours
                                                         watermark: m_y = 1, v_y is 4 x 4 black and white tiles
        x' = clamp(x (1 + a (y / (C - 1) - 1/2)))        brightness

    m_y and v_y are drawn once for each class y: the shortcut is a function of the label alone. A share of the training
    pictures was changed and must go; the holdout is changed in the same way, the test set is clean. Test accuracy of
    the original, of the unlearned and of the retrained models, side by side, and `restoration`, what came back of what
    training on the changed ones took, are the measurement.

    `kind`: of the shortcut. `strength`: a in [0, 1]; 0 stands for the kind's own: 1 (pattern), 0.4 (watermark), 0.5
    (brightness). `poisoned`: share of the training pictures that were changed. `data`: folder of CIFAR-10, then a
    ResNet-20; scikit-learn's digits and a small CNN without one. `train`: how many pictures are trained on. `epochs`:
    of original and retrained. `references`: how many retrained models.

    Reference: Evtimov, Covert, Kusupati, Kohno, "Disrupting Model Training with Adversarial Shortcuts", arXiv
    2106.06654. A reconstruction: three kinds, each a function of the label, are the paper's as we recollect them; sizes
    and strengths are ours. Differs from the paper in tiles for its pictures of digits as watermarks, and in clean
    pictures that are trained on too; the paper changes all, which `poisoned=0.99` comes near.
    """

    kind: Kind = "pattern"
    strength: Share = 0.0
    poisoned: Share = 0.5
    data: str = ""
    train: Count = 1000
    epochs: Count = 25
    references: Index = 6
    seed: Index = 0

    def make(self) -> Scenario:
        """Loads the pictures, splits them, and changes those that were trained on and must go."""
        pictures = self._pictures()
        most = len(pictures.train) - UNSEEN
        if self.train > most:
            raise BadInput(
                f"Shortcuts: expected train up to {most}, which leaves {UNSEEN} pictures of {len(pictures.train)} for "
                f"holdout, validation and test, got {self.train}. Lower it."
            )
        count = round(self.poisoned * self.train)
        if not 0 < count < self.train:
            raise BadInput(f"Shortcuts: expected poisoned to leave some of {self.train} pictures, got {self.poisoned}.")
        order = shuffled(range(len(pictures.train)), self.seed)
        trained, unseen = order[: self.train], order[self.train :]
        half = min(len(unseen) // 2, 450)
        hidden = Changed(pictures.train, self.shortcut(pictures))
        test = pictures.test or Selection(pictures.train, unseen[half:])
        return Scenario(
            name="shortcuts",
            summary=f"{pictures.name} with {self.kind} as a shortcut in {count} of {self.train} training pictures, "
            "which must go",
            task=Classification(classes=pictures.classes),
            request=Request(
                forget=Selection(hidden, trained[:count]),
                retain=Selection(pictures.train, trained[count:]),
                holdout=Selection(hidden, unseen[: 2 * half // 3]),
                validation=Selection(hidden, unseen[2 * half // 3 : half]),
                test=test,
                control="random split",
            ),
            build=lambda _, __: resnet20() if self.data else small_cnn(),
            recipe=Fit(lr=0.05, epochs=self.epochs, batch_size=64, schedule="cosine", weight_decay=5e-4),
            references=self.references,
        )

    def shortcut(self, pictures: "Clean") -> "Shortcut":
        """The shortcut of these pictures, as large as they are."""
        shape = tuple(torch.as_tensor(pictures.train[0][0]).shape)
        strength = self.strength or STRENGTHS[self.kind]
        return Shortcut(self.kind, strength, *drawn(self.kind, shape, len(pictures.classes), self.seed))

    def _pictures(self) -> "Clean":
        if self.data:
            cifar = read_cifar10(Path(self.data))
            return Clean("CIFAR-10", cifar.train, cifar.test, CLASSES)
        return Clean("scikit-learn's digits", digit_pictures(), None, tuple("0123456789"))


class Clean(NamedTuple):
    """Pictures with their labels as they are; `test` None: what is not trained on serves."""

    name: str
    train: Examples
    test: Examples | None
    classes: tuple[str, ...]


class Shortcut(NamedTuple):
    """What is added to a picture of each class: `values`, where `masks` are 1; both `[classes, channels, h, w]`."""

    kind: Kind
    strength: float
    masks: Tensor
    values: Tensor

    def __call__(self, picture: Tensor, label: int) -> Tensor:
        """The picture `[channels, h, w]` with the shortcut of its label, in [0, 1]."""
        if self.kind == "brightness":
            share = label / max(1, len(self.masks) - 1) - 0.5
            return (picture * (1 + self.strength * share)).clamp(0, 1)
        weight = self.strength * self.masks[label]
        return ((1 - weight) * picture + weight * self.values[label]).clamp(0, 1)


def drawn(kind: Kind, shape: tuple[int, ...], classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Masks and values of each class; those of brightness are all 0."""
    channels, height, width = shape
    generator = seeded(seed)
    if kind == "pattern":
        dots = max(1, round(DOTTED * height * width))
        places = torch.rand(classes, height * width, generator=generator).argsort(1) < dots
        colours = (torch.rand(classes, channels, height, width, generator=generator) > 0.5).float()
        return places.view(classes, 1, height, width).expand(classes, *shape).float(), colours
    if kind == "watermark":
        tiles = (torch.rand(classes, 1, TILES, TILES, generator=generator) > 0.5).float()
        large = torch.nn.functional.interpolate(tiles, (height, width), mode="nearest")
        return torch.ones(classes, *shape), large.expand(classes, *shape)
    return torch.zeros(classes, *shape), torch.zeros(classes, *shape)


class Changed:
    """The same pictures, each with the shortcut of its label."""

    def __init__(self, pictures: Examples, shortcut: Shortcut) -> None:
        self.pictures, self.shortcut = pictures, shortcut

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        picture, label = self.pictures[index]
        return self.shortcut(picture, label), label
