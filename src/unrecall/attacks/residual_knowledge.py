"""Residual knowledge: does the model still recognise forgotten examples that were slightly perturbed?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from scipy import special
from torch import nn

from unrecall.attacks.base import ScoredAttack, ScoreReading
from unrecall.data.batches import Batch, move, repeat
from unrecall.data.examples import Examples
from unrecall.errors import MissingReference
from unrecall.evidence.pool import ArmIndices, Pool
from unrecall.evidence.scores import Scores, mean_of_defined
from unrecall.evidence.setting import Setting, Subject
from unrecall.models.observe import batches, device_of
from unrecall.models.perturb import Walk, fgsm, noise_like, other_classes, pgd, width
from unrecall.nn.hooks import channels_last, mode
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count, NonNegative
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Perturbable, perturbable
from unrecall.training.randomness import draw_seed, seeded

FEWEST = 10
"""The fewest draws an example to which a precision brings them: with fewer, its own share would say little."""


class _Drawn(NamedTuple):
    """All draws of some examples at one radius, draw by draw within each example."""

    radius: int
    draws: int
    batch: Batch


@dataclass(frozen=True)
class ResidualKnowledge(ScoredAttack):
    """Counts how often a model classifies perturbed forget examples as what they were.

        r_tau(x, y) = #{j <= c: m(x'_j) = y} / #{j <= c: a(x'_j) = y}      m the subject, a a retrained model
        gaussian:   x'_j = clamp(x + tau * N(0, I))                        the same draws for every model
        fgsm, pgd:  x'_j within tau of x, crafted against m towards a random y'_j != y, shown to m and to every a

    A retrained model is 1 by construction; above 1 knowledge is left, below 1 the model over-forgot. An example is
    recognised if all its rows are predicted right. All draws of a chunk of examples are one batch, each model sees
    each batch once, and the same standard draws are scaled to each radius, so that a curve isn't jagged by chance.

    Args:
        radius_max: largest radius, as a share of the width of the task's bounds.
        points: how many radii, equally spaced from 0.
        draws: draws an example at each radius (c in the paper); radius 0 needs only one.
        precision: the most that drawing may add to the standard error of the share that a model recognises. Above 0
            each of n examples gets 1 / (4 n precision^2) draws, at least 10 and at most `draws`; at 0 always `draws`.
        perturbation: gaussian noise of standard deviation tau, or targeted fgsm or pgd in the l-infinity ball.
        pgd_steps, pgd_step: number and size of pgd steps, the latter a share too; it starts at a random point.
        batch_size: inputs a forward pass, but at least one example with all its draws. On two CPU cores larger passes
            are no faster and may cost page faults; on a GPU give it thousands.

    MissingReference without a retrained model.

    Expected to fail: where the retrained model never recognises an example the ratio is undefined; `zero_denominators`
    counts them. Gaussian noise of standard deviation tau has an l2 norm of about tau * sqrt(d), not tau.

    Reference: Hsu, Niroula, He, Brugere, Lecue, Chen, "The Unseen Threat: Residual Knowledge in Machine Unlearning
    under Perturbed Samples", NeurIPS 2025, arXiv 2601.22359, eq. 4 and appendix B.4. Differs from the paper in that a
    radius reuses the draws of the one before it, and in saying what happens to zero denominators.
    """

    title: ClassVar[str] = "Residual knowledge"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the unlearned model's predictions; its gradients for fgsm and pgd",
        data="the forget examples and their labels; a retrained model to compare with",
        budget="up to 100 perturbed copies of each example at each radius",
    )

    reading: ClassVar[ScoreReading] = "recognition"
    needs: ClassVar[tuple[type, ...]] = (Perturbable,)
    needs_own_rows: ClassVar[bool] = True
    paired: ClassVar[bool] = True
    judged: ClassVar[str] = "sums"

    radius_max: NonNegative = 8 / 255
    points: Count = 11
    draws: Count = 100
    precision: NonNegative = 0.0
    perturbation: Literal["gaussian", "fgsm", "pgd"] = "gaussian"
    pgd_steps: Count = 10
    pgd_step: NonNegative = 2 / 255
    batch_size: Count = 200

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii, smallest first."""
        return tuple(float(radius) for radius in np.linspace(0, self.radius_max, self.points))

    def of_examples(self, n: int) -> "ResidualKnowledge":
        """This attack on n forget examples, with as many draws as its precision takes."""
        enough = math.ceil(0.25 / (n * self.precision**2)) if self.precision else self.draws
        return replace(self, draws=min(self.draws, max(FEWEST, enough)), precision=0.0)

    @property
    def compares(self) -> bool:  # type: ignore[override]
        """Crafted inputs are shown to retrained models too."""
        return self.perturbation != "gaussian"

    def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:
        """The share of the draws of each example that is recognised, one point a radius."""
        perturbable(setting.task)
        if not setting.models.references():  # all figures are ratios to one, and passes are many
            raise MissingReference("ResidualKnowledge: expected a retrained model to compare with, got none.")
        if self.precision:
            return self.of_examples(len(setting.request.forget)).scores(subject, pool, setting)
        seed, task = draw_seed(pool.generator()), setting.task
        crafted = self.perturbation != "gaussian"
        others = [other for role, other in setting.models.references().items() if role != subject.role]
        models = [subject.model, *(others if crafted else ())]
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(mode(model, training=False))
                stack.enter_context(channels_last(model))
            craft = self._crafted if crafted else self._noisy
            counts = [self._count(craft(subject.model, part, task, seed), models, part, task) for part in pool.tested]
        shares = [{model: count / self.draws for model, count in part.items()} for part in counts]
        return Scores(
            budgets=np.array(self.radii),
            variants=("",) * self.points,
            shown=tuple(part[subject.model] for part in shares),
            losses=tuple(np.full(self.points, np.nan) for _ in pool.tested),
            beside=tuple(np.stack([part[model] for model in others]) for part in shares) if crafted and others else (),
        )

    def recognition(self, role: str, scores: Mapping[str, Scores], place: ArmIndices) -> "Recognition":
        """The counts of one model, and those of all retrained models but itself on the very same inputs."""
        if self.precision:
            return self.of_examples(len(place.positions)).recognition(role, scores, place)
        crafted = scores[role].beside
        beside = [scores[name].at(place) for name in scores if name.startswith("retrained") and name != role]
        if crafted:
            beside = list(crafted[place.in_set][:, :, place.positions])
        subject = self._counts(scores[role].at(place))
        references = self._counts(np.array(beside).reshape(-1, *subject.shape))
        return Recognition(self.radii, self.draws, subject, references)

    def _counts(self, shares: np.ndarray) -> np.ndarray:
        """The counts that these shares of the draws stand for."""
        return np.asarray(np.rint(shares * self.draws).astype(np.int64))

    def _chunks(self, model: nn.Module, examples: Examples, task: Task) -> Iterator[Batch]:
        """The examples in order, as many at once as fit with all their draws."""
        return batches(examples, task, max(1, self.batch_size // self.draws), device_of(model))

    def _noisy(self, model: nn.Module, examples: Examples, task: Task, seed: int) -> Iterator[_Drawn]:
        """Each chunk with Gaussian noise, the same standard draws at every radius."""
        continuous, generator = perturbable(task), seeded(seed)
        for chunk in self._chunks(model, examples, task):
            copies = repeat(chunk, self.draws)
            clean = continuous.inputs(copies)
            noise = torch.cat([noise_like(part, generator) for part in torch.split(clean, self.draws)])
            for i, radius in enumerate(self.radii):
                if radius == 0:
                    yield _Drawn(i, 1, chunk)
                else:
                    moved = torch.add(clean, noise, alpha=radius * width(continuous)).clamp_(*continuous.bounds)
                    yield _Drawn(i, self.draws, continuous.with_inputs(copies, moved))

    def _crafted(self, model: nn.Module, examples: Examples, task: Task, seed: int) -> Iterator[_Drawn]:
        """At each radius each chunk, moved so that the model takes it for another class, drawn at random."""
        for i, radius in enumerate(self.radii):
            wishes, starts = seeded(seed), seeded(seed + 1)
            for chunk in self._chunks(model, examples, task):
                if radius == 0:
                    yield _Drawn(i, 1, chunk)
                    continue
                copies = repeat(chunk, self.draws)
                with torch.no_grad():
                    rows = task.rows(model, copies)
                targets = other_classes(rows.targets, rows.logits.shape[1], wishes)
                if self.perturbation == "fgsm":
                    moved = fgsm(model, task, copies, radius=radius, targets=targets)
                else:
                    walk = Walk(radius, self.pgd_step, self.pgd_steps, targets=targets)
                    moved = pgd(model, task, copies, walk, starts)
                yield _Drawn(i, self.draws, moved)

    def _count(
        self, drawn: Iterator[_Drawn], models: Sequence[nn.Module], examples: Examples, task: Task
    ) -> dict[nn.Module, np.ndarray]:
        """How often each model recognised each example at each radius `[radii, examples]`."""
        counts = {model: np.zeros((self.points, len(examples)), dtype=np.int64) for model in models}
        for i, draws, batch in drawn:
            places = batch["index"][::draws].cpu().numpy()
            for model, count in counts.items():
                count[i, places] = recognised(model, task, batch).reshape(-1, draws).sum(1) * (self.draws // draws)
        return counts


class Recognition(NamedTuple):
    """How often models recognised perturbed examples: counts out of `draws`.

    `subject` [radii, examples]; `references` [references, radii, examples], on the very same perturbed inputs.
    """

    radii: tuple[float, ...]
    draws: int
    subject: np.ndarray
    references: np.ndarray


@torch.inference_mode()
def recognised(model: nn.Module, task: Task, batch: Batch) -> np.ndarray:
    """Whether all rows of each example are predicted right `[examples]`; the model's mode is the caller's choice."""
    rows = task.rows(model, move(batch, device_of(model)))
    right = rows.per_example(rows.logits.argmax(1).eq(rows.targets).float())
    return np.asarray(right.ge(1).cpu())


def ratios(counts: Recognition) -> np.ndarray:
    """r_tau of each example against each retrained model `[references, radii, examples]`; nan where it is undefined."""
    below = counts.references.astype(float)
    return np.asarray(np.divide(counts.subject, below, out=np.full(below.shape, np.nan), where=below > 0))


def set_level(counts: Recognition) -> np.ndarray:
    """r_tau of the forget set `[radii]`: the mean over retrained models of the mean over examples with a ratio."""
    return mean_of_defined(mean_of_defined(ratios(counts), axis=2), axis=0)


def sums(counts: Recognition) -> list[Estimate]:
    """r_tau of the forget set as a ratio of sums, at each radius, with its interval over examples.

        sum over examples of the subject's count / sum over examples of the mean count of the retrained models

    The mean over retrained models is taken below the line: a mean of ratios would be ruled by the one that recognises
    least.
    """
    if not len(counts.references):
        none = Estimate(value=None, note="needs a retrained model other than itself")
        return [none] * len(counts.radii)
    return [stats.ratio(above, below) for above, below in zip(counts.subject, counts.references.mean(0), strict=True)]


def ratio_of_sums(counts: Recognition) -> np.ndarray:
    """The values of `sums` `[radii]`, nan where there is none."""
    return np.array([np.nan if estimate.value is None else estimate.value for estimate in sums(counts)])


def zero_denominators(counts: Recognition) -> np.ndarray:
    """How many (retrained model, example) pairs have no ratio `[radii]`."""
    return np.asarray((counts.references == 0).sum((0, 2)))


def share_above_one(counts: Recognition) -> np.ndarray:
    """The share of (retrained model, example) pairs with a ratio above 1 `[radii]`; a count over 0 is above 1."""
    return np.asarray((counts.subject > counts.references).mean((0, 2)))


class Bounds(NamedTuple):
    """Between what two values a quantity must lie, `[radii]` each."""

    low: np.ndarray
    high: np.ndarray


def disagreement_bounds(counts: Recognition) -> Bounds:
    """What the counts say about how often subject and retrained model disagree, mean over models and examples.

    p_a |r - 1| <= Pr[m(x') != a(x')] <= min(1, 2 - p_a (1 + r)),    p_a the share that a recognises, p_a r = p_m
    """
    p_m, p_a = counts.subject / counts.draws, counts.references / counts.draws
    return Bounds(np.abs(p_m - p_a).mean((0, 2)), np.minimum(1, 2 - p_a - p_m).mean((0, 2)))


def near_disagreement(counts: Recognition, steps: float = 1.0) -> np.ndarray:
    """At least what share of the noisy copies lies within `steps` tau of a copy on which the two disagree `[radii]`.

        Phi(Phi^-1(k) + steps),    k the least share on which they disagree: |p_m - p_a| at the 95 % limit of c draws

    Mean over models and examples. For Gaussian noise alone: whatever the set on which two models disagree, and in any
    number of dimensions d, it grows at least so fast. The noise itself is about tau sqrt(d) long, beside which a few
    tau are next to nothing: in high dimension what is seldom a disagreement is nearly always close to one. Clamping
    makes no distance longer.

    Reference: Borell, "The Brunn-Minkowski Inequality in Gauss Space", Inventiones Mathematicae 1975; in place of
    proposition 2 of Hsu et al., NeurIPS 2025, arXiv 2601.22359, which says the like of data on a sphere of which half
    disagrees, with a constant that isn't given.
    """
    apart = np.abs(counts.subject - counts.references)
    least = np.where(apart > 0, special.betaincinv(np.maximum(apart, 1), counts.draws - apart + 1, 0.05), 0.0)
    return np.asarray(special.ndtr(special.ndtri(least) + steps).mean((0, 2)))
