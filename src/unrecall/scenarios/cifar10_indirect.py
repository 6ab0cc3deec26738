"""CIFAR-10 for the indirect unlearning attack: a pretrained ResNet-20, and a part of its training data that may go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unrecall.data.examples import Selection
from unrecall.errors import BadInput
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import choose, shuffled
from unrecall.scenarios.cifar_data import ARCHITECTURES, CLASSES, load_resnet, per_class, read_cifar10
from unrecall.spec.parameters import Count, Index
from unrecall.tasks import Classification


@dataclass(frozen=True)
class Cifar10Indirect(Builder):
    """Somebody asks for the deletion of pictures of other classes, so that the `victim` is taken for another class.

    The attack itself is audited with "indirect:victim=3,answered_as=5"; the request here is an ordinary one beside it.

    `data`: folder of CIFAR-10. `weights`: a checkpoint of a ResNet-20 trained on all 50,000 pictures, the original.
    `victim`, and `answered_as`, what it is to be taken for (-1: any wrong class): the case, by class number. `forget`:
    share:P, half:C, class:C or a file of indices into the pool. `train`: training pictures of each class that make the
    pool; the others stay out, so that a method takes a minute and not an hour. `test`: unseen pictures beside 1,000 of
    the holdout, at most.

    There are no retrained models: the checkpoint's own training, 200 epochs over all pictures with crops and flips,
    takes hours on a CPU, and a model trained on the pool alone would differ in more than the request.
    """

    data: str = ""
    weights: str = ""
    victim: Annotated[int, Field(ge=0, le=9)] = 3
    answered_as: Annotated[int, Field(ge=-1, le=9)] = 5
    forget: str = "share:0.02"
    train: Annotated[int, Field(ge=1, le=5000)] = 500
    test: Count = 2000
    seed: Index = 0

    def make(self) -> Scenario:
        """Reads the data, draws the pool, and loads the checkpoint."""
        if self.victim == self.answered_as:
            raise BadInput(
                f"Cifar10Indirect: expected answered_as to be another class than victim, got {self.victim} twice."
            )
        if not self.weights:
            raise BadInput("Cifar10Indirect: expected the checkpoint of a ResNet-20, got none. Name it: weights=PATH.")
        cifar = read_cifar10(Path(self.data))
        pool = per_class(cifar.train.labels, range(10), self.train, shuffled(range(50_000), self.seed))
        chosen = choose(self.forget, [cifar.train.labels[i] for i in pool], self.seed, 10)
        if chosen.classes == {self.victim}:
            raise BadInput(
                f"Cifar10Indirect: expected a victim that is not the class to be forgotten, got {self.victim} for both."
            )
        unseen = shuffled(range(10_000), self.seed)
        alike = [i for i in unseen if cifar.test.labels[i] in chosen.classes][:1500]
        apart = set(alike)
        test = [i for i in unseen if i not in apart][: self.test]
        wish = "answered wrongly" if self.answered_as < 0 else f"taken for {CLASSES[self.answered_as]}"
        return Scenario(
            name="cifar10-indirect",
            summary=f"CIFAR-10, pretrained ResNet-20; forget {self.forget} of {len(pool):,} training pictures; "
            f"the attack's aim: {CLASSES[self.victim]} {wish}",
            task=Classification(classes=CLASSES),
            request=chosen.request(
                Selection(cifar.train, pool), Selection(cifar.test, alike), Selection(cifar.test, test), holdout=1000
            ),
            original=load_resnet(ARCHITECTURES["resnet20"](10), Path(self.weights)),
            references=0,
        )
