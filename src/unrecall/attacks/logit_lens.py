"""Logit lens: what a model would answer if it stopped after each of its layers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.evidence.setting import Setting
from unrecall.models.layers import of_one_kind
from unrecall.models.observe import batches, device_of
from unrecall.nn.hooks import mode, shortcut
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel


@dataclass(frozen=True)
class LogitLens(InspectionAttack):
    """Sends what leaves each layer straight to the final norm and the head, and looks for the forgotten answers there.

        z_l = head(norm(h_l)),    l = 1 ... L        h_l leaves layer l; l = L is the model itself

    At each layer: the share of an example's rows whose target is the largest of z_l, and the mean probability of the
    target, over forget. The value is the largest mean probability at any layer *before the last*: whether the answer
    can be read inside. The layers are the longest run of blocks of one kind before the head; one pass for each.

    Expected to fail: early layers need not speak the head's language, so that a low value proves nothing; the best
    layer is chosen after the fact, which the interval leaves out. NotSupported for models whose layers give out
    different shapes, as those of most convolutional networks do.

    Reference: nostalgebraist, "interpreting GPT: the logit lens", LessWrong 2020; as a look into unlearned models in
    Yang et al., "Erase or Hide? Suppressing Spurious Unlearning Neurons", ICLR 2026, arXiv 2509.22263. Differs from
    the latter in reading the answer among the whole vocabulary, not against one wrong answer.
    """

    title: ClassVar[str] = "Logit lens"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights, and what leaves each layer",
        data="the forget examples with their answers",
        budget="one forward pass a layer; no training",
    )
    shows: ClassVar[str] = "probability of the answers before the last layer"
    axis: ClassVar[str] = "layer"
    unit: ClassVar[str] = "mean over forget"

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """Accuracy and probability of the answers at each layer."""
        request, task = setting.request, setting.task
        layers = of_one_kind(self, model, task, request.forget)
        right, likely = [], []
        with mode(model, training=False), torch.no_grad():
            for batch in batches(request.forget, task, device=device_of(model)):
                for layer in layers:
                    with shortcut(layer, layers[-1]):
                        rows = task.rows(model, batch)
                    of_target = F.softmax(rows.logits, 1).gather(1, rows.targets[:, None]).squeeze(1)
                    likely.append(rows.per_example(of_target))
                    right.append(rows.per_example(rows.logits.argmax(1).eq(rows.targets).float()))
        accuracies = [torch.cat(right[i :: len(layers)]) for i in range(len(layers))]
        probabilities = [torch.cat(likely[i :: len(layers)]).double() for i in range(len(layers))]
        best = max(probabilities[:-1], key=lambda probability: float(probability.mean()))
        lines = {
            "accuracy": tuple(float(accuracy.mean()) for accuracy in accuracies),
            "probability": tuple(float(probability.mean()) for probability in probabilities),
        }
        return Inspection(tuple(range(1, len(layers) + 1)), lines, stats.mean(best.cpu().numpy()))

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How well the answers can be read before the last layer, beside retrained models."""
        if unlearned.value is None:
            return ""
        sentence = f"Before its last layer the unlearned model gives the answers a probability of {unlearned.value:.2f}"
        return beside(sentence, "retrained models", reference)
