"""CKA by layer: how much of another model's inner view of the examples a model shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Examples, Selection, evenly
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

FEWEST = 5
"""Examples that CKA needs: four, and one that can be left out."""
LOOKED: tuple[Split, ...] = ("forget", "retain")


class View(NamedTuple):
    """How one model sees the examples: by split, the Gram matrix `[n, n]` of each layer's centred features."""

    layers: tuple[str, ...]
    grams: Mapping[Split, Sequence[np.ndarray]]


class Alignment(NamedTuple):
    """CKA of two views, at most 1 and about 0 or above, and what it is without each of the examples `[n]`."""

    value: float
    without: np.ndarray


@dataclass(frozen=True)
class CKA(InspectionAttack):
    """Linear centred kernel alignment between a model's layers and the same layers of another model.

        CKA(X, Y) = |Y'X|_F^2 / (|X'X|_F |Y'Y|_F)        X, Y: features of the same n examples, centred, [n, d]

    In [0, 1]; 1 where the features are the same up to rotation and one scale. It is estimated without bias (see
    `alignment`), for on few examples the formula itself finds any two views alike: with 64 features that share a fifth
    it gives 0.89 at n = 10 and 0.51 at n = 100. The lines are CKA at each layer, on forget and on retain. The value is
    the mean over layers on forget, with the jackknife's interval over examples (see `estimate`).
    Features are averaged over space (channels come first) or over the positions that hold input. 0 where one of the
    two is the same for all examples.

    Args:
        beside: which model: the "original" (how much of its inner view is left; retrained models show how much a model
            has that never met the data), or the "retrained" ones (the mean over those that are not the model itself).
        layers: dotted names of the modules whose outputs are compared; the task's blocks before the head by default.
        most: examples of each split, evenly spread.

    Expected to fail: retrained models see much as the original does, more so in early layers and on samples, whose
    like they know; then there is little room between them. On few examples the interval is wide, which it has to be.
    A few directions of large variance decide. Being alike inside is not knowing: a head that reads nothing of it off
    leaves it as it is.

    Reference: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019,
    arXiv 1905.00414; against the original model over depth in "Erase at the Core", arXiv 2602.05375, from notes.
    Differs from the papers in the estimator (Song, Smola, Gretton, Bedo, Borgwardt, "Feature Selection via Dependence
    Maximization", JMLR 2012; in CKA: Nguyen, Raghu, Kornblith, "Do Wide and Deep Networks Learn the Same Things?", ICLR
    2021, arXiv 2010.15327), in a retrained model beside it, the mean over layers, and the interval.
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
            split: tuple(np.mean([[layer.value for layer in layers] for layers in by_other], axis=0).clip(0).tolist())
            for split, by_other in pairs.items()
        }
        layers = [layer for by_other in pairs["forget"] for layer in by_other]
        without = np.mean([layer.without for layer in layers], axis=0)
        value = estimate(float(np.mean([layer.value for layer in layers])), without)
        names = view.layers if len(view.layers) <= 8 else (*view.layers[:3], "...", *view.layers[-3:])
        note = f"beside the {self.beside}; {len(view.layers)} layers: {', '.join(names)}"
        value = value.model_copy(update={"note": note})
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
            features = _features(model, layers, Selection(request[split], evenly(n, self.most)), task)
            if not self.layers:  # GPT-2's embeddings of positions give out one row for all examples
                layers = {name: layer for name, layer in layers.items() if name in features}
            if absent := [name for name in layers if name not in features]:
                raise NotSupported(f"CKA: expected layers that give out a row for each example, got '{absent[0]}'.")
            grams[split] = [gram(features[name]) for name in layers]
        return View(tuple(layers), grams)


@torch.no_grad()
def _features(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples, task: Task
) -> dict[str, np.ndarray]:
    """What leaves each layer `[n, d]`, in eval mode, float32; nothing of one that gives one row for all examples."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    count = 0
    with mode(model, training=False):
        for batch in batches(examples, task, device=device_of(model)):
            before, n = repeated(batch, count), len(batch["index"])
            held, features = task.positions(batch), dict[str, np.ndarray]()

            def look(name: str, output: Tensor) -> None:
                shared = output.ndim > 1 and len(output) == 1 < n  # noqa: B023
                features[name] = np.zeros(0) if shared else _vectors(output, held, n)  # noqa: B023

            with capture(layers, look):
                task.rows(model, batch)
            if absent := [name for name in layers if name not in features]:
                raise NotSupported(f"CKA: expected every layer to be in use, but nothing leaves '{absent[0]}'.")
            for name, vectors in features.items():
                parts[name].append(vectors[before:])
            count += n - before
    return {name: np.concatenate(arrays) for name, arrays in parts.items() if all(len(array) for array in arrays)}


def _vectors(output: Tensor, held: Tensor | None, n: int) -> np.ndarray:
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
    """CKA without bias from two Gram matrices XX' and YY' of the same n examples, and without each of them.

    For K and L, the Gram matrices with a diagonal of 0, k and l their sums over rows, and 1'k the sum of k,

        HSIC(K, L) = (sum of K_ij L_ij + 1'k 1'l / ((n - 1)(n - 2)) - 2 k'l / (n - 2)) / (n (n - 3))

    whose mean is |cov(Y, X)|^2 / 4 up to one factor, whatever n is. CKA is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).
    """

    def without_diagonal(gram: np.ndarray) -> np.ndarray:
        return gram - np.diag(gram.diagonal())

    first_gram, second_gram = without_diagonal(first), without_diagonal(second)
    scale = np.sqrt(_hsic(first_gram, first_gram).clip(0) * _hsic(second_gram, second_gram).clip(0))
    varied = scale > 1e-12 * scale[0]
    values = np.divide(_hsic(first_gram, second_gram), scale, out=np.zeros_like(scale), where=varied)
    return Alignment(float(values[0]), values[1:])


def estimate(value: float, without: np.ndarray) -> Estimate:
    """CKA with an interval in [0, 1]: the wider one of the jackknife's on it, and on Fisher's z of its root.

    Like a squared correlation it is skewed near 0, where the first alone is too narrow; near 1 so is the second.
    """

    def z(cka: np.ndarray) -> np.ndarray:
        return np.asarray(np.sign(cka) * np.arctanh(np.sqrt(np.abs(cka).clip(0, 1 - 1e-12))))

    plain, turned = stats.left_out(value, without), stats.left_out(float(z(np.array(value))), z(without))
    low, high = (np.array([getattr(interval, end) for interval in (plain, turned)]) for end in ("low", "high"))
    low[1], high[1] = (np.sign(end[1]) * np.tanh(end[1]) ** 2 for end in (low, high))
    within = {"value": value, "low": low.min(), "high": high.max()}
    return plain.model_copy(update={name: min(1.0, max(0.0, float(number))) for name, number in within.items()})


def _hsic(k: np.ndarray, l: np.ndarray) -> np.ndarray:  # noqa: E741
    """HSIC of all n examples, and without each of them `[n + 1]`; diagonals are 0."""
    n, rows, sums, others = len(k), (k * l).sum(1), k.sum(1), l.sum(1)
    crossed = sums * others + l @ sums + k @ others - rows
    size = np.r_[n, np.full(n, n - 1)]
    both = np.r_[rows.sum(), rows.sum() - 2 * rows]
    totals = np.r_[sums.sum(), sums.sum() - 2 * sums] * np.r_[others.sum(), others.sum() - 2 * others]
    products = np.r_[sums @ others, sums @ others - crossed]
    whole = both + totals / ((size - 1) * (size - 2)) - 2 * products / (size - 2)
    return np.asarray(whole / (size * (size - 3)))
