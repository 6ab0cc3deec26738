"""Attribution: did what supported the answers go away, or did neurons learn to work against it?"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.attacks.inspection import Inspection, InspectionAttack
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Setting
from unrecall.models.influence import NeuronInfluence, Probability, neuron_influence
from unrecall.models.observe import batches, device_of
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count

TINY = 1e-30
"""A probability of the answers below which float32 can't carry its gradients."""
FADED = 0.1
"""The share of the original's confidence below which nothing can be read off the influences that are left."""
KEPT = 0.5
"""The share of the original's confidence above which a model that is as often right as before has forgotten nothing."""
UNCHANGED = 0.005
"""A fall of accuracy that is none."""
NEGLIGIBLE = 0.01
"""A change of influence, as a share of the original's, that is called none."""
CLOSE = 0.1
"""A difference of shares that is none."""


@dataclass(frozen=True)
class Attribution(InspectionAttack):
    """Compares how much each neuron adds to the probability of the forgotten answers before and after unlearning.

        A_{i,k} = h_{i,k} dP(y|x)/dh_{i,k}    neuron i, position k; A the original's, A' the unlearned model's
        D+_i    = max(0, (1/n) sum_x [max(0, max_k A_{i,k}) - max(0, max_k A'_{i,k})])
        D-_i    = max(0, (1/n) sum_x [min(0, min_k A_{i,k}) - min(0, min_k A'_{i,k})])

    D+ is support that is gone (erased), D- resistance that was learned (hidden: "spurious unlearning neurons"). Neurons
    are the outputs of every linear layer but the head: in a Llama Q, K, V, O, gate, up and down, as in the paper, and
    whatever is linear in other models (NotSupported where nothing is). Positions are those that hold input. The lines
    are the sums of the m largest D+ and of the m largest D-, sorted apart; the value is the share of D- among both at
    m = `top`. Without a value where the two together are below 1 % of the original's m largest max_k A (nothing
    changed), or where nothing was forgotten: as many rows are right as before, at more than half the probability. The
    interval takes the choice of neurons as given.

    Args:
        top: how many neurons of each kind the value is about.
        probability: of an answer: the "product" of its rows' probabilities (the paper's); their geometric "mean", or
            the "log" of the product, for answers so long that the product vanishes.
        batch_size: examples a pass, forward and back. Two numbers for each example and neuron are held.

    Expected to fail: dP/dh vanishes where P is next to 0 and where it is next to 1. A model that is sure of something
    else would look erased however it got there, so there is no value where rows are less than a tenth as probable as
    in the original; beside an original that is sure of the answers, any doubt looks hidden. "log" mends the first, but
    then retrained models look hidden too. They share no neurons with the original and show what absence of the answers
    looks like, not what became of a neuron. A large share is a sign of hiding, no proof.

    Reference: Yang, Kim, Kwon, Kim, Jung, Cha, "Erase or Hide? Suppressing Spurious Unlearning Neurons", ICLR 2026,
    arXiv 2509.22263, from notes; m = 100 is that of its figures. Differs from the paper in the share as one number, and
    in cutting A (and A' in D-) at 0, so that support which is lost at every position is no resistance. Where one
    position has no influence, as the last of every text, the cut changes nothing.
    """

    title: ClassVar[str] = "Attribution"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights before and after unlearning, and gradients of both",
        data="the forget examples with their answers",
        budget="one pass, forward and back, over forget for each model; no training",
    )
    named_by: ClassVar[tuple[str, ...]] = ("top",)
    shows: ClassVar[str] = "share of the change that hides"
    axis: ClassVar[str] = "neurons, those that changed most first"
    unit: ClassVar[str] = "change of influence, summed"

    top: Count = 100
    probability: Probability = "product"
    batch_size: Count = 8

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """How support and resistance of each neuron differ from the original's, and the share of the latter."""
        inspection, before, after = self.compared(model, setting)
        fell = before.right - after.right >= UNCHANGED or after.sure <= KEPT * before.sure
        if inspection.value.value is None or before.right == 0 or fell:
            return inspection
        note = (
            f"nothing was forgotten that could be erased or hidden: {before.right:.3f} of the rows of forget were "
            f"right and {after.right:.3f} are, at a probability of {before.sure:.2g} and {after.sure:.2g}"
        )
        return inspection._replace(value=Estimate(value=None, n=inspection.value.n, note=note))

    def compared(self, model: nn.Module, setting: Setting) -> "tuple[Inspection, Known, Known]":
        """The same whether or not anything was forgotten; and what was known of forget before and after."""
        original, forget, task = setting.models.original, setting.request.forget, setting.task
        variations: list[Variation] = []
        support, answers = torch.zeros(1), 0.0
        knowledge = torch.zeros(2, 2, dtype=torch.float64)  # before and after: confidence, share of rows right
        for batch in batches(forget, task, self.batch_size, device_of(model)):
            original_side, model_side = (
                neuron_influence(each, task, batch, self.probability) for each in (original, model)
            )
            if original_side.highest.shape != model_side.highest.shape:
                raise NotSupported(
                    f"Attribution: expected the neurons of the original, {original_side.highest.shape[1]} in number, "
                    f"got {model_side.highest.shape[1]}. Merge adapters first."
                )
            variations.append(variation(original_side, model_side))
            support = support + original_side.highest.sum(0).cpu() / len(forget)
            answers += float(original_side.probability.sum()) / len(forget)
            sides = [torch.stack([side.confidence.sum(), side.right.sum()]) for side in (original_side, model_side)]
            knowledge += torch.stack(sides).double().cpu() / len(forget)
        whole = Variation(*(torch.cat(parts) for parts in zip(*variations, strict=True)))
        counts = np.unique(np.geomspace(1, whole.positive.shape[1], 20).round().astype(int))
        lines = {
            name: tuple(_largest(changes.double().mean(0), changes.shape[1]).cumsum(0)[counts - 1].tolist())
            for name, changes in whole._asdict().items()
        }
        before, after = (Known(*side) for side in knowledge.tolist())
        if self.probability != "log" and after.sure < FADED * before.sure:
            note = (
                f"a row's probability fell from {before.sure:.2g} to {after.sure:.2g}, and what neurons add to it "
                "shrinks with it"
            )
            faded = Inspection(tuple(counts.tolist()), lines, Estimate(value=None, n=len(whole.positive), note=note))
            return faded, before, after
        value = self._share(whole, float(_largest(support.double(), self.top).sum()))
        if self.probability == "product" and answers < TINY:
            note = (
                f"the original's mean P of the answers is {answers:.1e}, too small for its gradients; not the product "
                "but the mean or log should be attributed"
            )
            value = value.model_copy(update={"note": note})
        return Inspection(tuple(counts.tolist()), lines, value), before, after

    def _share(self, whole: "Variation", support: float) -> Estimate:
        """sum of top D- over sum of top D- and top D+, by the ratio estimator over examples."""
        erased, hidden = (_of_top(changes.double(), self.top) for changes in whole)
        total = float((erased + hidden).mean())
        if total <= NEGLIGIBLE * support or total == 0:
            return Estimate(value=None, n=len(hidden), note="nothing changed inside")
        share = stats.ratio(hidden.numpy(), (hidden + erased).numpy())
        if share.low is None or share.high is None:
            return share
        return share.model_copy(update={"low": max(0.0, share.low), "high": min(1.0, share.high)})

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """Erased, hidden, or neither; and what retrained models show."""
        if unlearned.value is None:
            return f"Neither erased nor hidden can be said: {unlearned.note}."
        low, high = (unlearned.value if end is None else end for end in (unlearned.low, unlearned.high))
        word = "Erased more than hidden" if high < 0.5 else "In part erased, in part hidden"
        if low > 0.5:
            usual = reference is not None and reference > low - CLOSE
            word = "No more hidden than in retrained models" if usual else "Hidden more than erased"
        share = f"{100 * unlearned.value:.0f} % of the change is neurons that came to work against the answers"
        beside = "" if reference is None else f"; in retrained models it is {100 * reference:.0f} %"
        return f"{word}: {share}{beside}."


class Known(NamedTuple):
    """What a model knows of forget, mean over examples: its confidence, and the share of rows that it has right."""

    sure: float
    right: float


class Variation(NamedTuple):
    """What each example adds to each neuron's D+ and D-, before mean and cut, on the CPU `[examples, neurons]`."""

    positive: Tensor
    negative: Tensor


def variation(before: NeuronInfluence, after: NeuronInfluence) -> Variation:
    """How much support went, and how much resistance came."""
    positive = before.highest.clamp_min(0) - after.highest.clamp_min(0)
    return Variation(positive.cpu(), (before.lowest.clamp_max(0) - after.lowest.clamp_max(0)).cpu())


def _largest(values: Tensor, count: int) -> Tensor:
    """The `count` largest values cut at 0, largest first; all of them where there are fewer."""
    return values.clamp_min(0).topk(min(count, len(values))).values


def _of_top(changes: Tensor, count: int) -> Tensor:
    """Each example's sum over the neurons whose mean is among the `count` largest and above 0 `[examples]`."""
    mean = changes.mean(0)
    largest = mean.topk(min(count, len(mean))).indices
    return changes[:, largest[mean[largest] > 0]].sum(1)
