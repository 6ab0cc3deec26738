"""Residual knowledge: does the model still recognise forgotten examples that were slightly perturbed?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from unrecall.attacks.base import Recognition, RecognitionAttack
from unrecall.data.examples import Batch, move, repeat
from unrecall.data.request import Request
from unrecall.models.observe import batches, device_of
from unrecall.models.perturb import Walk, fgsm, noise_like, other_classes, perturbable, pgd
from unrecall.nn.hooks import channels_last, mode
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count, NonNegative
from unrecall.tasks.base import Task
from unrecall.training.randomness import draw_seed, seeded
from unrecall.training.session import Session


class _Drawn(NamedTuple):
    """All draws of the examples `first` onwards at one radius, draw by draw within each example."""

    radius: int
    first: int
    draws: int
    batch: Batch


@dataclass(frozen=True)
class ResidualKnowledge(RecognitionAttack):
    """Counts how often a model classifies perturbed forget examples as what they were.

        r_tau(x, y) = #{j <= c: m(x'_j) = y} / #{j <= c: a(x'_j) = y}      m the subject, a a retrained model
        gaussian:   x'_j = clamp(x + tau * N(0, I))                        the same draws for every model
        fgsm, pgd:  x'_j within tau of x, crafted against m towards a random y'_j != y, shown to m and to every a

    A retrained model is 1 by construction; above 1 knowledge is left, below 1 the model over-forgot. An example is
    recognised if all its rows are predicted right. All draws of a chunk of examples are one batch, each model sees
    each batch once, and the same standard draws are scaled to each radius, so that a curve isn't jagged by chance.

    Args:
        radius_max: largest radius, in input units.
        points: how many radii, equally spaced from 0.
        draws: draws an example at each radius (c in the paper); radius 0 needs only one.
        perturbation: gaussian noise of standard deviation tau, or targeted fgsm or pgd in the l-infinity ball.
        pgd_steps, pgd_step: number and size of pgd steps, in input units; it starts at a random point of the ball.
        batch_size: inputs a forward pass, but at least one example with all its draws. On two CPU cores larger passes
            are no faster and may cost page faults; on a GPU give it thousands.

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
        budget="100 perturbed copies of each example at each radius",
    )

    radius_max: NonNegative = 8 / 255
    points: Count = 11
    draws: Count = 100
    perturbation: Literal["gaussian", "fgsm", "pgd"] = "gaussian"
    pgd_steps: Count = 10
    pgd_step: NonNegative = 2 / 255
    batch_size: Count = 200

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii, in input units, smallest first."""
        return tuple(float(radius) for radius in np.linspace(0, self.radius_max, self.points))

    def recognise(
        self,
        subjects: Mapping[str, nn.Module],
        references: Mapping[str, nn.Module],
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session,
    ) -> dict[str, Recognition]:
        """Counts for each subject by role, against all references but the one of the same role."""
        perturbable(task)
        seed = draw_seed(generator)
        models = [*subjects.values(), *references.values()]
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(mode(model, training=False))
                stack.enter_context(channels_last(model))
            if self.perturbation == "gaussian":
                shared = self._count(self._noisy(models[0], request, task, seed), models, request, task)
                counts = dict.fromkeys(subjects, shared)
            else:
                counts = {
                    role: self._count(self._crafted(model, request, task, seed), models, request, task)
                    for role, model in subjects.items()
                }
        return {
            role: Recognition(
                self.radii,
                self.draws,
                counts[role][id(model)],
                np.array([counts[role][id(other)] for name, other in references.items() if name != role]).reshape(
                    -1, self.points, len(request.forget)
                ),
            )
            for role, model in subjects.items()
        }

    def _chunks(self, model: nn.Module, request: Request, task: Task) -> Iterator[tuple[int, Batch]]:
        """The forget examples in order, as many at once as fit with all their draws, each with its first index."""
        size, first = max(1, self.batch_size // self.draws), 0
        for chunk in batches(request.forget, task, size, device_of(model)):
            yield first, chunk
            first += size

    def _noisy(self, model: nn.Module, request: Request, task: Task, seed: int) -> Iterator[_Drawn]:
        able, generator = perturbable(task), seeded(seed)
        for first, chunk in self._chunks(model, request, task):
            copies = repeat(chunk, self.draws)
            clean = able.inputs(copies)
            noise = torch.cat([noise_like(part, generator) for part in torch.split(clean, self.draws)])
            for i, radius in enumerate(self.radii):
                if radius == 0:
                    yield _Drawn(i, first, 1, chunk)
                else:
                    moved = torch.add(clean, noise, alpha=radius).clamp_(*able.bounds)
                    yield _Drawn(i, first, self.draws, able.with_inputs(copies, moved))

    def _crafted(self, model: nn.Module, request: Request, task: Task, seed: int) -> Iterator[_Drawn]:
        for i, radius in enumerate(self.radii):
            wishes, starts = seeded(seed), seeded(seed + 1)
            for first, chunk in self._chunks(model, request, task):
                if radius == 0:
                    yield _Drawn(i, first, 1, chunk)
                    continue
                copies = repeat(chunk, self.draws)
                with torch.no_grad():
                    rows = task.rows(model, copies)
                wished = other_classes(rows.targets, rows.logits.shape[1], wishes)
                if self.perturbation == "fgsm":
                    moved = fgsm(model, task, copies, radius=radius, targets=wished)
                else:
                    moved = pgd(
                        model,
                        task,
                        copies,
                        Walk(radius=radius, step=self.pgd_step, steps=self.pgd_steps, targets=wished),
                        starts,
                    )
                yield _Drawn(i, first, self.draws, moved)

    def _count(
        self, drawn: Iterator[_Drawn], models: Sequence[nn.Module], request: Request, task: Task
    ) -> dict[int, np.ndarray]:
        """How often each model, by identity, recognised each example at each radius `[radii, examples]`."""
        unique = {id(model): model for model in models}
        counts = {key: np.zeros((self.points, len(request.forget)), dtype=np.int64) for key in unique}
        for i, first, draws, batch in drawn:
            for key, model in unique.items():
                hits = recognised(model, task, batch).reshape(-1, draws).sum(1) * (self.draws // draws)
                counts[key][i, first : first + len(hits)] = hits
        return counts


@torch.inference_mode()
def recognised(model: nn.Module, task: Task, batch: Batch) -> np.ndarray:
    """Whether all rows of each example are predicted right `[examples]`; the model's mode is the caller's choice."""
    rows = task.rows(model, move(batch, device_of(model)))
    right = rows.per_example(rows.logits.argmax(1).eq(rows.targets).float())
    return np.asarray(right.ge(1).cpu())


def ratios(found: Recognition) -> np.ndarray:
    """r_tau of each example against each retrained model `[references, radii, examples]`; nan where it is undefined."""
    below = found.references.astype(float)
    return np.asarray(np.divide(found.subject, below, out=np.full(below.shape, np.nan), where=below > 0))


def set_level(found: Recognition) -> np.ndarray:
    """r_tau of the forget set `[radii]`: the mean over retrained models of the mean over examples with a ratio."""
    return _nanmean(_nanmean(ratios(found), axis=2), axis=0)


def sums(found: Recognition) -> list[Estimate]:
    """r_tau of the forget set as a ratio of sums, at each radius, with its interval over examples.

        sum over examples of the subject's count / sum over examples of the mean count of the retrained models

    The mean over retrained models is taken below the line: a mean of ratios would be ruled by the one that recognises
    least.
    """
    if not len(found.references):
        none = Estimate(value=None, note="needs a retrained model other than itself")
        return [none] * len(found.radii)
    return [stats.ratio(above, below) for above, below in zip(found.subject, found.references.mean(0), strict=True)]


def ratio_of_sums(found: Recognition) -> np.ndarray:
    """The values of `sums` `[radii]`, nan where there is none."""
    return np.array([np.nan if one.value is None else one.value for one in sums(found)])


def zero_denominators(found: Recognition) -> np.ndarray:
    """How many (retrained model, example) pairs have no ratio `[radii]`."""
    return np.asarray((found.references == 0).sum((0, 2)))


def share_above_one(found: Recognition) -> np.ndarray:
    """The share of (retrained model, example) pairs with a ratio above 1 `[radii]`; a count over 0 is above 1."""
    return np.asarray((found.subject > found.references).mean((0, 2)))


class Bounds(NamedTuple):
    """Between what two values a quantity must lie, `[radii]` each."""

    low: np.ndarray
    high: np.ndarray


def disagreement_bounds(found: Recognition) -> Bounds:
    """What the counts say about how often subject and retrained model disagree, mean over models and examples.

    p_a |r - 1| <= Pr[m(x') != a(x')] <= min(1, 2 - p_a (1 + r)),    p_a the share that a recognises, p_a r = p_m
    """
    p_m, p_a = found.subject / found.draws, found.references / found.draws
    return Bounds(np.abs(p_m - p_a).mean((0, 2)), np.minimum(1, 2 - p_a - p_m).mean((0, 2)))


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is defined; nan, without a warning, where nothing is."""
    known = ~np.isnan(values)
    number = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.asarray(np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0))
