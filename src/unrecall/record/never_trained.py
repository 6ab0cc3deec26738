"""The verdict beside records that were never trained on: one model, one request, no retraining.

Everything follows from scores that stand beside the record, so that a check computes every number again.
docs/verdict.md explains the rule; recipes/verdict_worlds.py measures how often it is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from unrecall.disk.files import content_key
from unrecall.record import stats
from unrecall.record.discoveries import discoveries, epsilon
from unrecall.record.exchange import DRAWS, Exchange, exchange
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
from unrecall.record.pool_scores import PoolScores, Stated
from unrecall.record.schema import AttackTest, Damage, Label, NeverTrained, Verdict
from unrecall.record.share_of_memory import areas, needed, share_left, smallest_share

RULE, FORMER = "exchange-4", "exchange-3"
"""The id of the rule below, and of the one before, whose interval of what was lost was too narrow where little was.

A rule that can label the same scores otherwise gets another id.
"""
LEAKS, STRANGE, ALPHA = 0.04, 0.01, 0.05
FEW = 10
"""Units of forget below which a share of memory has no bounds: its variance can't be told."""
MARGIN = 0.05
"""The loss of accuracy that is worth naming."""
SHARES: Mapping[float, Label] = {0.25: "no more than 25 %", 0.5: "no more than 50 %"}
FEWEST_HOLDOUT = 4
"""Records of holdout below which there is no verdict."""
SHARED = ("class", "concept")
"""Requests whose forget and holdout share what is to be forgotten."""
NOT_JUDGED = "Not judged beside records never trained on: "
"""How the line begins that says why there is no verdict."""
FIXED_SUITES = (
    ("as_it_is", "recalibration", "head_refit", "benign_20", "symmetric"),
    ("as_it_is", "quantise", "benign_15", "benign_120", "symmetric"),
    ("as_it_is", "benign_20", "symmetric"),
)
"""The names of the fixed suites: of classifiers, texts, and other tasks."""
TAUGHT_STEPS = (1, 2, 3, 5, 8, 13, 20)
"""Steps after which relearning looks at its pool's own loss."""


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
