"""Handwritten digits that ship with scikit-learn: the embedded default, everything trained on the spot."""

from dataclasses import dataclass

import torch

from unrecall.data.examples import Part
from unrecall.scenarios.base import Builder, Scenario, choose, shuffled
from unrecall.scenarios.networks import small_cnn
from unrecall.spec.parameters import Count, Index
from unrecall.tasks import Classification
from unrecall.training.loop import Fit


@dataclass(frozen=True)
class Digits(Builder):
    """1,797 pictures of 8 x 8 pixels in 10 classes, a small CNN with BatchNorm, trained in seconds.

    `forget`: share:P of all, half:C, class:C, or the path of a file with one training index a line. `train`: how many
    pictures are trained on. `epochs`: of original and retrained. `references`: how many retrained models.
    """

    forget: str = "share:0.25"
    train: Count = 1000
    epochs: Count = 25
    references: Index = 6
    seed: Index = 0

    def make(self) -> Scenario:
        """Loads the pictures and splits them."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pictures = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
        labels = [int(y) for y in bunch.target]
        data = [(pictures[i], labels[i]) for i in range(len(labels))]
        order = shuffled(range(len(data)), self.seed)
        trained, unseen = order[: self.train], order[self.train :]
        chosen = choose(self.forget, [labels[i] for i in trained], self.seed, 10)
        alike = [i for i in unseen if labels[i] in chosen.classes]
        used = set(alike[: 3 * len(alike) // 4])
        test = Part(data, [i for i in unseen if i not in used])
        return Scenario(
            name="digits",
            summary=f"scikit-learn's digits, a small CNN; forget {self.forget} of {self.train} training pictures",
            task=Classification(classes=tuple("0123456789")),
            request=chosen.request(Part(data, trained), Part(data, sorted(used)), test, holdout=300),
            build=lambda _, __: small_cnn(),
            recipe=Fit(lr=0.05, epochs=self.epochs, batch_size=64, schedule="cosine", weight_decay=5e-4),
            references=self.references,
        )
