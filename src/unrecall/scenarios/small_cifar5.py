"""RURK's small CIFAR-5: 200 pictures of each of five classes, forget half of class 0."""

from dataclasses import dataclass
from pathlib import Path

from unrecall.data.examples import Selection
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import choose, shuffled
from unrecall.scenarios.cifar_data import CLASSES, Architecture, Pretrained, per_class, read_cifar10, recipe
from unrecall.scenarios.corruptions import corrupted
from unrecall.scenarios.paper_tables import SMALL_CIFAR5
from unrecall.spec.parameters import Count, Index
from unrecall.tasks import Classification


@dataclass(frozen=True)
class SmallCifar5(Builder):
    """200 train and 200 test pictures of each of CIFAR-10's first 5 classes; a network pretrained on CIFAR-10.

    `data`: folder of CIFAR-10. `weights`: a pretrained checkpoint; without one the network is pretrained here for
    `pretrain` epochs. `arch`: resnet18 is the paper's. `epochs`, `retraining_epochs`: of original and retrained (SGD
    0.01, momentum 0.9, weight decay 2e-4, cosine). `forget`: half:C, class:C or a file of indices into the 1,000
    training pictures. `corruption`: of the test set, as in blur:3: noise, blur or contrast of severity 1 to 5. As in
    the paper, the pretraining has seen the forget pictures. The holdout is made of further test pictures of the
    forgotten classes.

    Reference: Hsu et al., NeurIPS 2025, arXiv 2601.22359, appendix B.
    """

    data: str = ""
    weights: str = ""
    arch: Architecture = "resnet18"
    forget: str = "half:0"
    pretrain: Count = 200
    epochs: Count = 25
    retraining_epochs: Count = 100
    corruption: str = ""
    references: Index = 3
    seed: Index = 131

    def make(self) -> Scenario:
        """Reads the data, picks the pictures, and says how to train."""
        cifar = read_cifar10(Path(self.data))
        trained = per_class(cifar.train.labels, range(5), 200, shuffled(range(50_000), self.seed))
        order = shuffled(range(10_000), self.seed + 1)
        test = per_class(cifar.test.labels, range(5), 200, order)
        chosen = choose(self.forget, [cifar.train.labels[i] for i in trained], self.seed, 5)
        tested = set(test)
        alike = [i for i in order if i not in tested and cifar.test.labels[i] in chosen.classes]
        return Scenario(
            name="small-cifar5",
            summary=f"small CIFAR-5 (1,000 training pictures of 5 classes), {self.arch}; forget {self.forget}",
            task=Classification(classes=CLASSES[:5]),
            request=chosen.request(
                Selection(cifar.train, trained),
                Selection(cifar.test, alike),
                corrupted(Selection(cifar.test, test), self.corruption),
                holdout=300,
            ),
            build=Pretrained(cifar, self.arch, self.weights, self.pretrain, classes=5),
            recipe=recipe(self.arch, lr=0.01, weight_decay=2e-4, epochs=self.epochs, schedule="cosine"),
            retraining_recipe=recipe(
                self.arch, lr=0.01, weight_decay=2e-4, epochs=self.retraining_epochs, schedule="cosine"
            ),
            references=self.references,
            reported=SMALL_CIFAR5 if self.forget == "half:0" else {},
        )
