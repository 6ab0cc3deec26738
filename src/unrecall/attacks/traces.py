"""Unlearning traces: can a model that was made to forget be told from retrained ones by answers about other things?"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Absent, Selection, evenly
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Setting
from unrecall.models.observe import observe
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.training.ascent import head_of


@dataclass(frozen=True)
class Traces(InspectionAttack):
    """Asks a classifier which of two answers to the same input is the model's, and which a retrained model's.

        d_i   = f(model, x_i) - f(retrained, x_i)         x_i: test examples of no class that is forgotten
        value = share of i, over folds and retrained models, with w . d_i > 0

    w is a logistic regression without intercept, fitted on the other folds' d and -d, against all retrained models at
    once. f holds what an answer shows, each also squared and brought to one spread: the mean over its rows of the
    target's log-probability, of the mean and the deviation that a log-probability has under the model itself, and of
    whether the row is right. One half is chance, ties count half; the interval is over examples. A retrained model is
    told from the others in the same way: two models that were trained alike differ too. The line says how often the
    sum of w . d over several inputs is above 0.

    Args:
        folds: of the test examples, each judged by what the others say, at least 2.
        penalty: on the squared weights, beside a mean loss.
        most: test examples, evenly spread.

    Expected to fail: to tell anything where retrained models differ as much among themselves, which is what their
    figures are for. It is no sign that the forgotten can be had back, and a method may leave traces that no summary of
    probabilities shows. NotSupported for fewer than ten examples a fold.

    Reference: Chen, Pal, Zhang, Qu, Liu, "Unlearning Isn't Invisible: Detecting Unlearning Traces in LLMs from Model
    Outputs", ICLR 2026, arXiv 2506.14003, from its abstract and code. Differs from the paper, which fine-tunes a
    language model on thousands of written answers to tell the unlearned model from the original, in a classifier of a
    few numbers, in pairs of answers to one input, and in retrained models, which a user of the paper's attack doesn't
    have, in place of the original.
    """

    title: ClassVar[str] = "Unlearning traces"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the probabilities of answers",
        data="test examples that have nothing to do with forget; two or more retrained models",
        budget="one query an example; a classifier of a few numbers",
    )
    needs_own_rows: ClassVar[bool] = True
    shows: ClassVar[str] = "answers told from those of retrained models"
    axis: ClassVar[str] = "answers read together"
    unit: ClassVar[str] = "share told apart"
    sees: ClassVar[str] = "the mark of a head of half the weights"

    folds: Annotated[int, Field(ge=2)] = 5
    penalty: Positive = 0.01
    most: Count = 500

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """How well one model's answers are told from those of retrained models."""
        return self.inspect_all({"model": model}, setting)["model"]

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """The same of each subject, against retrained models other than itself; every model is asked once."""
        retrained = setting.models.retrained
        if not retrained:
            raise MissingReference("Traces: expected a retrained model to compare with, got none.")
        shown = {model: self._shown(model, setting) for model in dict.fromkeys((*subjects.values(), *retrained))}
        by_model = {}
        for model in dict.fromkeys(subjects.values()):
            others = [shown[model] - shown[other] for other in retrained if other is not model]
            by_model[model] = self._told(others)
        return {role: by_model[model] for role, model in subjects.items()}

    def disguise(self, setting: Setting) -> nn.Module | None:
        """The original with a head of half the weights: it answers as before, and is less sure of everything."""
        copied = copy.deepcopy(setting.models.original).eval()
        with suppress(NotSupported), torch.no_grad():
            for p in head_of(copied, setting.job()).parameters():
                p.mul_(0.5)
            return copied
        return None

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How well the unlearned model is told by what it says of other things."""
        if unlearned.value is None:
            return ""
        sentence = f"By its answers about other things it is told from retrained models in {unlearned.value:.2f}"
        return beside(sentence, "each of these from the others in", reference)

    def _shown(self, model: nn.Module, setting: Setting) -> np.ndarray:
        """What the model's answers show, `[n, features]`."""
        test, masked = setting.observed.test, list(setting.request.masked)
        if isinstance(test, Absent):
            raise MissingReference(test.reason)
        signals = observe(model, setting.task, Selection(test, evenly(len(test), self.most)))
        rows = (signals.log_prob, signals.expected, signals.deviation)
        means = [np.array([of.mean() for of in signals.of_rows(values)]) for values in rows]
        other = np.array([not np.isin(of, masked).any() for of in signals.of_rows(signals.target)])
        features = np.column_stack([*means, signals.correct])[other]
        if len(features) < 10 * self.folds:
            raise NotSupported(
                f"Traces: expected {10 * self.folds} test examples or more that have nothing to do with forget, ten a "
                f"fold, got {len(features)}. Give more, or set folds."
            )
        return np.concatenate([features, np.square(features)], 1)

    def _told(self, differences: Sequence[np.ndarray]) -> Inspection:
        """How often a difference to retrained models, `[n, features]` each, is told from its opposite."""
        if not differences:
            return Inspection((), {}, Estimate(value=None, note="needs a retrained model other than itself"))
        n = len(differences[0])
        fold, sides = np.arange(n) % self.folds, np.zeros((len(differences), n))
        for k in range(self.folds):
            weights = self._fitted(np.concatenate([of_model[fold != k] for of_model in differences]))
            for side, of_model in zip(sides, differences, strict=True):
                side[fold == k] = of_model[fold == k] @ weights
        counts = [2**i for i in range(int(np.log2(n // 4)) + 1)]
        together = tuple(float(share_above(summed(sides, count)).mean()) for count in counts)
        value = stats.mean(share_above(sides).mean(0), share=True)
        return Inspection(tuple(map(float, counts)), {"told apart": together}, value)

    def _fitted(self, differences: np.ndarray) -> np.ndarray:
        """The weights `[features]` by which differences `[m, features]` are told from their opposites."""
        from sklearn.linear_model import LogisticRegression

        spread = np.sqrt(np.square(differences).mean(0))
        scaled = np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 0)
        both, whose = np.concatenate([scaled, -scaled]), np.repeat([1, 0], len(scaled))
        strength = 1 / (self.penalty * len(both))
        layer = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000, random_state=0).fit(both, whose)
        return np.asarray(np.divide(layer.coef_[0], spread, out=np.zeros_like(spread), where=spread > 0))


def share_above(sides: np.ndarray) -> np.ndarray:
    """1 where a side is above 0, a half where it is 0, and 0 below."""
    return np.asarray((1 + np.sign(sides)) / 2)


def summed(sides: np.ndarray, count: int) -> np.ndarray:
    """The sums over `count` examples at a time `[models, n // count]`; what is left over is left out."""
    whole = sides.shape[1] // count
    return np.asarray(sides[:, : whole * count].reshape(len(sides), whole, count).sum(2))
