"""Interpolation: on the straight line from a model to the original, how soon does the forgotten return?"""

import copy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Selection, evenly
from unrecall.data.request import Split
from unrecall.evidence.setting import Setting
from unrecall.models.observe import observe
from unrecall.models.vector import side_by_side
from unrecall.record import stats
from unrecall.record.schema import Estimate, Side, ThreatModel
from unrecall.spec.parameters import Count

SPLITS: tuple[Split, ...] = ("forget", "retain")


@dataclass(frozen=True)
class Interpolate(InspectionAttack):
    """Linear mode connectivity: what a mixture of a model and the original knows of forget and of retain.

        theta(t) = (1 - t) theta + t theta_original,    t = 0 ... 1
        value    = the first t at which P(theta(t)) is at (P(theta) + P(theta_original)) / 2

    P is the mean probability of the targets of forget (to the power of one over an example's rows). The lines are P on
    forget and on retain; between their points the value takes them to be straight, and its interval is the jackknife's
    over examples. The value is 0 where a model shows no less than the original. Where the lines of retain sag between
    the ends there is a barrier: the model lies in another basin, as one trained from other first weights does. Running
    statistics are mixed like weights, and whole numbers stay the model's. A diagnosis: it takes the original's weights,
    which no attacker has, so that no verdict rests on it.

    Args:
        points: of the line, both ends among them.
        most: examples of each split, evenly spread.

    Expected to fail: to tell anything where retrained models began at the original's own first weights or base
    checkpoint: their lines are as straight. A sagging line proves no forgetting: weights in another order are another
    basin and the same function.

    Reference: Siddiqui, Weller, Krueger, Dziugaite, Mozer, Triantafillou, "From Dormant to Deleted: Tamper-Resistant
    Unlearning Through Weight-Space Regularization", arXiv 2505.22310; Frankle, Dziugaite, Roy, Carbin, "Linear Mode
    Connectivity and the Lottery Ticket Hypothesis", ICML 2020, arXiv 1912.05671. Differs from the papers in the
    probability of the targets in place of accuracy and loss, in 11 points in place of 21, and in the one number.
    """

    title: ClassVar[str] = "Interpolation to the original"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights of the model and of the original",
        data="forget and retain examples",
        budget="one forward pass over some examples of each for every mixture; no training",
    )
    shows: ClassVar[str] = "share of the way until forget is half back"
    axis: ClassVar[str] = "share of the original in the mixture"
    unit: ClassVar[str] = "mean probability of the targets"

    points: Annotated[int, Field(ge=2)] = 11
    most: Count = 500

    @property
    def leak(self) -> Side | None:
        """What is only hidden is back sooner than in retrained models."""
        return "below"

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """What each mixture of `model` and the original knows."""
        request, task = setting.request, setting.task
        samples = {split: Selection(request[split], evenly(len(request[split]), self.most)) for split in SPLITS}
        pairs = side_by_side(model, setting.models.original)
        mixture = copy.deepcopy(model).eval()
        mixed, shares = mixture.state_dict(), np.linspace(0, 1, self.points)
        probabilities: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
        for t in shares.tolist():
            with torch.no_grad():
                for name, (own, original) in pairs.items():
                    mixed[name].copy_(torch.lerp(own.float(), original.float(), t))
            for split, examples in samples.items():
                probabilities[split].append(observe(mixture, task, examples).confidence)
        lines = {str(split): tuple(np.mean(values, axis=1).tolist()) for split, values in probabilities.items()}
        return Inspection(tuple(shares.tolist()), lines, half_back(shares, np.stack(probabilities["forget"])))

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How far the forgotten lies from the unlearned model, beside retrained models."""
        if unlearned.value is None:
            return ""
        sentence = f"On the way to the original's weights forget is half back after {unlearned.value:.2f} of it"
        return beside(sentence, "from retrained models after", reference)


def half_back(shares: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """The first share at which the mean over examples is half-way between both ends', with the jackknife's interval.

    `shares` [points], rising; `probabilities` [points, examples]. Of one example there is no interval.
    """
    n = probabilities.shape[1]
    value = float(crossing(shares, probabilities.mean(1, keepdims=True))[0])
    if n < 2:
        return Estimate(value=value, n=n)
    without = (probabilities.sum(1, keepdims=True) - probabilities) / (n - 1)
    estimate = stats.left_out(value, crossing(shares, without))
    ends = {"low": max(0.0, estimate.low or 0.0), "high": min(1.0, estimate.high or 0.0)}
    return estimate.model_copy(update=ends)


def crossing(shares: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Where each of several lines `[points, lines]` is first half-way from first to last level; 0 without a rise."""
    goal = (levels[0] + levels[-1]) / 2
    after = (levels >= goal).argmax(0)
    before, lines = np.maximum(after - 1, 0), np.arange(levels.shape[1])
    low, high = levels[before, lines], levels[after, lines]
    part = np.divide(goal - low, high - low, out=np.zeros_like(goal), where=high > low)
    return np.asarray(shares[before] + part * (shares[after] - shares[before]))
