"""CKA by layer: how much of another model's inner view of the examples a model shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Examples, Part, evenly
from unrecall.data.request import Request, Split
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Setting
from unrecall.models.layers import before_head, named, pooled
from unrecall.models.observe import batches, device_of, repeated
from unrecall.nn.hooks import capture, mode
from unrecall.record import stats
from unrecall.record.schema import Estimate, Side, ThreatModel
from unrecall.spec.parameters import Count
from unrecall.tasks.base import Task

FEWEST = 4
"""Examples below which any two views are alike."""
LOOKED: tuple[Split, ...] = ("forget", "retain")


class View(NamedTuple):
    """How one model sees the examples: by split, the Gram matrix `[n, n]` of each layer's centred features."""

    layers: tuple[str, ...]
    grams: Mapping[Split, Sequence[np.ndarray]]


class Alignment(NamedTuple):
    """CKA of two views, in [0, 1], and what it is without each of the examples `[n]`."""

    value: float
    without: np.ndarray


@dataclass(frozen=True)
class CKA(InspectionAttack):
    """Linear centred kernel alignment between a model's layers and the same layers of another model.

        CKA(X, Y) = |Y'X|_F^2 / (|X'X|_F |Y'Y|_F)        X, Y: features of the same n examples, centred, [n, d]

    In [0, 1]; 1 where the features are the same up to rotation and one scale. The lines are CKA at each layer, on
    forget and on retain. The value is the mean over layers on forget, with the jackknife's interval over examples.
    Features are averaged over space (channels come first) or over the positions that hold input. 0 where one of the
    two is the same for all examples.

    Args:
        beside: which model: the "original" (how much of its inner view is left; retrained models show how much a model
            has that never met the data), or the "retrained" ones (the mean over those that are not the model itself).
        layers: dotted names of the modules whose outputs are compared; the task's blocks before the head by default.
        most: examples of each split, evenly spread.

    Expected to fail: retrained models see much as the original does, more so in early layers and on samples, whose
    like they know; then there is little room between them. With fewer examples than features any two views look alike.
    A few directions of large variance decide. Being alike inside is not knowing: a head that reads nothing of it off
    leaves it as it is.

    Reference: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019,
    arXiv 1905.00414; against the original model over depth in "Erase at the Core", arXiv 2602.05375, from notes.
    Differs from the papers in a retrained model beside it, the mean over layers, and the interval.
    """

    title: ClassVar[str] = "CKA by layer"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="what leaves each layer, of the model and of the one it is compared with",
        data="forget and retain examples",
        budget="one forward pass over some examples of each; no training",
    )
    shows: ClassVar[str] = "likeness on forget, mean over layers"
    axis: ClassVar[str] = "layer, input to output"
    unit: ClassVar[str] = "linear CKA"

    beside: Literal["original", "retrained"] = "original"
    layers: tuple[str, ...] = ()
    most: Count = 500

    @property
    def leak(self) -> Side | None:
        """More like the original than retrained models are; a model unlike retrained ones may leak or be damaged."""
        return "above" if self.beside == "original" else None

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """CKA between `model` and the original."""
        return self.inspect_all({"model": model}, setting)["model"]

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """CKA of each subject; every model is looked at once."""
        models, request, task = setting.models, setting.request, setting.task
        others = (models.original,) if self.beside == "original" else models.retrained
        if not others:
            raise MissingReference("CKA: expected a retrained model to compare with, got none. Set beside='original'.")
        views = {model: self._view(model, request, task) for model in dict.fromkeys(others)}
        by_model = {}
        for model in dict.fromkeys(subjects.values()):
            view = views[model] if model in views else self._view(model, request, task)
            peers = [other for other in views if self.beside == "original" or other is not model]
            by_model[model] = self._compared(view, [views[other] for other in peers])
        return {role: by_model[model] for role, model in subjects.items()}

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How alike the unlearned model is inside, beside retrained models."""
        if unlearned.value is None:
            return ""
        whom = "the original" if self.beside == "original" else "retrained models"
        sentence = f"Inside, the unlearned model's view of forget is like that of {whom} by {unlearned.value:.2f} of 1"
        other = "retrained models'" if self.beside == "original" else "theirs among themselves"
        return beside(sentence, f"{other} by", reference)

    def _compared(self, view: View, others: Sequence[View]) -> Inspection:
        """One model compared with others: the mean over them."""
        if not others:
            return Inspection((), {}, Estimate(value=None, note="needs a retrained model other than itself"))
        if any(len(other.layers) != len(view.layers) for other in others):
            raise NotSupported(
                f"CKA: expected as many layers as the other model has, {len(others[0].layers)}, got "
                f"{len(view.layers)}. Name those that both have: CKA(layers=(...))."
            )
        pairs = {
            split: [[alignment(*both) for both in zip(grams, other.grams[split], strict=True)] for other in others]
            for split, grams in view.grams.items()
        }
        lines: dict[str, tuple[float, ...]] = {
            split: tuple(np.mean([[layer.value for layer in layers] for layers in by_other], axis=0).tolist())
            for split, by_other in pairs.items()
        }
        without = np.mean([layer.without for layers in pairs["forget"] for layer in layers], axis=0)
        value = stats.left_out(float(np.mean(lines["forget"])), without)
        names = view.layers if len(view.layers) <= 8 else (*view.layers[:3], "...", *view.layers[-3:])
        note = f"beside the {self.beside}; {len(view.layers)} layers: {', '.join(names)}"
        low, high = max(0.0, value.low or 0.0), min(1.0, value.high or 0.0)
        value = value.model_copy(update={"low": low, "high": high, "note": note})
        return Inspection(tuple(range(1, len(view.layers) + 1)), lines, value)

    def _view(self, model: nn.Module, request: Request, task: Task) -> View:
        """One forward pass over some of forget and some of retain."""
        first = next(batches(request.forget, task, 1, device_of(model)))
        layers = named(model, self.layers) or before_head(model, task, first)
        if not layers:
            raise NotSupported("CKA: expected layers before the head, got none. Name some: CKA(layers=(...)).")
        grams: dict[Split, Sequence[np.ndarray]] = {}
        for split in LOOKED:
            n = len(request[split])
            if min(n, self.most) < FEWEST:
                raise NotSupported(f"CKA: expected at least {FEWEST} {split} examples, got {min(n, self.most)}.")
            features = _features(model, layers, Part(request[split], evenly(n, self.most)), task)
            grams[split] = [gram(features[name]) for name in layers]
        return View(tuple(layers), grams)


@torch.no_grad()
def _features(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples, task: Task
) -> dict[str, np.ndarray]:
    """What leaves each layer `[n, d]`, in eval mode, float32."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    done = 0
    with mode(model, training=False):
        for batch in batches(examples, task, device=device_of(model)):
            before, n = repeated(batch, done), len(batch["index"])
            held, features = task.positions(batch), dict[str, np.ndarray]()

            def look(name: str, output: Tensor) -> None:
                features[name] = _taken(output, held, n)  # noqa: B023

            with capture(layers, look):
                task.rows(model, batch)
            if absent := [name for name in layers if name not in features]:
                raise NotSupported(f"CKA: expected every layer to be in use, but nothing leaves '{absent[0]}'.")
            for name, vectors in features.items():
                parts[name].append(vectors[before:])
            done += n - before
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _taken(output: Tensor, held: Tensor | None, n: int) -> np.ndarray:
    """One vector an example `[n, d]`, copied, since what follows the layer may work in place."""
    if output.ndim < 2 or len(output) != n:
        raise NotSupported(f"CKA: expected layers that give out [{n} examples, ...], got {tuple(output.shape)}.")
    return np.array(pooled(output, held).cpu().numpy())


def gram(features: np.ndarray) -> np.ndarray:
    """XX' of the centred features, `[n, n]`; 0 where they differ by no more than float32 rounds off."""
    centred = features.astype(np.float64)
    centred -= centred.mean(0)
    if np.abs(centred).max() <= 1e-6 * np.abs(features).max():
        centred[:] = 0
    return np.asarray(centred @ centred.T)


def alignment(first: np.ndarray, second: np.ndarray) -> Alignment:
    """CKA from two Gram matrices K = XX' and L = YY' of centred features, since |Y'X|^2 = sum over i, j of K_ij L_ij.

    Without example i, all others centred anew, |Y'X|^2 is  S - 2 f a_i + f^2 K_ii L_ii,  with S the sum over all,
    a_i = sum over j of K_ij L_ij and f = n / (n - 1).
    """
    f = len(first) / (len(first) - 1)

    def product(k: np.ndarray, l: np.ndarray) -> np.ndarray:  # noqa: E741
        rows = (k * l).sum(1)
        return np.asarray(np.r_[rows.sum(), rows.sum() - 2 * f * rows + f**2 * k.diagonal() * l.diagonal()])

    scale = np.sqrt(product(first, first).clip(0) * product(second, second).clip(0))
    varied = scale > 1e-12 * scale[0]
    values = np.divide(product(first, second), scale, out=np.zeros_like(scale), where=varied).clip(0, 1)
    return Alignment(float(values[0]), values[1:])
