"""What an attack gives back: how much a model still shows of each tested example, for each budget that was spent."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unrecall.evidence.pool import ArmIndices


class Point(NamedTuple):
    """What the attacker reached with one budget and one choice.

    `shown`: one array `[examples]` a tested set. `losses`: the mean loss over each tested set, in nats, nan where
    nothing asks for it. `useful`: whether the attacked model was still of use; else this is what it had before.
    """

    budget: float
    variant: str
    shown: tuple[np.ndarray, ...]
    losses: tuple[float, ...]
    useful: bool = True


@dataclass(frozen=True)
class Scores:
    """How much one model shows of each tested example, higher for more, at each point that the attacker reached.

    `budgets`, `variants` [points]: what was spent, and the attacker's choice (a learning rate, say). `shown`: one array
    `[points, examples]` a tested set. `losses`: one array `[points]` a tested set, in nats. `beside`: what each
    retrained model shows on the very inputs that were made against this model, `[references, points, examples]` a
    tested set; empty where inputs don't depend on the model. `useful` [points]: whether the attacked model was of use.
    """

    budgets: np.ndarray
    variants: tuple[str, ...]
    shown: tuple[np.ndarray, ...]
    losses: tuple[np.ndarray, ...]
    beside: tuple[np.ndarray, ...] = ()
    useful: np.ndarray | None = None

    @staticmethod
    def of(points: Sequence[Point]) -> "Scores":
        """The scores that these points make up."""
        return Scores(
            np.array([point.budget for point in points], float),
            tuple(point.variant for point in points),
            tuple(np.stack(column) for column in zip(*(point.shown for point in points), strict=True)),
            tuple(np.array(column) for column in zip(*(point.losses for point in points), strict=True)),
            useful=np.array([point.useful for point in points]),
        )

    @property
    def only_ruins(self) -> bool:
        """Whether models were attacked, and none of them was of use afterwards."""
        return self.useful is not None and len(self.useful) > 1 and not bool(self.useful[1:].any())

    def at(self, place: ArmIndices) -> np.ndarray:
        """The scores of one arm's tested examples `[points, examples]`."""
        scores: np.ndarray = self.shown[place.in_set][:, place.positions]
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """The scores as plain arrays by name, for a file; `from_arrays` reads them back."""
        named = {"budgets": self.budgets, "variants": np.array(self.variants, str)}
        named |= {} if self.useful is None else {"useful": self.useful}
        for name in ("shown", "losses", "beside"):
            named |= {f"{name}-{i}": array for i, array in enumerate(getattr(self, name))}
        return named

    @staticmethod
    def from_arrays(named: Mapping[str, np.ndarray]) -> "Scores":
        """The scores that `arrays` gave as plain arrays."""

        def columns(name: str) -> tuple[np.ndarray, ...]:
            keys = itertools.takewhile(named.__contains__, (f"{name}-{i}" for i in itertools.count()))
            return tuple(named[key] for key in keys)

        variants = tuple(str(variant) for variant in named["variants"])
        arrays = columns("shown"), columns("losses"), columns("beside")
        return Scores(named["budgets"], variants, *arrays, useful=named.get("useful"))


def mean_of_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis of what is not nan; nan, without a warning, where all is."""
    defined = ~np.isnan(values)
    number, total = defined.sum(axis), np.where(defined, values, 0).sum(axis)
    return np.asarray(np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0))


@dataclass(frozen=True)
class Trace:
    """What the attacker's best choice at each budget brought, for one arm.

    Of equal length: `budgets`; `shown`, `[examples]` each; `losses`; and `variants`, which choice that was. The first
    of each is before anything was spent.
    """

    budgets: list[float]
    shown: list[np.ndarray]
    losses: list[float]
    variants: list[str]

    @property
    def reached(self) -> list[np.ndarray]:
        """What was shown at each budget but the first; what was shown before the attack where there is no other."""
        return self.shown[1:] or self.shown


def best(scores: Scores, place: ArmIndices, *, cumulative: bool = False) -> Trace:
    """The trace of one arm: at each budget the point at which the mean of its scores is highest.

    `cumulative`: where a smaller budget above 0 brought more, the attacker keeps what that brought.
    """
    shown, losses = scores.at(place), scores.losses[place.in_set]
    chosen: dict[float, int] = {}
    for i, budget in enumerate(scores.budgets.tolist()):
        if budget not in chosen or shown[i].mean() > shown[chosen[budget]].mean():
            chosen[budget] = i
    budgets = sorted(chosen)
    for less, more in itertools.pairwise(filter(None, budgets) if cumulative else ()):
        chosen[more] = max(chosen[less], chosen[more], key=lambda i: shown[i].mean())
    points = [chosen[budget] for budget in budgets]
    return Trace(
        budgets, [shown[i] for i in points], [float(losses[i]) for i in points], [scores.variants[i] for i in points]
    )
