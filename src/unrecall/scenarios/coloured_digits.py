"""Digits whose colour goes with their class in training and not in test: does a model go by the colour?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unrecall.data.examples import Selection
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import choose, shuffled
from unrecall.scenarios.digits import digit_pictures
from unrecall.scenarios.networks import small_cnn
from unrecall.spec.parameters import Count, Index, Share
from unrecall.tasks import Grouped
from unrecall.training.loop import Fit
from unrecall.training.objectives import objective_of
from unrecall.training.randomness import seeded

COLOURS, CLASSES = ("red", "green"), ("0-4", "5-9")


@dataclass(frozen=True)
class ColouredDigits(Builder):
    """scikit-learn's digits in red or green ink, in 2 classes: 0 to 4, and 5 to 9; a small CNN.

    In training, and in the holdout, which is like it, a share `rho` of the pictures has the colour of its class: red
    below 5, green from there on. In the test set colours are drawn by coins. Groups are class and colour, 4 of them;
    `worst_group_accuracy` shows whether a model goes by the colour. That is what `objective=ule` is against.

    `forget`: share:P of all, half:C, class:C, or the path of a file with one training index a line. `train`: how many
    pictures are trained on; of the others, half are the test set. `epochs`: of original and retrained. `objective`:
    what both are trained to minimise: plain, nib or ule, with parameters as in ule:weight=3. `references`: how many
    retrained models.

    Reference: Arjovsky, Bottou, Gulrajani, Lopez-Paz, "Invariant Risk Minimization", arXiv 1907.02893. Differs from the
    paper in scikit-learn's digits for MNIST's, in labels without noise, and in one training set in place of two.
    """

    forget: str = "share:0.25"
    rho: Share = 0.95
    train: Count = 1000
    epochs: Count = 25
    objective: str = "plain"
    references: Index = 6
    seed: Index = 0

    def make(self) -> Scenario:
        """Loads the pictures, splits them, and inks each by its class or by a coin."""
        pictures = digit_pictures()
        labels = [int(digit > 4) for _, digit in pictures]
        order = shuffled(range(len(labels)), self.seed)
        trained, unseen = order[: self.train], order[self.train :]
        chosen = choose(self.forget, [labels[i] for i in trained], self.seed, 2)
        alike = [i for i in unseen if labels[i] in chosen.classes]
        alike = sorted(alike[: len(alike) // 2])
        test = [i for i in unseen if i not in {*alike}]
        tested, draws = {*test}, torch.rand(len(labels), generator=seeded(self.seed + 1)).tolist()
        data = []
        for i, ((picture, _), label) in enumerate(zip(pictures, labels, strict=True)):
            colour = label if draws[i] < (0.5 if i in tested else self.rho) else 1 - label
            data.append((inked(picture[0], colour), label, f"{CLASSES[label]}, {COLOURS[colour]}"))
        return Scenario(
            name="coloured-digits",
            summary=f"digits in red or green, {100 * self.rho:g} % by class; forget {self.forget} of {self.train}",
            task=Grouped(classes=CLASSES),
            request=chosen.request(
                Selection(data, trained), Selection(data, alike), Selection(data, test), holdout=300
            ),
            build=lambda _, __: small_cnn(classes=2, channels=3),
            recipe=Fit(lr=0.05, epochs=self.epochs, batch_size=64, schedule="cosine", weight_decay=5e-4),
            objective=objective_of(self.objective),
            references=self.references,
        )


def inked(picture: Tensor, colour: int) -> Tensor:
    """A grey picture `[height, width]` in one of the colours `[3, height, width]`, on black."""
    return torch.stack([picture if channel == colour else torch.zeros_like(picture) for channel in range(3)])
