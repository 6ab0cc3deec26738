"""Handwritten digits that ship with scikit-learn: the embedded default, everything trained on the spot."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unrecall.data.examples import Selection
from unrecall.data.request import Request
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import Choice, choose, share_of, shuffled
from unrecall.scenarios.networks import small_cnn
from unrecall.spec.parameters import Count, Index
from unrecall.tasks import Classification
from unrecall.training.loop import Fit
from unrecall.training.objectives import objective_of
from unrecall.training.randomness import seeded


@dataclass(frozen=True)
class Digits(Builder):
    """1,797 pictures of 8 x 8 pixels in 10 classes, a small CNN with BatchNorm, trained in seconds.

    `forget`: share:P of all, half:C, class:C, the path of a file with one training index a line, or mistakes:P: that
    share of all pictures was entered under a wrong digit, and those that were trained on must go. `train`: how many
    pictures are trained on. `epochs`: of original and retrained. `objective`: what both are trained to minimise: plain,
    nib or ule, with parameters as in nib:beta=0.001+alpha=1. `references`: how many retrained models.
    """

    forget: str = "share:0.25"
    train: Count = 1000
    epochs: Count = 25
    objective: str = "plain"
    references: Index = 6
    seed: Index = 0

    def make(self) -> Scenario:
        """Loads the pictures and splits them."""
        pictures = digit_pictures()
        labels = [digit for _, digit in pictures]
        order = shuffled(range(len(labels)), self.seed)
        trained, unseen = order[: self.train], order[self.train :]
        wrong = self._mistakes(labels)
        labels = [wrong.get(i, y) for i, y in enumerate(labels)]
        data = [(picture, label) for (picture, _), label in zip(pictures, labels, strict=True)]
        if wrong:
            chosen = Choice([i for i, place in enumerate(trained) if place in wrong], set(range(10)), ())
            alike = [i for i in unseen if i in wrong]
        else:
            chosen = choose(self.forget, [labels[i] for i in trained], self.seed, 10)
            alike = [i for i in unseen if labels[i] in chosen.classes]
            alike = alike[: 3 * len(alike) // 4]
        used = set(alike)
        test = Selection(data, [i for i in unseen if i not in used])
        request = chosen.request(Selection(data, trained), Selection(data, sorted(used)), test, holdout=300)
        return Scenario(
            name="digits",
            summary=f"scikit-learn's digits, a small CNN; {self._asked(request, wrong=bool(wrong))}",
            task=Classification(classes=tuple("0123456789")),
            request=request,
            build=lambda _, __: small_cnn(),
            recipe=Fit(lr=0.05, epochs=self.epochs, batch_size=64, schedule="cosine", weight_decay=5e-4),
            objective=objective_of(self.objective),
            references=self.references,
        )

    def _asked(self, request: Request, *, wrong: bool) -> str:
        """What is to be forgotten, in words. `wrong`: pictures that were entered under a wrong digit."""
        if not wrong:
            return f"forget {self.forget} of {self.train} training pictures"
        return (
            f"{len(request.forget)} of {self.train} training pictures were entered under a wrong digit, and these "
            f"entries must go. The holdout is {len(request.holdout)} more such entries, which no model was trained on: "
            "a model that gives the right digits has an accuracy of about 0 on both"
        )

    def _mistakes(self, labels: list[int]) -> dict[int, int]:
        """The wrong digits, by picture; none unless mistakes must go."""
        how, _, text = self.forget.partition(":")
        if how != "mistakes":
            return {}
        places = share_of(text, len(labels), self.seed + 1)
        shift = torch.randint(1, 10, (len(places),), generator=seeded(self.seed)).tolist()
        return {i: (labels[i] + by) % 10 for i, by in zip(places, shift, strict=True)}


def digit_pictures() -> list[tuple[Tensor, int]]:
    """scikit-learn's digits: pictures `[1, 8, 8]` in [0, 1], each with what it shows."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pictures = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return [(picture, int(digit)) for picture, digit in zip(pictures, bunch.target, strict=True)]
