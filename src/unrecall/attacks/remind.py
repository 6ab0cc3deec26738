"""REMIND: does the loss around a forgotten text look different from the loss around a text never seen?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from unrecall.attacks.base import MembershipAttack, both_arms
from unrecall.data.batches import repeat
from unrecall.data.examples import Selection, evenly
from unrecall.data.request import Split
from unrecall.errors import NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.models.observe import batches, device_of
from unrecall.nn.hooks import mode
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Share
from unrecall.tasks.protocols import Textual, textual
from unrecall.training.job import Job

CLASSES: tuple[Split, ...] = ("retain", "holdout", "forget")
"""What the classifier tells apart; an example's class is its place here."""

FOLDS, SEED, TINY = 5, 42, 1e-8


@dataclass(frozen=True)
class REMIND(MembershipAttack):
    """Describes the loss around each text by 15 numbers, and has a classifier tell retain, holdout and forget by them.

    Embedding-proximal perturbation: each token of an answer gives way, with probability p, to one of its m nearest
    tokens by cosine of the embeddings, uniformly drawn; k times a text. `landscape` turns the losses into features.

        P = out-of-fold class probabilities            score(x) = P(forget | x) / (P(forget | x) + P(holdout | x))

    Where forget can be told from holdout, something of it is left. The draws are the same for every model. Less than
    one half is chance and no sign, for which side is which has been learnt.

    `inflation`: scores of different folds aren't independent, for each fold is scored by what the others taught. Where
    there is nothing to learn, d_j . d_k (the class differences in two folds) counts in fold j and again in fold k: over
    K folds the variance of the AUC has 4 K (K - 1) / 2 such terms, and DeLong's K (K - 1). Simulated with 15 features
    of noise (500 or 600 runs each at 20, 40, 100 and 400 examples a class) it is 1.8 to 2.1 times DeLong's. The widened
    interval then lies wholly above one half in 1.2 to 2.8 % of runs and below it in 2.4 to 4.8 %; DeLong's does in 6 to
    9 % and in 8 to 10 %. Where there is something to learn (AUC 0.58 and 0.67) it misses the mean in 3 % of runs.

    Args:
        p: share of tokens that are swapped, in [0, 1].
        m: neighbours of a token to draw from.
        k: perturbed copies of a text.
        classifier: logistic regression, or a forest of 100 trees.

    Expected to fail: with few examples, for the classifier learns from the rest of the very splits it scores; where
    forget and holdout differ of themselves, or hold groups of like texts, it tells them apart in a retrained model too
    (its negative control shows that). On tasks that aren't texts there are no neighbours (NotSupported).

    Reference: Cohen, Nemcovsky, Mendelson, "REMIND: Input Loss Landscapes Reveal Residual Memorization in
    Post-Unlearning LLMs", 2025, arXiv 2511.04228 (ACL 2026). Differs from the paper in the neighbours, which come from
    the audited model's own embeddings (theirs from GPT-2's, whatever the model); in swapping tokens of answers alone;
    in five 80/20 splits in turn, so that every example is scored once by a classifier that hasn't seen it (theirs:
    one); in keeping texts of fewer than 5 tokens; and in five formulas that are reconstructed: see `landscape`.
    """

    title: ClassVar[str] = "REMIND"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's loss on any text, and its embeddings",
        data="retain, holdout and forget texts that are known to be such, beside the texts in question",
        budget="k + 1 queries an example",
    )

    needs: ClassVar[tuple[type, ...]] = (Textual,)
    blind: ClassVar[bool] = False
    inflation: ClassVar[float] = 2.0
    learns_arms: ClassVar[bool] = True

    p: Share = 0.3
    m: Count = 20
    k: Count = 15
    classifier: Literal["logistic", "forest"] = "logistic"

    def extra_signals(self, model: nn.Module, job: Job) -> Mapping[Split, np.ndarray]:
        """Features `[n, 15]` of forget and holdout, and of as many retain examples as the smaller of them has."""
        request, task = job.request, textual(self, job.task)
        both_arms(request)
        if few := {split: len(request[split]) for split in CLASSES if len(request[split]) < 2}:
            counts = ", ".join(f"{n} of {split}" for split, n in few.items())
            raise NotSupported(
                f"REMIND: expected at least 2 examples each of {', '.join(CLASSES)}, got {counts}. Name more."
            )
        fewest = min(len(request[split]) for split in CLASSES)
        examples = {split: request[split] for split in CLASSES}
        examples["retain"] = Selection(request.retain, evenly(len(request.retain), fewest))
        near = task.neighbours(model, self.m)
        features: dict[Split, np.ndarray] = {}
        with mode(model, training=False), torch.no_grad():
            for split, part in examples.items():
                base: list[Tensor] = []
                around: list[Tensor] = []
                far: list[Tensor] = []
                for batch in batches(part, job.task, max(1, job.task.at_once // self.k), device_of(model)):
                    moved, distance = task.swapped(repeat(batch, self.k), near, self.p, job.generator)
                    base.append(job.task.rows(model, batch).exact_losses())
                    around.append(job.task.rows(model, moved).exact_losses().reshape(-1, self.k))
                    far.append(distance.reshape(-1, self.k))
                features[split] = landscape(*(torch.cat(values).cpu().numpy() for values in (base, around, far)))
        return features

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """How much rather forget than holdout, in [0, 1]; NotSupported for other splits and for too few examples."""
        self.extra_of(evidence, split)
        features = [evidence.extra[name] for name in CLASSES]
        if min(map(len, features)) < 2:
            raise NotSupported(
                f"REMIND: expected at least 2 examples each of {', '.join(CLASSES)}, got "
                f"{', '.join(str(len(part)) for part in features)}. Name more."
            )
        labels = np.repeat(np.arange(len(CLASSES)), [len(part) for part in features])
        unfitted: Any = LogisticRegression(max_iter=300, random_state=SEED)
        if self.classifier == "forest":
            unfitted = RandomForestClassifier(100, random_state=SEED)
        chances = out_of_fold(np.concatenate(features), labels, unfitted)[labels == CLASSES.index(split)]
        forget, holdout = chances[:, CLASSES.index("forget")] + TINY, chances[:, CLASSES.index("holdout")] + TINY
        return np.asarray(forget / (forget + holdout))


def landscape(base: np.ndarray, neighbours: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Features `[n, 15]` of the losses around each example.

    `base` l_0 [n] is an example's loss, `neighbours` l_k [n, K] that of its perturbed copies, `distance` d_k [n, K]
    how far each lies: the mean over the answer's tokens of 1 - cosine between old and new embedding. With
    D_k = l_k - l_0, which is 0 where nothing was swapped, and mean, max, min, var, std over k (divided by K):

        original_loss                      l_0
        mean, max, min_neighbour_loss      of l_k
        loss_variance, loss_std            of l_k
        mean, max, min_loss_increment      of D_k
        mean, max_gradient, its variance   of |D_k| / (d_k + 1e-8)
        loss_volatility                    std(l_k) / (|mean(l_k)| + 1e-8)
        local_curvature                    mean of 2 D_k / (d_k^2 + 1e-8)
        increment_variance                 of D_k

    They stand in this order; the names are the paper's. Reconstructed, since its code could not be had, are d_k, and
    with it the three gradients and the curvature (the second-order term of Taylor's series where the slope is 0), and
    the volatility.
    """
    rise = np.where(distance > 0, neighbours - base[:, None], 0.0)
    slope = np.abs(rise) / (distance + TINY)
    mean, spread = neighbours.mean(1), neighbours.std(1)
    features = {
        "original_loss": base,
        "mean_neighbour_loss": mean,
        "max_neighbour_loss": neighbours.max(1),
        "min_neighbour_loss": neighbours.min(1),
        "loss_variance": neighbours.var(1),
        "loss_std": spread,
        "mean_loss_increment": rise.mean(1),
        "max_loss_increment": rise.max(1),
        "min_loss_increment": rise.min(1),
        "mean_gradient": slope.mean(1),
        "max_gradient": slope.max(1),
        "gradient_variance": slope.var(1),
        "loss_volatility": spread / (np.abs(mean) + TINY),
        "local_curvature": (2 * rise / (distance**2 + TINY)).mean(1),
        "increment_variance": rise.var(1),
    }
    return np.stack(list(features.values()), 1)


def out_of_fold(features: np.ndarray, labels: np.ndarray, classifier: Any) -> np.ndarray:
    """The probability of each class `[n, classes]` for each example, by a classifier fitted on other examples.

    Features are z-scored over all examples; each of five stratified folds is scored after a fit on the other four, in
    which every class is cut to the size of the smallest.
    """
    deviation = features.std(0)
    scaled = (features - features.mean(0)) / np.where(deviation > 0, deviation, 1.0)
    sizes = np.bincount(labels)
    chances = np.zeros((len(labels), len(sizes)))
    folds = StratifiedKFold(min(FOLDS, int(sizes.min())), shuffle=True, random_state=SEED)
    for others, fold in folds.split(scaled, labels):
        parts = [others[labels[others] == label] for label in range(len(sizes))]
        fewest = min(map(len, parts))
        fitted = np.concatenate([part[evenly(len(part), fewest)] for part in parts])
        chances[fold] = clone(classifier).fit(scaled[fitted], labels[fitted]).predict_proba(scaled[fold])
    return chances
