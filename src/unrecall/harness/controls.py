"""What shows that an attack works: for each kind a control that holds something, and one that is known not to.

A *positive control* holds what the attack looks for, so that an attack that sees nothing fails it. A *negative control*
doesn't, so that an attack that finds something there fails it. Each function says what its control is, in a sentence,
and whether it holds: None, with the reason in the sentence, where there is no such control or it is too small to fail.
An attack that sees nothing passes a positive control, and one that is sound fails a negative control, with probability
at most `ALPHA`; docs/checks.md says under what assumptions, and tests simulate it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats as distributions

from unrecall.record import stats
from unrecall.record.schema import AttackReport, Estimate, Measurement

ALPHA = 0.05
SHARE = 0.1
"""By how much a copy must show less of an example, as a share of its rows, to count as hiding it."""

LEAST = 3
"""Retrained models below which the bounds of another one are unknown, or so wide that nothing lies beyond them."""


class Control(NamedTuple):
    """What a control is and came to, in a sentence, and whether it holds; None where it can't tell."""

    sentence: str
    holds: bool | None = None


class Claim(NamedTuple):
    """What a control expects: the sentence where it holds, and the one where it fails, which says what should be."""

    holds: str
    fails: str

    def tested(self, figures: str, holds: bool) -> Control:
        """The control with its figures."""
        return Control(f"{self.holds if holds else self.fails}: {figures}", holds)

    def untested(self, reason: str, figures: str = "") -> Control:
        """The control where nothing tests it, with the reason."""
        return Control(f"{self.holds}{figures and f': {figures}'} (no test: {reason})")


class Arms(NamedTuple):
    """What a model that met neither arm shows of the examples of each: `forget` [m] and `holdout` [n]."""

    forget: np.ndarray
    holdout: np.ndarray


class DisguisedCopy(NamedTuple):
    """What an attack shows of each example: of the original, and of a copy of it that hides some of them.

    `hides` [n]: by how much a plain look finds less in the copy. `original` [n]: before the attack. `before` [n] and
    `attacked` [points, n]: of the copy, before the attack and at each point that it reached. `spent`: the places of the
    points at which each of the attacker's choices (a learning rate, say) has spent its largest budget.
    """

    hides: np.ndarray
    original: np.ndarray
    before: np.ndarray
    attacked: np.ndarray
    spent: Sequence[int]


def with_positive(report: AttackReport, control: Control) -> AttackReport:
    """The report with its positive control."""
    return report.model_copy(update={"positive_control": control.sentence, "positive_holds": control.holds})


def with_negative(report: AttackReport, control: Control) -> AttackReport:
    """The report with its negative control."""
    return report.model_copy(update={"negative_control": control.sentence, "negative_holds": control.holds})


BROUGHT_BACK = Claim(
    "brings back what a copy of the original only hides",
    "should bring back what a copy of the original only hides, but does not",
)


# Scored attacks.


def tells_members(area: Estimate) -> Control:
    """Membership, positive: the original was trained on forget and not on holdout, and tells them apart."""
    claim = Claim(
        "tells forget from holdout in the original", "should tell forget from holdout in the original, but does not"
    )
    if area.low is None:
        return claim.untested(area.note or "no interval")
    return claim.tested(f"AUC {area.value:.2f}, its interval from {area.low:.2f}, must lie above 0.5", area.low > 0.5)


def recognises(ratio: Estimate) -> Control:
    """Recognition, positive: the original was trained on forget, and recognises more of it than retrained models."""
    claim = Claim(
        "the original recognises more than retrained models do",
        "the original should recognise more than retrained models do, but does not",
    )
    if ratio.note == stats.ALIKE and ratio.value is not None:
        return claim.tested(f"r = {ratio.value:.2f} for every example", ratio.value > 1)
    if ratio.low is None:
        return claim.untested(ratio.note)
    return claim.tested(f"r = {ratio.value:.2f}, its interval from {ratio.low:.2f}, must lie above 1", ratio.low > 1)


def brings_back(copy: DisguisedCopy) -> Control:
    """Recovery, positive: of what a copy of the original only hides, half or more comes back, and not by chance.

    Only examples count that a plain look finds hidden, so that an attack whose own look is blind fails. Half must come
    back at the best point; chance is ruled out at the largest budgets, for the best of many points is high by chance.
    """
    claim, hidden = BROUGHT_BACK, copy.hides >= SHARE
    if not np.isfinite(copy.attacked).all():
        return claim.untested("not every score of the copy is a finite number")
    count, choices = int(hidden.sum()), copy.attacked[copy.spent][:, hidden]
    few = f"the copy hides {count} of the {len(hidden)} tested examples, too few for {len(choices)} choices"
    if too_few_pairs(count, len(choices)):
        return claim.untested(few)
    there, before, best = (
        float(shown[..., hidden].mean(-1).max()) for shown in (copy.original, copy.before, copy.attacked)
    )
    figures = f"the copy shows {before:.2f}, attacked {best:.2f}, the original {there:.2f}, on {count} examples"
    if best - before < 0.5 * (there - before):
        return claim.tested(figures, False)
    last = max(choices, key=lambda shown: float(shown.mean()))
    if more(last, copy.before[hidden], len(choices)):
        return claim.tested(figures, True)
    if too_few_pairs(count // 2, len(choices)):
        return claim.untested(few, figures)
    return claim.tested(f"{figures}, which can be chance", False)


def shows(original: np.ndarray, others: np.ndarray, holdout: np.ndarray) -> Control:
    """Recovery, positive where no copy can hide: the original shows more of forget than what doesn't know it.

    That is each retrained model (`others` [models, n]), or, without any, the original's own `holdout` [m].
    """
    claim = Claim("the original itself shows what it knows", "the original should show what it knows, but does not")
    figures = f"{original.mean():.2f} when attacked"
    if len(others):
        figures = f"{figures}, retrained models {others.mean():.2f}"
        if too_few_pairs(len(original)):
            return claim.untested(f"{len(original)} examples are too few", figures)
        return claim.tested(figures, more(original, others))
    if too_few(len(original), len(holdout)):
        return claim.untested("it takes a retrained model, or a holdout that is large enough", figures)
    surer = differ(original, holdout, upwards=True) <= ALPHA
    return claim.tested(f"{figures}, of holdout {holdout.mean():.2f}", surer)


def tells_nothing(models: Sequence[Arms], claim: Claim, *, inflation: float = 1.0, upwards: bool = False) -> Control:
    """All scored attacks, negative: models that met neither arm must not tell them apart.

    Under any of them the arms are exchangeable, so that the ranks of the examples, averaged over models, differ by
    chance alone. `inflation`: see `MembershipAttack`. `upwards`: only forget above holdout counts.
    """
    pooled = [distributions.rankdata(np.r_[arms.forget, arms.holdout]) for arms in models]
    m, n = len(models[0].forget), len(models[0].holdout)
    if too_few(m, n):
        return claim.untested(f"{m} and {n} examples are too few")
    ranks = np.mean(pooled, axis=0)
    chance = differ(ranks[:m], ranks[m:], upwards=upwards, inflation=inflation)
    area = (ranks[:m].mean() - (m + 1) / 2) / n
    return claim.tested(f"AUC {area:.2f}, {_p(chance)}", chance > ALPHA)


def shows_less(row: Measurement, original: np.ndarray, others: np.ndarray, *, sooner: bool) -> Control | None:
    """Recovery, negative: what the original alone knows must not come back from retrained models just as well.

    `row`: what the attack comes to in each model; `sooner`: lower figures show more. `original` [n] and `others`
    [models, n]: what is shown before the attack. None where it doesn't come back, or nothing is known to the original
    alone: `tells_nothing` decides then.
    """
    if row.original.value is None or row.reference is None or not more(original, others):
        return None
    if row.reference > row.original.value if sooner else row.reference < row.original.value:
        return None
    return Control(
        "retrained models should show less than the original, which alone met forget, but show as much: "
        f"{row.reference:.2f}",
        False,
    )


# Inspections.


def sees_hidden(
    hidden: Estimate, references: Sequence[float], sign: int, what: str = "what a copy of the original only hides"
) -> Control:
    """Inspection, positive: a copy of the original that only hides lies beyond where retrained models do.

    `sign`: 1 where the forgotten shows in high values, -1 in low ones, 0 where neither side tells. `what`: that copy
    hides, or holds.
    """
    claim = Claim(f"sees {what}", f"should see {what}, but does not")
    if missing := _missing(sign, len(references), hidden):
        return claim.untested(missing)
    edge = _edge(references, sign, ALPHA)
    compared = f"{hidden.value:.2f}, where another retrained model would end at {edge:.2f}"
    return claim.tested(compared, _beyond(hidden.value or 0.0, edge, sign))


def sees_none(references: Sequence[float], sign: int) -> Control:
    """Inspection, negative: no retrained model lies beyond where another one would, by the others; all tests together.

    Values are taken to be roughly normal, as in the verdict's rule.
    """
    claim = Claim(
        "no retrained model stands out from the others",
        "no retrained model should stand out from the others, but one does",
    )
    if missing := _missing(sign, len(references)):
        return claim.untested(missing)
    highest = max(references, key=lambda value: sign * value)
    others = list(references)
    others.remove(highest)
    edge = _edge(others, sign, ALPHA / len(references))
    holds = not _beyond(highest, edge, sign)
    return claim.tested(f"{highest:.2f}, where one more than these would end at {edge:.2f}", holds)


# Deletion attacks.


def harms(surrogate: np.ndarray, random: np.ndarray) -> Control:
    """Deletion, positive: where the defender is the surrogate itself, it harms more than any random request does.

    `surrogate` [victims] and `random` [requests, victims]: which of the victim's examples were harmed.
    """
    figures, where = f"{surrogate.mean():.2f} against {random.mean():.2f}", "where the defender is the surrogate itself"
    claim = Claim(
        f"harms more than random requests {where}", f"should harm more than random requests {where}, but does not"
    )
    if too_few_pairs(len(surrogate)):
        return claim.untested(f"{len(surrogate)} unseen examples of the victim are too few", figures)
    return claim.tested(figures, more(surrogate, random))


def harm_less(adverse: np.ndarray, others: Mapping[str, np.ndarray], random: np.ndarray) -> Control:
    """Deletion, negative: what isn't aimed at the victim harms at most half as much as the attack does.

    `adverse` [victims]: which examples the attack harmed; `others` [requests, victims]: which ones each of these did,
    by name. `random`: random requests, whose mean the attack must exceed, or there is no harm to hold them against.
    """
    means = {name: float(harm.mean()) for name, harm in others.items()}
    own = f"at most half as much as its {adverse.mean():.2f}"
    claim = Claim(f"these harm {own}", f"these should harm {own}, but not all of them do")
    figures = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    if not more(adverse, random.mean(0)):
        return claim.untested("it harms no more than random requests do", figures)
    return claim.tested(figures, max(means.values()) <= 0.5 * float(adverse.mean()))


# Arithmetic.


def more(above: np.ndarray, below: np.ndarray, trials: int = 1) -> bool:
    """Whether values `[n]` are higher than their partners `[n]`, or than those of each of several `[k, n]`.

    By the sign test at `ALPHA`; its p is multiplied by `trials`, of which `above` is the best.
    """

    def chance(other: np.ndarray) -> float:
        up, down = int((above > other).sum()), int((above < other).sum())
        return float(distributions.binomtest(up, up + down, alternative="greater").pvalue) if up > down else 1.0

    return all(chance(other) * trials <= ALPHA for other in np.atleast_2d(below))


def too_few_pairs(n: int, trials: int = 1) -> bool:
    """Whether n pairs are too few for the sign test at `ALPHA`, however they fall."""
    return 0.5**n * trials > ALPHA


def too_few(m: int, n: int) -> bool:
    """Whether so many examples could not differ at `ALPHA` however they fell."""
    return min(m, n) < 4 and math.comb(m + n, m) < 2 / ALPHA


def differ(first: np.ndarray, second: np.ndarray, *, upwards: bool = False, inflation: float = 1.0) -> float:
    """The p-value of the rank-sum test of two sets of values; 1 where all are equal.

    `upwards`: only the first above the second counts. `inflation`: the factor by which the variance of the ranks' mean
    exceeds that of independent values.
    """
    if np.ptp(np.r_[first, second]) == 0:
        return 1.0
    test = distributions.mannwhitneyu(first, second, alternative="greater" if upwards else "two-sided")
    sides = 1 if upwards else 2
    return float(sides * distributions.norm.sf(distributions.norm.isf(test.pvalue / sides) / math.sqrt(inflation)))


def _p(chance: float) -> str:
    """A p in a sentence, with as many digits as show on which side of `ALPHA` it lies."""
    if chance < 0.01:
        return "p < 0.01"
    text = f"{chance:.2f}"
    return f"p = {text if float(text) != ALPHA else f'{chance:.4f}'}"


def _missing(sign: int, references: int, hidden: Estimate | None = None) -> str:
    """Why there is no test of an inspection; empty where there is one."""
    if not sign:
        return "neither side shows the forgotten"
    if hidden is not None and hidden.value is None:
        return hidden.note or "no value"
    return "" if references >= LEAST else f"it takes {LEAST} retrained models, there are {references}"


def _edge(references: Sequence[float], sign: int, alpha: float) -> float:
    """Beyond which one more retrained model would lie with probability `alpha`, on the side where more is shown."""
    bounds = stats.prediction_interval(references, 1 - 2 * alpha) or (-math.inf, math.inf)
    return bounds[1] if sign > 0 else bounds[0]


def _beyond(value: float, edge: float, sign: int) -> bool:
    """Whether a value lies beyond the edge by more than rounding."""
    return sign * (value - edge) > 1e-9 * max(1.0, abs(edge))
