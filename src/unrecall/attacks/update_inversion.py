"""Update inversion: does the change of the weights say which of the training examples were deleted?"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Absent, Examples, Selection, evenly
from unrecall.errors import MissingReference
from unrecall.evidence.setting import Setting
from unrecall.models.curvature import Curvature, largest, solved
from unrecall.models.importance import Weights, all_weights, mean_gradient, per_example
from unrecall.models.layers import block_weights
from unrecall.models.vector import flat, move, shaped, side_by_side
from unrecall.nn.waiting import ask_for
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count

DAMPING, STEPS, TOLERANCE = 1e-3, 50, 1e-3
"""Of the Newton step: what is added to the Hessian, as a share of its largest eigenvalue, and when solving it stops."""
UNCHANGED, INFINITE = (
    Inspection((), {}, Estimate(value=None, note=note))
    for note in ("its weights are the original's: there is no change", "its weights or gradients aren't finite")
)


@dataclass(frozen=True)
class UpdateInversion(InspectionAttack):
    """Turns the change of the weights back into the gradient of what was deleted, and asks whose gradient that is.

        z        = H (theta - theta_original),      H the Hessian of the mean loss over public examples
        score(x) = cos(d loss(x) / d theta, z),     the gradient at theta_original
        value    = AUC of the scores, forget against retain, 0 to 1

    A Newton step removes examples of gradient g by theta - theta_original = H^-1 g, so that z is g. Both arms were
    trained on; the question is which was deleted. Whoever holds both models can ask it, and in its authors' findings an
    exact retraining of a simple model gives its one deleted example away; what helps is to keep the model of before
    from others. A diagnosis of the release of both, and not of what is left: no verdict rests on it. The line has each
    block's weights alone.

    Args:
        most: public examples, of the test set, and examples of each arm, evenly spread.

    Expected to fail: where forget differs from retain in more than that it was deleted, as a class or mistakes do: any
    change may then tell them apart, and only retrained models show how far; beyond a few deleted examples, of which
    only what is common to them is left in z; where a method, or training anew from other fresh weights, takes no small
    step; where weights are rounded to 16 bits, in which the step for one of many examples is lost. The positive control
    is the best case, an exact Newton step by the same H. NotSupported where an example has no loss of its own;
    MissingReference without a test set.

    Reference: Bertran, Tang, Kearns, Morgenstern, Roth, Wu, "Reconstruction Attacks on Machine Unlearning: Simple
    Models are Vulnerable", NeurIPS 2024, arXiv 2405.20272 (HRec), from its summary. Differs from the paper, which goes
    on to draw the example whose gradient is z, in asking which of the training examples it is.
    """

    title: ClassVar[str] = "Update inversion"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights of both models, before and after unlearning",
        data="public examples; training examples in question, with their labels",
        budget="the curvature of the loss along the change, and each example's gradient",
    )
    needs_own_rows: ClassVar[bool] = True
    shows: ClassVar[str] = "which training examples were deleted, by the change of the weights, AUC"
    axis: ClassVar[str] = "block, input to output"
    unit: ClassVar[str] = "AUC"
    sees: ClassVar[str] = "which examples an exact Newton step deleted"

    most: Count = 500

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """Whose gradient one model's change is."""
        return self.inspect_all({"model": model}, setting)["model"]

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """The same of each subject; every example's gradient is computed once."""
        original = ask_for(setting.models.original)
        weights = all_weights(original)
        changes = {model: _change(model, original, weights) for model in dict.fromkeys(subjects.values())}
        moved = [model for model, change in changes.items() if bool(change.any())]
        if not moved:
            return dict.fromkeys(subjects, UNCHANGED)
        curvature = Curvature(original, setting.task, self._public(setting), weights)
        directions = [shaped(curvature.product(changes[model]), weights) for model in moved]
        groups = [list(weights), *block_weights(original, setting.task)]
        arms = (self._sample(arm) for arm in (setting.observed.forget, setting.observed.retain))
        forget, retain = (_cosines(setting, arm, directions, groups, weights) for arm in arms)
        by_model = {model: _inspection(*pair) for model, *pair in zip(moved, forget, retain, strict=True)}
        return {role: by_model.get(model, UNCHANGED) for role, model in subjects.items()}

    def disguise(self, setting: Setting) -> nn.Module | None:
        """The original after the Newton step that removes forget: what the attack was made for."""
        copied, task = copy.deepcopy(setting.models.original).eval().requires_grad_(True), setting.task
        weights, forget, retain = all_weights(copied), setting.request.forget, setting.request.retain
        summed = len(forget) * flat(mean_gradient(copied, task, self._sample(forget)))
        curvature = Curvature(copied, task, self._public(setting), weights)
        step = solved(curvature, summed / len(retain), DAMPING * largest(curvature), STEPS, TOLERANCE)
        move(copied, weights, step)
        return copied.requires_grad_(False)

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How well the change of the weights tells what was deleted."""
        if unlearned.value is None:
            return ""
        sentence = (
            "Of two training examples, whoever holds both models, of before and after unlearning, finds the deleted "
            f"one in {unlearned.value:.2f} of all cases (by guessing: 0.50)"
        )
        return beside(sentence, "with a retrained model in", reference)

    def _public(self, setting: Setting) -> Selection:
        """The examples of which H is."""
        test = setting.observed.test
        if isinstance(test, Absent):
            raise MissingReference(test.reason)
        return self._sample(test)

    def _sample(self, examples: Examples) -> Selection:
        """At most `most` of the examples."""
        return Selection(examples, evenly(len(examples), self.most))


def _change(model: nn.Module, original: nn.Module, weights: Weights) -> Tensor:
    """The model's weights minus the original's, flat, where the original is."""
    pairs = side_by_side(model, original)
    return flat({name: (pairs[name][0].to(weight) - weight) for name, weight in weights.items()}).detach()


def _cosines(
    setting: Setting,
    examples: Examples,
    directions: Sequence[Weights],
    groups: Sequence[Sequence[str]],
    weights: Weights,
) -> np.ndarray:
    """The cosine of each example's gradient with each direction, in each group of weights.

    `[directions, groups, examples]`; 0 where one of them is 0.
    """
    lengths = torch.stack([torch.stack([_inner(z, z, group, 0) for group in groups]) for z in directions])
    parts = []
    for gradients in per_example(setting.models.original, setting.task, examples, weights):
        squares = torch.stack([_inner(gradients, gradients, group, 1) for group in groups])
        with_each = torch.stack([torch.stack([_inner(gradients, z, group, 1) for group in groups]) for z in directions])
        size = (squares * lengths[..., None]).sqrt()
        parts.append(torch.where(size == 0, 0.0, with_each / size))
    return torch.cat(parts, -1).cpu().numpy()


def _inner(first: Weights, second: Weights, names: Sequence[str], dimensions: int) -> Tensor:
    """The inner products over these weights, in float64; the first `dimensions` of `first` stay."""
    products = [first[name].double() * second[name].double() for name in names]
    return torch.stack([product.reshape(*product.shape[:dimensions], -1).sum(-1) for product in products]).sum(0)


def _inspection(forget: np.ndarray, retain: np.ndarray) -> Inspection:
    """The AUC over all weights, and that of each block: cosines `[groups, examples]`, the first of all weights."""
    if not (np.isfinite(forget).all() and np.isfinite(retain).all()):
        return INFINITE
    values = [stats.auc(*scores) for scores in zip(forget, retain, strict=True)]
    line = tuple(float(value.value or 0.0) for value in values[1:])
    return Inspection(tuple(map(float, range(1, len(line) + 1))), {"block": line}, values[0])
