"""CIFAR-10, half of a class, a class, or given pictures; trained from scratch, or from pretrained ResNet weights."""

from dataclasses import dataclass
from pathlib import Path

from unrecall.data.examples import Selection
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import choose, shuffled
from unrecall.scenarios.cifar_data import ARCHITECTURES, CLASSES, Architecture, load_resnet, read_cifar10, recipe
from unrecall.scenarios.corruptions import corrupted
from unrecall.scenarios.paper_tables import CIFAR10
from unrecall.spec.parameters import Count, Index, Share
from unrecall.tasks import Classification


@dataclass(frozen=True)
class Cifar10(Builder):
    """The whole of CIFAR-10.

    `data`: folder of CIFAR-10. `weights`: a checkpoint trained on all 50,000 pictures, which then is the original, and
    nothing is held out; without one the original is trained from scratch. `heldout`: share of the training set that is
    set aside and never trained on (the paper: 0.2); it gives the holdout, which otherwise comes from the test set.
    `epochs` (SGD 0.01, momentum 0.9, weight decay 5e-4, cosine over 200 epochs; the paper: 137). `forget`: half:C,
    class:C or a file of indices into the training part. `corruption`: of the test set, as in blur:3: noise, blur or
    contrast of severity 1 to 5.

    Reference: Hsu et al., NeurIPS 2025, arXiv 2601.22359, appendix B.
    """

    data: str = ""
    weights: str = ""
    arch: Architecture = "resnet18"
    forget: str = "half:0"
    heldout: Share = 0.2
    epochs: Count = 137
    corruption: str = ""
    references: Index = 3
    seed: Index = 131

    def make(self) -> Scenario:
        """Reads the data, sets pictures aside, and says how to train."""
        cifar = read_cifar10(Path(self.data))
        heldout = 0.0 if self.weights else self.heldout
        order = shuffled(range(50_000), self.seed)
        aside, trained = order[: round(50_000 * heldout)], sorted(order[round(50_000 * heldout) :])
        chosen = choose(self.forget, [cifar.train.labels[i] for i in trained], self.seed, 10)
        pool = cifar.train if aside else cifar.test
        alike = [i for i in (aside or shuffled(range(10_000), self.seed)) if pool.labels[i] in chosen.classes]
        alike = alike if aside else alike[: 3 * len(alike) // 4]
        used = set() if aside else set(alike)
        test = corrupted(Selection(cifar.test, [i for i in range(10_000) if i not in used]), self.corruption)
        steps = -(-len(trained) // 128)
        return Scenario(
            name="cifar10",
            summary=f"CIFAR-10, {self.arch}; forget {self.forget} of {len(trained):,} training pictures",
            task=Classification(classes=CLASSES),
            request=chosen.request(Selection(cifar.train, trained), Selection(pool, alike), test, holdout=500),
            build=lambda _, __: ARCHITECTURES[self.arch](10),
            recipe=recipe(
                self.arch, lr=0.01, weight_decay=5e-4, epochs=self.epochs, schedule="cosine", period=200 * steps
            ),
            original=load_resnet(ARCHITECTURES[self.arch](10), Path(self.weights)) if self.weights else None,
            references=self.references,
            reported=CIFAR10 if self.forget == "half:0" else {},
        )
