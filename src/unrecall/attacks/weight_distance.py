"""Distance in weight space: how far has unlearning moved the model from the original, beside training it anew?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.evidence.setting import Setting
from unrecall.models.layers import block_weights
from unrecall.models.vector import side_by_side
from unrecall.record.schema import Estimate, Side, ThreatModel


@dataclass(frozen=True)
class WeightDistance(InspectionAttack):
    """How far a model's weights lie from the original's, as a share of the original's length, block by block.

        value = |theta - theta_original|_2 / |theta_original|_2

    over all weights; the line has the same for each block. In its authors' findings a method that moved little hid
    much, and a short fine-tuning soon brings that back. A diagnosis: it takes the original's weights, which no attacker
    has, so that no verdict rests on it.

    Expected to fail: to tell anything where weights may move without the function (before a norm, or neurons in another
    order), where noise was added in place of forgetting, and where retrained models began at the same base checkpoint.

    Reference: Siddiqui, Weller, Krueger, Dziugaite, Mozer, Triantafillou, "From Dormant to Deleted: Tamper-Resistant
    Unlearning Through Weight-Space Regularization", arXiv 2505.22310. Differs from the paper in the share of the
    original's length in place of the distance itself, and in the line over blocks.
    """

    title: ClassVar[str] = "Distance in weights"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights of the model and of the original", data="none", budget="reading both; no forward pass"
    )
    shows: ClassVar[str] = "from the original, as a share of its length"
    axis: ClassVar[str] = "block, input to output"
    unit: ClassVar[str] = "share of the original's length"

    @property
    def leak(self) -> Side | None:
        """What lies nearer to the original than retrained models do keeps more of it."""
        return "below"

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """The distance of each block, and of all."""
        pairs = side_by_side(model, setting.models.original)
        squares = {name: _squares(*pairs[name]) for name, _ in model.named_parameters() if name in pairs}
        blocks = block_weights(model, setting.task)
        line = [share(sum((squares[name] for name in block if name in squares), np.zeros(2))) for block in blocks]
        value = share(sum(squares.values(), np.zeros(2)))
        return Inspection(tuple(range(1, len(line) + 1)), {"distance": tuple(line)}, Estimate(value=value))

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How far the unlearned model lies from the original, beside retrained models."""
        if unlearned.value is None:
            return ""
        sentence = f"The unlearned model's weights lie {unlearned.value:.2f} of the original's length from it"
        return beside(sentence, "retrained models'", reference)


def _squares(own: Tensor, other: Tensor) -> np.ndarray:
    """The sums of squares of a weight's change and of the other's own values."""
    return np.array([float((own.double() - other.double()).square().sum()), float(other.double().square().sum())])


def share(squares: np.ndarray) -> float:
    """The root of the first sum of squares over the second; 0 where both are 0."""
    return float(np.sqrt(squares[0] / squares[1])) if squares[1] else float(squares[0] > 0)
