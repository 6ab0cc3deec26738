"""The verdict beside records that were never trained on: one model, one request, no retraining.

Everything follows from scores that stand beside the record, so that a check computes every number again.
docs/verdict.md explains the rule; recipes/verdict_worlds.py measures how often it is wrong.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from unrecall.data.covariates import FIRST_TO_GO
from unrecall.data.sizes import OTHERS
from unrecall.disk.files import content_key
from unrecall.record import stats
from unrecall.record.discoveries import discoveries, epsilon
from unrecall.record.exchange import DRAWS, Exchange, Labels, exchange
from unrecall.record.holdout_checks import blind_test, dilution, placebo
from unrecall.record.never_trained_lines import (
    BLIND,
    FEWEST,
    SURE,
    UNCHANGED,
    after,
    broken,
    idle,
    line,
    p,
    swapped,
    uneven,
)
from unrecall.record.schema import AttackTest, Damage, Label, NeverTrained, Verdict
from unrecall.record.share_of_memory import areas, needed, share_left, smallest_share

RULE, FORMER = "exchange-4", "exchange-3"
"""The id of the rule below, and of the one before, whose interval of what was lost was too narrow where little was.

A rule that can label the same scores otherwise gets another id.
"""
LEAKS, STRANGE, ALPHA = 0.04, 0.01, 0.05
COMPARED = ("retain", "holdout", "test")
"""Splits on which the unlearned model must not know less than the original."""
FEW = 10
"""Units of forget below which a share of memory has no bounds: its variance can't be told."""
MARGIN = 0.05
"""The loss of accuracy that is worth naming."""
SHARES: Mapping[float, Label] = {0.25: "no more than 25 %", 0.5: "no more than 50 %"}
MANY = 99
"""Others from which on one person is judged by every statistic: among fewer, each more makes it likelier that one of
them comes out first."""
FEWEST_HOLDOUT = 4
"""Records of holdout below which there is no verdict."""
SHARED = ("class", "concept")
"""Requests whose forget and holdout share what is to be forgotten."""
NOT_JUDGED = "Not judged beside records never trained on: "
"""How the line begins that says why there is no verdict."""
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


SUITES = (
    ("as_it_is", "recalibration", "head_refit", "benign_20", "symmetric"),
    ("as_it_is", "quantise", "benign_15", "benign_120", "symmetric"),
    ("as_it_is", "benign_20", "symmetric"),
)
"""The names of the fixed suites: of classifiers, texts, and other tasks."""
TAUGHT_STEPS = (1, 2, 3, 5, 8, 13, 20)
"""Steps after which relearning looks at its pool's own loss."""


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


def judge(scores: PoolScores, stated: Stated, draws: int = DRAWS, rule: str = RULE) -> NeverTrained:
    """The label, in words, with every figure that it rests on; by the present rule or by `FORMER`."""
    scores = scores.even()
    labels = scores.labels
    statistics = [scores.tested(of) for of in (scores.unlearned, scores.original)]
    tests = [_test(of, scores, stated.seed, draws) for of in statistics]
    tested = NeverTrained(
        label="not judged",
        line="",
        leak=tests[0].leak,
        strange=tests[0].strange,
        original=tests[1].leak,
        draws=tests[0].draws,
        seed=stated.seed,
        unit="group" if scores.grouped else "record",
        forget=int(labels.forget.sum()),
        holdout=int((~labels.forget).sum()),
        control=stated.control,
        blind=blind_test(scores.of_units(scores.columns.T), labels, stated.seed),
        placebo=placebo(statistics[0], scores.halves, stated.seed),
        dilution=dilution(statistics[1], scores.halves, stated.seed),
        covariates=dict(stated.covariates),
        trained_on=stated.trained_on,
        attacks=[_attack_test(i, scores, statistics, tests, stated) for i in range(len(scores.attacks))],
        absent=dict(stated.absent),
        damage=[_damage(split, correct, rule) for split, correct in scores.correct.items()],
        recognised=discoveries(statistics[0][0], labels.forget) if labels.forget.sum() >= FEW else None,
    )
    level, strange_level = levels(tests[0].smallest)
    tested = tested.model_copy(update={"level": level, "strange_level": strange_level})
    return concluded(tested, unchanged=stated.unchanged)


def concluded(tested: NeverTrained, *, unchanged: bool) -> NeverTrained:
    """The same figures, with the label, the line, and the other figures that follow from them.

    `unchanged`: whether the weights are the original's.
    """
    least = None if tested.leak is None else epsilon(tested.leak)
    following = {"grade": _grade(tested), "needed": _needed(tested), "epsilon": least}
    tested = tested.model_copy(update=following)
    label = _label(tested, unchanged=unchanged)
    return tested.model_copy(update={"label": label, "line": line(label, tested, _unsafe(tested))})


def derived(tested: NeverTrained, *, unchanged: bool) -> NeverTrained:
    """The same with the label and the line that its figures have, whatever it says; `unchanged`: as above.

    Without any attack there is no verdict, unless nothing was changed at all: only the reason is what it says.
    """
    if tested.attacks:
        return concluded(tested, unchanged=unchanged)
    if tested.label == "not judged" and tested.line.startswith(NOT_JUDGED) and not unchanged:
        return tested
    return not_judged("no attack was run.", tested.control, unchanged=unchanged)


def _test(statistics: np.ndarray, scores: PoolScores, seed: int, draws: int) -> Exchange:
    """The test over all statistics, or by the decisive one; z is given of all."""
    labels = scores.labels
    ranked = int(labels.forget.sum()) > 1 and not scores.paired
    every = exchange(statistics, labels, seed, draws, ranked=ranked)
    if scores.decisive is None:
        return every
    decisive = exchange(statistics[[scores.decisive]], labels, seed, draws, ranked=ranked)
    leaks = np.full(len(statistics), np.nan)
    leaks[scores.decisive] = decisive.leak
    return replace(decisive, z=every.z, leaks=leaks)


def seed_of(fingerprint: str, seed: int) -> int:
    """The seed of halves, order and labellings, which nobody chooses: from the data and the audit's own."""
    return int(content_key("exchange", fingerprint, str(seed)), 16) % 2**31


def not_judged(reason: str, control: str = "matched", *, unchanged: bool = False) -> NeverTrained:
    """The verdict that there is none, and why; where nothing was removed at all, that."""
    if unchanged:
        return NeverTrained(label="unchanged", line=UNCHANGED, control=control)
    return NeverTrained(label="not judged", line=f"{NOT_JUDGED}{reason}", control=control)


def as_verdict(tested: NeverTrained, rule: str = RULE) -> Verdict:
    """The same as the verdict of a record that has no retrained models; `rule`: the one that the figures are made by.

    From the same figures `FORMER` gives the same label: it is the figures that it made otherwise.
    """
    return Verdict(
        rule=FORMER if rule == FORMER else RULE,
        label=tested.label,
        line=tested.line,
        counts={tested.label: 1},
        alpha=ALPHA,
        judged=sum(test.p is not None for test in tested.attacks),
        basis="never trained",
    )


def _attack_test(
    i: int, scores: PoolScores, statistics: Sequence[np.ndarray], tests: Sequence[Exchange], stated: Stated
) -> AttackTest:
    """The figures of one attack; p is the lower of its mean's and its two best records'.

    `statistics`, `tests`: of the unlearned model and of the original; an attack's unit means come first.
    """
    name, leaks = scores.attacks[i], tests[0].leaks[i :: len(scores.attacks)]
    title, parameters, losses = stated.attacks.get(name, (name, {}, {}))
    under = areas(statistics[0][i], statistics[1][i], scores.halves)
    share, z_original = share_left(under), float(tests[1].z[i])
    if scores.halves.forget.sum() < FEW:
        share = share._replace(low=None, high=None, bound=None)
    return AttackTest(
        name=name,
        title=title,
        parameters=parameters,
        z=float(tests[0].z[i]),
        z_original=z_original,
        p=None if np.isnan(leaks).all() else float(np.nanmin(leaks)),
        auc=float(0.5 + under.unlearned),
        auc_original=float(0.5 + under.original),
        rho=share.value,
        rho_low=share.low,
        rho_high=share.high,
        bound=share.bound,
        smallest=smallest_share(z_original),
        losses=losses,
        steps=stated.steps.get(name, []),
    )


def _damage(split: str, correct: np.ndarray, rule: str = RULE) -> Damage:
    """Whether the unlearned model gets clearly less right than the original: by `MARGIN`, and not by chance."""
    change = correct[0] - correct[1]
    lost = stats.difference_by_halves(change) if rule == FORMER else stats.difference(change)
    value, high = lost.value or 0.0, lost.high if lost.high is not None else lost.value or 0.0
    return Damage(split=split, difference=lost, damaged=value <= -MARGIN and high < 0)


def levels(smallest: float) -> tuple[float, float]:
    """The levels of both sides: few labellings leave one side alone, at 5 %, or none."""
    if smallest <= STRANGE:
        return LEAKS, STRANGE
    if smallest <= LEAKS:
        return LEAKS, 0.0
    return (ALPHA, 0.0) if smallest <= ALPHA + 1e-12 else (0.0, 0.0)


def possible_levels(leak: float | None, strange: float | None) -> set[tuple[float, float]]:
    """All pairs of levels that fit these two p.

    The levels follow from the smallest p that the labellings allow. A record doesn't hold it, but it is no larger than
    either p.
    """
    least_p = min(1.0 if p is None else p for p in (leak, strange))
    least = (0.0, STRANGE, LEAKS, ALPHA)  # the smallest p lies above one of them, and at the next at most
    return {levels(smallest) for below, smallest in zip(least, (*least[1:], 1.0), strict=True) if below < least_p}


def _grade(tested: NeverTrained) -> Literal["A", "B", "C", "D", "E"]:
    """What the holdout is worth: a random split that covariates can tell apart is none."""
    if tested.control == "synthetic":
        return "D"
    if tested.control == "matched" or (tested.blind is not None and tested.blind <= BLIND):
        return "C"
    return "A" if tested.control == "planted" else "B"


def _needed(tested: NeverTrained) -> int | None:
    """How many units would allow "no more than 50 %": as it is and by one other attack at least."""
    first, *others = (test.z_original for test in tested.attacks)
    return needed(tested.forget, min(first, max(others)), 0.5, SURE) if others else None


def _label(tested: NeverTrained, *, unchanged: bool) -> Label:
    """The decision table, from its top row down."""
    if unchanged:
        return "unchanged"
    if swapped(tested):
        return "not judged"
    apart = _apart(tested)
    if apart is not None:
        return apart
    if any(damage.damaged for damage in tested.damage):
        return "damaged"
    if tested.level and tested.original is not None and tested.original > ALPHA:
        return "can't be told"
    return next((label for share, label in SHARES.items() if _gone(tested, share)), "inconclusive")


def _apart(tested: NeverTrained) -> Label | None:
    """Whether forget is recognised better than holdout, or worse; None where neither is shown."""
    if tested.leak is not None and tested.leak <= tested.level + 1e-12:
        return "leaks"
    if tested.strange is not None and tested.strange <= tested.strange_level:
        return "stands out"
    return None


def _gone(tested: NeverTrained, share: float) -> bool:
    """Whether every attack that could see that share of the original's memory bounds what is left below it."""
    vouching = [test for test in tested.attacks if test.z_original >= SURE]
    plain = any(test.name == tested.attacks[0].name for test in vouching)
    bounded = all(test.bound is not None and test.bound < share for test in vouching)
    alike = tested.blind is None or tested.blind > BLIND
    return (
        plain
        and len(vouching) > 1
        and bounded
        and alike
        and tested.forget >= FEWEST[tested.unit]
        and not _unsafe(tested)
    )


def _unsafe(tested: NeverTrained) -> list[str]:
    """What forbids to say that something is gone: a failed placebo, an attack that can find nothing, or damage."""
    reasons = []
    if uneven(tested):
        reasons.append(f"two halves of the holdout differ (p = {p(tested.placebo)})")
    reasons += [f"{_named(test)} broke the model, so it could find nothing: lower --rate" for test in broken(tested)]
    reasons += [f"{_named(test)} diverged or moved no weight: try another --rate" for test in idle(tested)]
    unsure = [d.split for d in tested.damage if d.difference.low is None or d.difference.low < -MARGIN]
    if unsure:
        reasons.append(f"a loss of {MARGIN:.0%} of accuracy on {' and '.join(unsure)} can't be excluded")
    return reasons


def _named(test: AttackTest) -> str:
    """An attack at the start of a sentence's part."""
    return after(test).removeprefix("after ") + ("," if "," in test.title else "")
