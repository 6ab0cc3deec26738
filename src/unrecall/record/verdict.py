"""The rule that turns measurements into a verdict; docs/verdict.md explains it, and a test simulates its error rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from unrecall.record.schema import AttackReport, Estimate, Label, Measurement, Record, Side, Verdict
from unrecall.record.stats import another

ALPHA = 0.05
RULE = "families-4"
WITHOUT_CONTROLS = "families-2"
FORMER = ("families-3", WITHOUT_CONTROLS)
"""The id of the rule below, and of those before it: all took a ratio without intervals for a share.

A rule that can label the same numbers otherwise gets another id.
"""
FAMILIES: Mapping[str, str] = {"utility": "still useful", "privacy": "can be told"}
"""The families of rows that share one part of alpha, by the rows' group; all other groups are "still known"."""
SKEW = 2.2
"""How many of Student's bounds hold where spreads are as skewed as an exponential's (recipes/verdict_simulation.py)."""
SHARE = 0.5
"""What share of the gap between the original and retrained models a model called like retrained may have left."""
ENOUGH = 5
"""Retrained models from which on their spread is known well: bounds are narrow, and where not, the spread is why."""
RETAINED = ("retain_accuracy", "retain_probability")
"""What of retain a retrained model must know about as well as the original: it was trained on it too."""
ORDER: tuple[Label, ...] = ("leaks", "over-forgets", "inconclusive", "like retrained")


class Reason(StrEnum):
    """Why a row is inconclusive, as its note says it."""

    FEWER_THAN_TWO = "fewer than two retrained models, so how far they differ is unknown"
    LITTLE_OF_RETAIN = "retrained models know too little of retain to be a measure of use"
    NOTHING_TO_SEE = "the original shows hardly more than retrained models do, or less, so there is nothing to see"
    MODELS_DIFFER = "retrained models differ so much among themselves that the original itself could be one of them"
    FEW_MODELS = (
        "so few retrained models don't say how far they differ, so that the original itself could be one; five would do"
    )
    FEW_RECORDS = "so few records are forgotten that by chance the original itself could be a retrained model"
    HALF_COULD_BE_LEFT = "half of what the original shows beyond retrained models could be left"
    LOSS_COULD_GO_UNSEEN = "retrained models differ so much among themselves that a loss worth naming could go unseen"
    CONTROL_FAILED = "its attack's positive control failed, so that finding nothing says nothing"


def judge(
    measurements: Sequence[Measurement],
    reports: Sequence[AttackReport] = (),
    alpha: float = ALPHA,
    rule: str = RULE,
) -> tuple[list[Measurement], Verdict]:
    """Labels each judged measurement and the whole audit. `reports`: of the attacks, with their controls.

    `rule`: this one, or a former one: `WITHOUT_CONTROLS` looks at no controls and at no share shown on an inconclusive
    row, and all former ones let a ratio without intervals widen the bounds of its family.

    1. *Bounds.* Rows are judged in three families (still known, can be told, still useful), each at a = alpha / number
       of families that have rows. One more retrained model would fall within

           mean(r) +- c t_{K-1, 1-a} s sqrt(1 + 1/K),      c = `SKEW`, for spreads as skewed as an exponential's

       s is the retrained models' standard deviation, but at least 1/n, and at least the spread that is typical of the
       family. `Bounds` explains rows with a `prior`.
    2. *Outside* the bounds a row leaks or over-forgets, by side; a row of use can only over-forget.
    3. *Inside*, it is like retrained if the original lies outside, and half of the original's gap can be ruled out at
       5 %. A row of use is, if a loss of more than `margin` can be ruled out. Otherwise it is inconclusive, and its
       note says why. A row whose attack failed its positive control is never like retrained.
    4. The audit gets the worst label of its rows; inconclusive rows count only where `_blocking` says so.
    """
    decided = [m for m in measurements if m.judged and m.unlearned.value is not None and len(reference_values(m)) >= 2]
    names = {m.name for m in decided}
    level = alpha / max(1, len({family(m) for m in decided}))
    families = {name: [m for m in decided if family(m) == name] for name in map(family, decided)}
    comparable = {name: rows if rule in FORMER else _comparable(rows) for name, rows in families.items()}
    floors = {name: _typical(rows) for name, rows in comparable.items()}
    lacking = less_retained(measurements) is not None
    failed = _rows_with_failed_control(measurements, reports) if rule != WITHOUT_CONTROLS else set[str]()
    labelled = [
        _labelled(m, Bounds(m, level, floors.get(family(m), 0.0)), lacking=lacking, control_failed=m.name in failed)
        for m in measurements
    ]
    most = max((len(reference_values(m)) for m in measurements if m.judged), default=0)
    verdict = _whole([part for part in labelled if part.row.name in names], alpha, most, rule)
    if verdict.label == "inconclusive":
        silent = [m for m in measurements if m.judged and m.prior and m.unlearned.value is None and m.note]
        verdict = verdict.model_copy(update={"line": verdict.line + "".join(f" {m.title}: {m.note}." for m in silent)})
    return [part.row for part in labelled], verdict


class Labelled(NamedTuple):
    """A row with its label, why it is inconclusive (empty where it isn't), and whether its attack's control failed."""

    row: Measurement
    why: str
    control_failed: bool = False


def _rows_with_failed_control(measurements: Sequence[Measurement], reports: Sequence[AttackReport]) -> set[str]:
    """The names of the rows whose attack failed its positive control: it did not see what was known to be there.

    Rows of privacy are left out: their control is the original, and `_unsure` already asks of each row whether it tells
    the original from retrained models.
    """
    held = {report.name: report.positive_holds for report in reports}
    makers = {
        m.name: max((name for name in held if f"{m.name}_".startswith(f"{name}_")), key=len, default="")
        for m in measurements
        if m.group != "privacy"
    }
    return {row for row, maker in makers.items() if held.get(maker) is False}


def family(measurement: Measurement) -> str:
    """The family of rows that a measurement is judged in."""
    return FAMILIES.get(measurement.group, "still known")


@dataclass(frozen=True)
class Bounds:
    """Where one more retrained model would fall, with probability 1 - `level` over a family of rows.

    `typical`: the spread that is typical of the family, in deviations over examples. A row with a `prior` of p has the
    spread s^2 = (p e^2 + (K - 1) s_r^2) / (p + K - 1), e the standard error over examples, with p + K - 1 degrees of
    freedom, and c = 1 + (SKEW - 1) / sqrt(n), since a mean of n values is less skewed than they are.
    """

    row: Measurement
    level: float
    typical: float = 0.0

    @property
    def centre(self) -> float:
        """The mean of the retrained models."""
        return float(np.mean(reference_values(self.row)))

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the spread."""
        return len(reference_values(self.row)) - 1 + self.row.prior

    @property
    def spread(self) -> float:
        """The standard deviation of retrained models; see `Bounds`."""
        row, values = self.row, reference_values(self.row)
        own = float(np.var(values, ddof=1))
        if row.prior:
            return math.sqrt((row.prior * _error(row) ** 2 + (len(values) - 1) * own) / self.freedom)
        return max(math.sqrt(own), self.typical * _deviation(row), 1 / max(1, row.unlearned.n))

    @property
    def half(self) -> float:
        """From the centre to either bound."""
        n, two_sided = max(1, self.row.unlearned.n), self.row.prior and self.row.leak
        skew = 1 + (SKEW - 1) / math.sqrt(n) if self.row.prior else SKEW
        return skew * self.beyond(self.level / 2 if two_sided else self.level)

    def beyond(self, tail: float) -> float:
        """By how much one more retrained model exceeds the mean with probability `tail`, were spreads normal."""
        return another(self.spread, len(reference_values(self.row)), self.freedom, tail)


def less_retained(measurements: Sequence[Measurement]) -> Measurement | None:
    """The measurement of retain of which retrained models show less than nine tenths of what the original does."""
    for m in measurements:
        original = m.original.value
        if m.name in RETAINED and original is not None and m.reference is not None and m.reference < 0.9 * original:
            return m
    return None


SINCE = ("loss_left", "linear_probe_mean", "class_margin")
"""What these rules judge and the one of former.py did not."""


def undeclared(record: Record, declared: Mapping[str, Side | None]) -> list[Measurement]:
    """The measurements that are judged, or leak on a side, other than the code declares by name."""
    return [
        m for m in record.measurements if m.judged != (m.name in declared) or (m.judged and m.leak != declared[m.name])
    ]


def too_few(measurement: Measurement) -> str:
    """The note of a row that too few retrained models have a value of."""
    count = len(reference_values(measurement))
    return f"{count} retrained models: at least 2 are needed to know how far they differ."


def reference_values(measurement: Measurement) -> list[float]:
    """The values of those retrained models that have one."""
    return [r.value for r in measurement.references if r.value is not None]


def _has_interval(m: Measurement) -> bool:
    """Whether any retrained model's value has one."""
    return any(r.low is not None and r.high is not None for r in m.references)


def _error(m: Measurement) -> float:
    """The standard error over examples, from the references' intervals; one example's worth where they have none."""
    halves = [(r.high - r.low) / (2 * 1.96) for r in m.references if r.low is not None and r.high is not None]
    return math.sqrt(float(np.mean(np.square(halves)))) if halves else 1 / max(1, m.unlearned.n)


def _deviation(m: Measurement) -> float:
    """The deviation over examples, from the references' intervals; a share's largest, a half, where they have none."""
    return _error(m) * math.sqrt(max(1, m.unlearned.n)) if _has_interval(m) else 0.5


def _comparable(rows: list[Measurement]) -> list[Measurement]:
    """The rows whose deviation over examples is known, by intervals or because they are shares; all where none is."""

    def is_known(m: Measurement) -> bool:
        values = reference_values(m)
        return _has_interval(m) or 0 <= min(values) <= max(values) <= 1

    return [m for m in rows if is_known(m)] or rows


def _typical(rows: Sequence[Measurement]) -> float:
    """The spread of retrained models that is typical of a family's rows, in deviations over examples; at most 1 a row.

    Means of shares can hardly differ more; a row in other units (steps, say) must not widen the bounds of all.
    """
    plain = [m for m in rows if not m.prior]
    ratios = [np.var(reference_values(m), ddof=1) / _deviation(m) ** 2 for m in plain if _deviation(m)]
    return math.sqrt(float(np.mean(np.minimum(ratios, 1)))) if ratios else 0.0


def gap(m: Measurement) -> float:
    """How far the original lies beyond retrained models: all that could be forgotten."""
    return excess(m, m.original)


def excess(m: Measurement, shown: Estimate) -> float:
    """How far a model's value lies beyond the mean of retrained models, on the side that leaks; 0 without values."""
    values = reference_values(m)
    if shown.value is None or not values:
        return 0.0
    return (shown.value - float(np.mean(values))) * (-1 if m.leak == "below" else 1)


def smallest_share(m: Measurement) -> float | None:
    """The smallest share of what the original shows beyond retrained models that is called a leak 4 times in 5.

    In (0, 1]; None where not even the whole is, or where the row has no bounds or no side that leaks.
    """
    if m.leak is None or m.bound_high is None or m.bound_low is None or gap(m) <= m.margin:
        return None
    half = (m.bound_high - m.bound_low) / 2
    spread = Bounds(m, ALPHA).spread * math.sqrt(1 + 1 / len(reference_values(m)))
    share = (half + 0.84 * spread) / gap(m)
    return share if share <= 1 else None


def _labelled(m: Measurement, bounds: Bounds, *, lacking: bool, control_failed: bool) -> Labelled:
    """The measurement with its label, and the bounds that it follows from where there are two references or more."""
    value = m.unlearned.value
    if not m.judged or value is None:
        return Labelled(m.model_copy(update={"verdict": "not judged", "bound_low": None, "bound_high": None}), "")
    if len(reference_values(m)) < 2:
        without = {"verdict": "inconclusive", "note": m.note or too_few(m), "bound_low": None, "bound_high": None}
        return Labelled(m.model_copy(update=without), Reason.FEWER_THAN_TWO)
    centre, half = bounds.centre, bounds.half
    side = (value - centre) * (1 if m.leak == "above" else -1)
    label: Label = "like retrained"
    if side > half:
        label = "over-forgets" if m.leak is None else "leaks"
    elif side < -half and m.leak is not None:
        label = "over-forgets"
    why = ""
    if label == "like retrained":
        why = _unsure(m, bounds, lacking=lacking) or (Reason.CONTROL_FAILED if control_failed else "")
    note = m.note if not why or why in m.note else f"{m.note} Inconclusive: {why}.".lstrip()
    ends = {"bound_low": centre - half, "bound_high": centre + half}
    labelled = m.model_copy(update={"verdict": "inconclusive" if why else label, "note": note, **ends})
    return Labelled(labelled, why, control_failed)


def _unsure(m: Measurement, bounds: Bounds, *, lacking: bool) -> str:
    """Why a value inside the bounds is not called like retrained; empty where it is."""
    reach = bounds.beyond(ALPHA)
    if m.leak is None:  # a row of use
        if lacking:
            return Reason.LITTLE_OF_RETAIN
        loss = bounds.centre - (m.unlearned.value or 0.0)
        return Reason.LOSS_COULD_GO_UNSEEN if loss + reach > m.margin and loss > -bounds.half else ""
    if gap(m) <= bounds.half:  # the original itself lies inside
        return _why_blind(m)
    return Reason.HALF_COULD_BE_LEFT if excess(m, m.unlearned) + reach > SHARE * gap(m) else ""


def _why_blind(m: Measurement) -> str:
    """Why a row can't tell even the original from retrained models."""
    if gap(m) <= m.margin:
        return Reason.NOTHING_TO_SEE
    if m.prior:
        return Reason.FEW_RECORDS
    return Reason.FEW_MODELS if len(reference_values(m)) < ENOUGH else Reason.MODELS_DIFFER


def _whole(judged: Sequence[Labelled], alpha: float, references: int, rule: str) -> Verdict:
    rows = [part.row for part in judged]
    counts: dict[str, int] = {label: sum(m.verdict == label for m in rows) for label in ORDER}
    if not judged:
        few = {0: "for want of retrained models", 1: "with fewer than 2 retrained models"}
        reason = few.get(references, "for want of values")
        line = f"Inconclusive: nothing could be judged, {reason}. See the warnings."
        return Verdict(rule=rule, label="inconclusive", line=line, counts=counts, alpha=alpha, judged=0)
    label = next(label for label in ORDER if counts[label])
    blocking = _blocking(judged, rule)
    if label == "inconclusive" and not blocking:
        label = "like retrained"
    named = "; ".join(m.title for m in rows if m.verdict == label)
    share = f"{counts[label]} of {len(rows)} judged measurements"
    line = {
        "leaks": f"Leaks: it shows more of the forgotten than retrained models do, on {share} ({named}).",
        "over-forgets": f"Over-forgets: it knows less than retrained models do, on {share} ({named}).",
        "inconclusive": f"Inconclusive: {_reasons(blocking)}.{_power(judged)}",
        "like retrained": f"Like retrained: {_alike(judged)}{_power(judged)}",
    }[label]
    return Verdict(rule=rule, label=label, line=line, counts=counts, alpha=alpha, judged=len(judged))


def _blocking(judged: Sequence[Labelled], rule: str) -> list[Labelled]:
    """The inconclusive rows because of which an audit without failures is not like retrained.

    All of them, where no row of forgetting is like retrained. Else rows of use; and, of the rows on which the original
    shows something, those whose group has no row that is like retrained, and those on which the unlearned model shows
    half or more of what only the original shows.
    """
    unsure = [part for part in judged if part.why]
    like = {part.row.group for part in judged if not part.why and part.row.leak is not None}
    if not like and any(part.row.leak is not None for part in judged):
        return unsure

    def blocks(part: Labelled) -> bool:
        row = part.row
        if row.leak is None:
            return True
        if part.why == Reason.NOTHING_TO_SEE:
            return False
        shows_half = rule != WITHOUT_CONTROLS and excess(row, row.unlearned) >= SHARE * gap(row)
        return row.group not in like or shows_half

    return [part for part in unsure if blocks(part)]


def _reasons(judged: Sequence[Labelled]) -> str:
    """Why rows are inconclusive, each reason once, with the rows that it is true of."""
    ordered = sorted(judged, key=lambda part: part.why == Reason.NOTHING_TO_SEE)
    by_reason = {part.why: [other.row for other in judged if other.why == part.why] for part in ordered}
    return "; ".join(f"{why} ({'; '.join(m.title for m in rows)})" for why, rows in by_reason.items())


def _alike(judged: Sequence[Labelled]) -> str:
    """What an audit found that is like retrained, and which rows could not tell."""
    like = [part.row for part in judged if not part.why]
    beside = _reasons([part for part in judged if part.why])
    of_forgetting = any(m.leak is not None for m in like)
    half = ", and half or more of what only the original shows is ruled out" if of_forgetting else ""
    share = f"all {len(judged)}" if len(like) == len(judged) else f"{len(like)} of {len(judged)}"
    sentence = f"{share} judged measurements fall where retrained models do{half}."
    return sentence + (f" The others can't tell: {beside}." if beside else "")


def _power(judged: Sequence[Labelled]) -> str:
    """The smallest share left that the most sensitive row would call a leak; how many records would see the whole.

    A row whose attack's control failed vouches for nothing.
    """
    rows = [part.row for part in judged if not part.control_failed]
    shares = {m.title: share for m in rows if (share := smallest_share(m)) is not None}
    if shares:
        best = min(shares, key=lambda title: shares[title])
        return f" {100 * shares[best]:.0f} % left would be seen 4 times in 5 ({best})."
    needed = [_needed(m) for m in rows if m.prior and m.leak and gap(m) > 0]
    return f" Not even the original would be seen 4 times in 5; about {min(needed)} records would do." if needed else ""


def _needed(m: Measurement) -> int:
    """About how many records a row with a prior needs to see the whole of what the original shows 4 times in 5."""
    half, spread = ((m.bound_high or 0.0) - (m.bound_low or 0.0)) / 2, Bounds(m, ALPHA).spread
    return math.ceil(
        m.unlearned.n * ((half + 0.84 * spread * math.sqrt(1 + 1 / len(reference_values(m)))) / gap(m)) ** 2
    )
