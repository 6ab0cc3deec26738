"""Activation patching: what the original still makes of another model's inner states, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.attacks.base import ARMS
from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Examples, Selection, evenly
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Setting
from unrecall.models.layers import of_one_kind
from unrecall.models.observe import in_order, observe
from unrecall.nn.hooks import capture, mode
from unrecall.record import stats
from unrecall.record.schema import Estimate, Side, ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import Task


@dataclass(frozen=True)
class Patching(InspectionAttack):
    """Puts what leaves a layer of a model in place of what leaves that layer of the original, and asks the original.

        D_l  = loss of the original with the model's states at layer l, less its own loss        nats, of each example
        depth = sum over l of B_l clip(D_l / B_l, 0, 1) / sum over l of B_l,    l with B_l above `threshold`

    B_l is what it would cost to know nothing of the example. With "retrained" it is D_l of a retrained model (the mean
    over those that are not the model itself): the unlearning depth score. With "holdout", which takes one model only,
    it is the same at each layer: the original's mean loss on the holdout, less its own on the example. The value is the
    mean depth over forget: 0 where the original reads all answers off the model's states, as off its own; 1 where
    it reads nothing. Examples without any such layer are left out. The lines are the probability of the answers with
    the states of each layer (to the power of one over an example's rows), on forget and on the holdout.

    All positions are patched, so that the original's own reading of a prompt can't help. One pass of each model, and
    one more of the original for each layer; the layers are the longest run of blocks of one kind before the head.

    Args:
        beside: what knowing nothing costs: "holdout" or "retrained".
        threshold: in nats, from which on a layer counts; the paper: 0.05.
        most: examples of each set, evenly spread.

    Expected to fail: as evidence without retrained models. The layers of the original that follow know forget and not
    the holdout, so that forget comes out ahead off early layers of any model that sees alike, one that never met it
    too. Where retrained models began at other first weights the original reads nothing off their states at all.
    NotSupported where layers give out different shapes, or the two models have different layers.

    Reference: "Measuring the Depth of LLM Unlearning via Activation Patching" (unlearning depth score, UDS), from its
    code and notes for a paper (EMNLP 2026). Differs from these in the form with a holdout, which is ours, in all
    positions and all tokens of an answer where theirs are those of its key words, and in asking the original of the
    audit.
    """

    title: ClassVar[str] = "Activation patching"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="what leaves each layer, of the model and of the original, which is changed there",
        data="forget and holdout examples with their answers",
        budget="one forward pass a layer; no training",
    )
    shows: ClassVar[str] = "depth, the share of the answers that is gone"
    axis: ClassVar[str] = "layer"
    unit: ClassVar[str] = "probability of the answers"

    beside: Literal["holdout", "retrained"] = "holdout"
    threshold: Positive = 0.05
    most: Count = 500

    @property
    def leak(self) -> Side | None:
        """What is still there costs little to take from the model."""
        return "below"

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """What the original makes of the states of one model."""
        return self.inspect_all({"model": model}, setting)["model"]

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """The same of each subject; every model is looked at once."""
        request, original, retrained = setting.request, setting.models.original, setting.models.retrained
        if not len(request.holdout if self.beside == "holdout" else retrained):
            needed, other = ("a holdout", "retrained") if self.beside == "holdout" else ("a retrained model", "holdout")
            raise MissingReference(f"Patching: expected {needed} to compare with, got none. Set beside='{other}'.")
        samples = {
            arm: Selection(request[arm], evenly(len(request[arm]), self.most)) for arm in ARMS if len(request[arm])
        }
        plain = {arm: observe(original, setting.task, sample).loss for arm, sample in samples.items()}
        others = retrained if self.beside == "retrained" else ()
        read = {
            model: {arm: self._read(model, original, setting.task, sample) for arm, sample in samples.items()}
            for model in dict.fromkeys((*subjects.values(), *others))
        }
        by_model = {}
        for model in dict.fromkeys(subjects.values()):
            losses = read[model]["forget"]
            peers = [read[other]["forget"] - plain["forget"] for other in others if other is not model]
            base = np.mean(peers, axis=0) if peers else None
            if self.beside == "holdout":
                base = np.broadcast_to(plain["holdout"].mean() - plain["forget"], losses.shape)
            lines = {str(arm): tuple(np.exp(-of_layers).mean(1).tolist()) for arm, of_layers in read[model].items()}
            value = self._value(losses - plain["forget"], base)
            by_model[model] = Inspection(tuple(range(1, len(losses) + 1)), lines, value)
        return {role: by_model[model] for role, model in subjects.items()}

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How much of the answers is gone inside, beside retrained models."""
        if unlearned.value is None:
            return ""
        sentence = f"Read by the original, {unlearned.value:.2f} of the answers is gone from the model's inner states"
        return beside(sentence, "from those of retrained models", reference)

    def _value(self, lost: np.ndarray, base: np.ndarray | None) -> Estimate:
        """The mean depth over examples that have one."""
        if base is None:
            return Estimate(value=None, note="needs a retrained model other than itself")
        depths = depth(lost, base, self.threshold)
        counted = depths[np.isfinite(depths)]
        if not len(counted):
            return Estimate(value=None, note="there is no layer at which knowing nothing would cost the original more")
        note = f"beside {self.beside}; {len(depths) - len(counted)} of {len(depths)} examples have no layer that counts"
        return stats.mean(counted, share=True).model_copy(update={"note": note})

    @torch.no_grad()
    def _read(self, model: nn.Module, original: nn.Module, task: Task, examples: Examples) -> np.ndarray:
        """The original's loss of each example with the model's states, `[layers, n]`, in nats, eval mode."""
        own, layers = (of_one_kind(self, either, task, examples) for either in (model, original))
        if len(own) != len(layers):
            raise NotSupported(f"Patching: expected {len(layers)} layers, as the original has, got {len(own)}.")
        by_name = {str(i): layer for i, layer in enumerate(own)}
        parts: list[list[Tensor]] = [[] for _ in layers]
        with mode(model, training=False), mode(original, training=False):
            for batch in in_order(original, task, examples):
                states = dict[str, Tensor]()
                with capture(by_name, partial(_remember, states)):
                    task.rows(model, batch)
                for i, layer in enumerate(layers):
                    with capture({str(i): layer}, partial(_instead, states)):
                        parts[i].append(task.rows(original, batch).exact_losses())
        return np.asarray(torch.stack([torch.cat(part) for part in parts]).cpu().numpy())


def depth(lost: np.ndarray, base: np.ndarray, threshold: float) -> np.ndarray:
    """The unlearning depth score of each example `[n]`; nan where no layer counts. `lost`, `base` `[layers, n]`."""
    counted = np.where(base > threshold, base, 0.0)
    whole = counted.sum(0)
    reached = np.clip(lost, 0, counted).sum(0)
    return np.asarray(np.divide(reached, whole, out=np.full(len(whole), np.nan), where=whole > 0))


def _remember(states: dict[str, Tensor], name: str, output: Tensor) -> None:
    """Keeps what leaves a layer, copied, since what follows may work in place."""
    states[name] = output.clone()


def _instead(states: Mapping[str, Tensor], name: str, output: Tensor) -> Tensor:
    """The state in place of what leaves a layer; NotSupported where shapes differ."""
    state = states[name]
    if state.shape != output.shape:
        raise NotSupported(
            f"Patching: expected states of shape {tuple(output.shape)}, as the original's, got {tuple(state.shape)}."
        )
    return state.to(output)
