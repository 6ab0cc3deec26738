"""What a verdict beside records that were never trained on follows from: the attacks' scores, and what is stated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from unrecall.data.covariates import FIRST_TO_GO
from unrecall.data.sizes import OTHERS
from unrecall.record.exchange import Labels

COMPARED = ("retain", "holdout", "test")
"""Splits on which the unlearned model must not know less than the original."""
MANY = 99
"""Others from which on one person is judged by every statistic: among fewer, each more makes it likelier that one of
them comes out first."""
PLAIN = ("unlearned", "original", "half", "stratum", "group", "covariates")
"""The arrays of a pool's scores that a file holds under their own names."""


@dataclass(frozen=True)
class PoolScores:
    """What each attack of the fixed suite shows of each example of the pool, under two models.

    `attacks`: their names. `unlearned`, `original` `[attacks, n]`: logit confidence, or mean log-probability of texts,
    higher for "was trained on". `forget` [n] bool. `half` [n]: 0 or 1, whole for a group. `stratum` [n]: within which
    labels change places: a half, or a planted record's two wordings. `group` [n]: a number for
    each person, or for each example where there are no persons. `covariates` [n, k], `kinds` [k]: what says how hard an
    example is and knows nothing of arms or of the original. `correct`: by split, the share of rows that the unlearned
    model and the original get right, `[2, examples]`.
    """

    attacks: tuple[str, ...]
    unlearned: np.ndarray
    original: np.ndarray
    forget: np.ndarray
    half: np.ndarray
    stratum: np.ndarray
    group: np.ndarray
    covariates: np.ndarray
    kinds: tuple[str, ...]
    correct: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def grouped(self) -> bool:
        """Whether units are persons with several records rather than records."""
        return len(np.unique(self.group)) < len(self.group)

    @cached_property
    def first(self) -> np.ndarray:
        """The position of each unit's first example."""
        return np.unique(self.group, return_index=True)[1]

    @cached_property
    def labels(self) -> Labels:
        """The units' arms, and the strata within which they change places."""
        return Labels(self.forget[self.first], self.stratum[self.first])

    @cached_property
    def halves(self) -> Labels:
        """The units' arms and halves."""
        return Labels(self.forget[self.first], self.half[self.first])

    @cached_property
    def paired(self) -> bool:
        """Whether labels change places within pairs, whose ranks say less than their differences."""
        return len(np.unique(self.stratum)) > 2

    @cached_property
    def columns(self) -> np.ndarray:
        """The covariates that are used `[n, k]`: fewer than a tenth of the units."""
        chosen = np.array([float(np.ptp(column)) > 0 for column in self.covariates.T], bool)
        kinds = np.array(self.kinds, str)
        for kind in FIRST_TO_GO:
            if chosen.sum() + 1 >= len(self.first) / 10:
                chosen &= kinds != kind
        return self.covariates[:, chosen]

    def arrays(self) -> dict[str, np.ndarray]:
        """The scores as plain arrays by name, for a file; `from_arrays` reads them back."""
        named = {name: getattr(self, name) for name in PLAIN}
        named |= {f"correct/{split}": values for split, values in self.correct.items()}
        return named | {"forget": self.forget.astype(np.uint8)}

    @staticmethod
    def from_arrays(named: Mapping[str, np.ndarray], attacks: Sequence[str], kinds: Sequence[str]) -> "PoolScores":
        """The scores that `arrays` gave as plain arrays."""
        plain = {name: named[name] for name in PLAIN}
        splits = [split for split in COMPARED if f"correct/{split}" in named]
        correct = {split: named[f"correct/{split}"] for split in splits}
        shapes = {len(attacks), len(named["unlearned"]), len(named["original"])}
        if len(shapes) > 1 or named["covariates"].shape[1] != len(kinds):
            raise ValueError(f"{len(attacks)} attacks and {len(kinds)} covariates, and rows for others")
        return PoolScores(
            tuple(attacks), forget=named["forget"].astype(bool), kinds=tuple(kinds), correct=correct, **plain
        )

    def even(self) -> "PoolScores":
        """The same scores with equally many records of each person.

        A mean over more records varies less, so such a person would be first or last more often by chance.

        Each has as many as the forgotten person with fewest, or as the nineteenth of the others where that is less;
        the first in the pool's order, which is random. Others with fewer are left out.
        """
        if not self.grouped:
            return self
        groups, first, size = np.unique(self.group, return_index=True, return_counts=True)
        own, others = size[self.forget[first]], np.sort(size[~self.forget[first]])[::-1]
        each = min(int(own.min()) if len(own) else 1, int(others[:OTHERS][-1]) if len(others) else 1)
        chosen = [np.flatnonzero(self.group == g)[:each] for g, n in zip(groups, size, strict=True) if n >= each]
        return self.part(np.sort(np.concatenate(chosen)))

    def part(self, chosen: np.ndarray) -> "PoolScores":
        """The scores of some of the examples."""
        rows = {name: getattr(self, name)[chosen] for name in ("forget", "half", "stratum", "group", "covariates")}
        return replace(self, unlearned=self.unlearned[:, chosen], original=self.original[:, chosen], **rows)

    def adjusted(self, scores: np.ndarray) -> np.ndarray:
        """What covariates don't explain of scores `[attacks, n]`: least squares over forget and holdout together."""
        design = np.column_stack([np.ones(len(self.forget)), self.columns])
        fitted, *_ = np.linalg.lstsq(design, scores.T, rcond=None)
        # Rounded, so that ties are ties on every processor.
        return np.asarray(np.round(scores - (design @ fitted).T, 9))

    def of_units(self, values: np.ndarray) -> np.ndarray:
        """The mean over each unit's examples, `[rows, n]` -> `[rows, units]`."""
        _, place, count = np.unique(self.group, return_inverse=True, return_counts=True)
        means = [np.bincount(place, row, len(count)) / count for row in values]
        return np.array(means).reshape(len(values), len(count))

    def best_two(self, values: np.ndarray) -> np.ndarray:
        """The mean of the two highest values of each unit, `[attacks, n]` -> `[attacks, units]`."""
        units = [np.sort(values[:, self.group == g], axis=1)[:, -2:].mean(1) for g in np.unique(self.group)]
        return np.stack(units, axis=1)

    @cached_property
    def decisive(self) -> int | None:
        """The one attack that judges a single person among few others: the longest fine-tuning on retain.

        It shows what a method hid, and also what it left untouched. None: all statistics count.
        """
        if self.labels.forget.sum() != 1 or not self.grouped or len(self.first) > MANY:
            return None
        tunings = [i for i, name in enumerate(self.attacks) if name.startswith("benign")]
        return tunings[-1] if tunings else 0

    def tested(self, scores: np.ndarray) -> np.ndarray:
        """The statistics' scores `[attacks or twice as many, units]`: means, and for persons also their two best."""
        adjusted = self.adjusted(scores)
        means = self.of_units(adjusted)
        return np.concatenate([means, self.best_two(adjusted)]) if self.grouped else means


@dataclass(frozen=True)
class Stated:
    """What is stated of an audit beside its scores.

    `control`: how the holdout came to be. `unchanged`: whether the weights are the original's.
    `seed`: of the labellings. `covariates`: the kind of each, by name;
    `trained_on`: sha256 of what they were fitted on. `attacks`: by
    name, each attack's title, parameters and losses. `steps`: how many steps of fine-tuning each attacked
    copy took. `absent`: attacks that could not be run.
    """

    control: str
    unchanged: bool
    seed: int
    covariates: Mapping[str, str] = field(default_factory=dict)
    trained_on: str = ""
    attacks: Mapping[str, tuple[str, dict[str, Any], dict[str, float]]] = field(default_factory=dict)
    steps: Mapping[str, list[int]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def array(self) -> np.ndarray:
        """All of it but `unchanged` as bytes, to stand in the file of scores."""
        stated = {name: value for name, value in vars(self).items() if name != "unchanged"}
        return np.frombuffer(json.dumps(stated).encode(), np.uint8)

    @staticmethod
    def from_array(array: np.ndarray, *, unchanged: bool) -> "Stated":
        """What `array` gave as bytes."""
        stated = json.loads(bytes(array))
        stated["attacks"] = {name: tuple(of) for name, of in stated["attacks"].items()}
        return Stated(**stated, unchanged=unchanged)
