"""A whole siege by hand: chosen answers of each model, so that every row, curve point and sentence can be counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from unrecall.harness.findings import Finding, report_of

from tests.worlds import CPU
from unrecall.attacks.indirect import Indirect
from unrecall.data.request import Request
from unrecall.data.signals import Signals
from unrecall.harness.deletion import NONE, _laid_out
from unrecall.harness.requests import Ground, Outcome, Siege
from unrecall.record.schema import Curve, Measurement
from unrecall.tasks import Classification

NAMES = ("ant", "bee", "cat", "dog")
TASK = Classification(classes=NAMES)
ATTACK = Indirect(victim=1, wished=2, sizes=(2, 3, 5), controls=2, retrain=2, known=2)

# Eight unseen bees, and seven others; five of each come first, from test, the rest is holdout.
TRUTH = [1, 1, 1, 1, 0, 0, 2, 2, 3, 3, 1, 1, 1, 1, 3]
BEES = [0, 1, 2, 3, 10, 11, 12, 13]
ORIGINAL = {"bees": [1, 1, 1, 1, 0, 1, 1, 2], "others": [0, 1, 2, 3, 3, 3, 3]}  # 6 of 8 right, 5 of 7 right
FORGET, RETAIN = [0, 1], [1, 3, 1, 3, 0, 2, 1, 1]  # a bee is in forget as well
RIGHT = [1, 0, 1, 1, 1, 0, 1, 1, 1, 1]


def signals(target: list[int], prediction: list[int], correct: list[int] | None = None) -> Signals:
    """What is asked of them: classes and answers."""
    right = [int(a == b) for a, b in zip(target, prediction, strict=True)] if correct is None else correct
    blank = {name: np.zeros(len(target)) for name in Signals.__dataclass_fields__}
    known = {"target": target, "prediction": prediction, "correct": right}
    return Signals(**blank | {name: np.array(values) for name, values in known.items()})


def examples(classes: list[int], start: int) -> list[tuple[torch.Tensor, int]]:
    return [(torch.tensor([float(start + i)]), c) for i, c in enumerate(classes)]


def answers(bees: list[int], others: list[int]) -> list[int]:
    found = np.zeros(len(TRUTH), int)
    found[BEES] = bees
    found[[i for i in range(len(TRUTH)) if i not in BEES]] = others
    return [int(c) for c in found]


def ground(attack: Indirect = ATTACK, seed: int = 7) -> Ground:
    request = Request(*(examples(c, 100 * i) for i, c in enumerate((FORGET, RETAIN, TRUTH[10:], TRUTH[:10]))))
    told = answers(**ORIGINAL)
    before = {
        "forget": signals(FORGET, FORGET, RIGHT[:2]),
        "retain": signals(RETAIN, RETAIN, RIGHT[2:]),
        "test": signals(TRUTH[:10], told[:10]),
        "holdout": signals(TRUTH[10:], told[10:]),
    }
    return Ground(attack, nn.Identity(), request, TASK, TASK, before, seed, CPU)  # type: ignore[arg-type]


def outcome(*cats: int, others: list[int] | None = None, left: tuple[int, ...] = (1, 1, 1)) -> Outcome:
    """The original's answers, but that these bees (by number) are now called cats."""
    bees = [2 if i in cats else c for i, c in enumerate(ORIGINAL["bees"])]
    told = answers(bees, ORIGINAL["others"] if others is None else others)
    return Outcome(np.array(told), np.empty(0, int), np.array(left, float))


def besieged(**changed: Any) -> Siege:
    """The adversary picks the second of three sizes, and asks for an ant and two dogs."""
    siege = Siege(
        ground=ground(),
        sizes=[2, 3, 5],
        picked=1,
        asked=[0, 3, 5],
        chosen=[
            outcome(0),
            outcome(0, 1, 2, 3, 4, 5, others=[0, 0, 2, 3, 0, 3, 0], left=(1, 0, 0)),
            outcome(0, 1, 2, 3, 4, 5, 6, others=[0, 0, 0, 0, 0, 0, 0]),
        ],
        random=[
            [outcome(), outcome(1)],
            [outcome(0, left=(1, 1, 0)), outcome(0, 6)],
            [outcome(0, 1, 2), outcome(6)],
        ],
        surrogate=[outcome(), outcome(0, 1, 2, 3), outcome(0)],
        random_surrogate=[outcome(), outcome(3)],
        alike=[outcome(0, 1, 2, left=(0, 0, 1))],
        losses=[2.0, 1.5],
        retrained=[outcome(0), outcome()],
    )
    return replace(siege, **changed)


def found(**changed: Any) -> Finding:
    siege = besieged(**changed)
    return _laid_out(report_of(siege.ground.attack), siege, NAMES)


def rows(finding: Finding) -> dict[str, Measurement]:
    return {m.name.removeprefix(f"{finding.report.name}_"): m for m in finding.measurements}


def test_every_row() -> None:
    """Of eight bees 0-5 are newly called cats, 6 is left alone, and 7 was called a cat before: no harm."""
    row = rows(found())
    expected = {
        "success": (6 / 8, 8),
        "random": ((1 / 8 + 2 / 8) / 2, 8),
        "excess": (6 / 8 - 3 / 16, 8),
        "alike": (3 / 8, 8),
        "surrogate": (4 / 8, 8),
        "transfer": (6 / 4, 8),
        "retrained": (1 / 16, 8),
        "answered": (7 / 8, 8),
        "accuracy": (1 / 8, 8),
        "others": (4 / 7, 7),
        "left": (1 / 3, 3),
    }
    assert list(row) == list(expected)
    for name, (value, n) in expected.items():
        assert row[name].unlearned.value == pytest.approx(value), name
        assert row[name].unlearned.n == n, name
    before = {"answered": (1 / 8, 8), "accuracy": (6 / 8, 8), "others": (5 / 7, 7), "left": (2 / 3, 3)}
    for name, one in row.items():
        assert one.group == "harm" and one.null == NONE
        if name in before:
            assert (one.original.value, one.original.n) == (pytest.approx(before[name][0]), before[name][1]), name
        else:
            assert one.original == NONE, name


def test_titles_and_notes() -> None:
    row, title = rows(found()), "Indirect unlearning attack (1) (2): "
    share = f"{title}unseen bee newly answered cat"
    assert {name: one.title for name, one in row.items()} == {
        "success": share,
        "random": f"{share}, after random requests",
        "excess": f"{share}, beyond random requests",
        "alike": f"{share}, after a request for others as hard",
        "surrogate": f"{share}, by the adversary's surrogate",
        "transfer": f"{title}harm by the defender, as a share of the surrogate's",
        "retrained": f"{share}, retrained without the request",
        "answered": f"{title}unseen bee answered cat",
        "accuracy": f"{title}accuracy on unseen bee",
        "others": f"{title}accuracy on unseen examples of other classes",
        "left": f"{title}requested examples still answered right",
    }
    kept = "requested examples still answered right"
    assert {name: one.note for name, one in row.items() if one.note} == {
        "random": f"each: 0.12, 0.25; {kept}: 0.83",
        "alike": f"mean loss 1.5 in place of 2; {kept}: 0.33",
    }


def test_the_interval_of_a_share_stays_a_share() -> None:
    """Random requests harm 1, 0.5 and six times 0: Student's interval begins below 0. A difference may."""
    finding = found()
    row = rows(finding)
    assert row["random"].unlearned.low == row["retrained"].unlearned.low == 0
    assert row["random"].unlearned.high == pytest.approx(3 / 16 + 2.36462 * np.sqrt(31 / 224 / 8), abs=1e-4)
    for name, one in row.items():
        low, high = one.unlearned.low, one.unlearned.high
        assert low is not None and high is not None
        assert name in ("excess", "transfer") or 0 <= low <= high <= 1
    # 0, 1, 1, 1, 1, 1, -0.5, 0: their variance is (5.25 - 8 * 0.5625 ** 2) / 7.
    half = 2.36462 * np.sqrt((5.25 - 8 * 0.5625**2) / 7 / 8)
    assert row["excess"].unlearned.low == pytest.approx(0.5625 - half, abs=1e-4)
    assert row["excess"].unlearned.high == pytest.approx(0.5625 + half, abs=1e-4) and 0.5625 + half > 1
    for curve in finding.report.curves:
        for series in curve.series:
            known = [end for end in (*(series.low or []), *(series.high or [])) if end is not None]
            assert known and all(0 <= end <= 1 for end in known), series.role


def test_what_can_not_be_told() -> None:
    row = rows(found(alike=[], retrained=[]))
    assert (row["alike"].unlearned.value, row["alike"].unlearned.note) == (None, "too few others to ask for")
    assert (row["retrained"].unlearned.value, row["retrained"].unlearned.note) == (
        None,
        "the scenario can't train models",
    )
    assert "retrained" not in rows(found(ground=ground(replace(ATTACK, retrain=0)), retrained=[]))
    assert rows(found(surrogate=[outcome()] * 3))["transfer"].unlearned.value is None


def test_any_wrong_answer_where_none_is_wished() -> None:
    """Bees 0-3 and 5 are newly wrong; 4 and 7 were wrong before, and nothing is answered as wished."""
    row = rows(found(ground=ground(replace(ATTACK, wished=-1))))
    assert row["success"].unlearned.value == 5 / 8
    assert row["success"].title.endswith("unseen bee newly wrong")
    assert "answered" not in row


def points(curve: Curve) -> dict[str, tuple[list[float], list[float | None]]]:
    return {series.role: (series.x, series.y) for series in curve.series}


def test_every_point_of_the_curves() -> None:
    harm, accuracy = found().report.curves
    x = [0, 2, 3, 5]
    assert (harm.name, harm.x_label, harm.y_label) == ("harm", "examples asked for", "share")
    assert points(harm) == {
        "unlearned": (x, [0, 1 / 8, 6 / 8, 7 / 8]),
        "random requests": (x, [0, 1 / 16, 3 / 16, 4 / 16]),
        "surrogate": (x, [0, 0, 4 / 8, 1 / 8]),
        "retrained": ([3], [1 / 16]),
    }
    assert (accuracy.name, accuracy.x_label, accuracy.y_label) == ("accuracy", "examples asked for", "accuracy")
    assert points(accuracy) == {
        "unlearned": (x, [6 / 8, 5 / 8, 1 / 8, 0]),
        "unlearned, other classes": (x, [pytest.approx(right / 7) for right in (5, 5, 4, 2)]),
        "random requests": (x, [6 / 8, 11 / 16, 9 / 16, 8 / 16]),
    }
    assert set(points(found(retrained=[]).report.curves[0])) == {"unlearned", "random requests", "surrogate"}


def test_the_sentence_that_says_who_paid() -> None:
    """Ants gain a half, cats stay as they are, dogs lose 2 of 3 and bees 5 of 8."""
    assert found().report.note == (
        "Honouring a request for 3 training examples (2 dog, 1 ant): 0.75 of unseen bee newly answered cat, and 0.19 "
        "after random requests of that size. Classes that paid most, in accuracy: dog -0.67, bee -0.62."
    )
    assert found(chosen=[outcome()] * 3).report.note.endswith("Classes that paid most, in accuracy: none.")
    ruined = Outcome((np.array(TRUTH) + 1) % 4, np.empty(0, int), np.ones(3))
    assert found(chosen=[ruined] * 3).report.note.endswith(": dog -1.00, bee -0.75, ant -0.50.")


def test_the_positive_control_looks_at_the_surrogate() -> None:
    """4 of 8 against 1 in 16 by its own method; whatever the defender's makes of it."""
    for one in (found(), found(chosen=[outcome()] * 3)):
        assert one.report.positive_holds is True
        assert one.report.positive_control.endswith("the defender is the surrogate itself: 0.50 against 0.06")
    as_much = found(random_surrogate=[outcome(0, 1, 2, 3)])
    assert as_much.report.positive_holds is False
    assert as_much.report.positive_control.endswith("0.50 against 0.50")
    assert found(surrogate=[outcome()] * 3, random_surrogate=[outcome(0, 1)]).report.positive_holds is False


@pytest.mark.parametrize(("cats", "tells"), [((0,), False), ((0, 1, 2, 3), True)])
def test_one_more_of_eight_tells_nothing(cats: tuple[int, ...], tells: bool) -> None:
    """A difference of 0 and 1 is no share, for -1 was possible: 0.125 +- 0.30 holds 0, 0.5 +- 0.45 does not."""
    finding = found(
        chosen=[outcome(*cats)] * 3, random=[[outcome()]] * 3, surrogate=[outcome(*cats)] * 3,
        random_surrogate=[outcome()], alike=[], retrained=[],
    )  # fmt: skip
    low = rows(finding)["excess"].unlearned.low
    assert low is not None and (low > 0) is tells
    assert finding.report.positive_holds is tells
    assert finding.report.negative_holds is (True if tells else None)


def test_where_all_are_harmed_and_none_at_random() -> None:
    """Eight of eight newly called dogs: the exact interval of that share begins at 0.025 ** (1/8)."""
    every = Outcome(np.where(np.array(TRUTH) == 1, 3, 0), np.empty(0, int), np.ones(3))
    one = replace(ATTACK, wished=3)
    told = {"ground": ground(one), "chosen": [every] * 3, "surrogate": [every] * 3}
    finding = found(**told, random=[[outcome()]] * 3, random_surrogate=[outcome()], alike=[], retrained=[])
    excess = rows(finding)["excess"].unlearned
    assert excess.value == 1 and excess.low == pytest.approx(0.025 ** (1 / 8))
    assert finding.report.positive_holds is finding.report.negative_holds is True


def test_the_negative_controls_harm_at_most_half_as_much() -> None:
    """3 of 8 is half of 6 of 8, and so allowed; 4 of 8, of any of the three, is not."""
    report = found().report
    assert report.negative_holds is True
    assert report.negative_control == (
        "these harm at most half as much as its 0.75: random requests 0.19, one for others as hard 0.38, "
        "retraining without it 0.06"
    )
    assert found(alike=[outcome(0, 1, 2, 3)]).report.negative_holds is False
    assert found(retrained=[outcome(0, 1, 2, 3)]).report.negative_holds is False
    alone = found(alike=[], retrained=[]).report
    assert alone.negative_holds is True and alone.negative_control.endswith("its 0.75: random requests 0.19")
    # 7 of 8, and random requests 0.5 on average: 1 and six times 0.5, beyond which it is 0.375 +- 0.19.
    harmful = {"chosen": [outcome(0, 1, 2, 3, 4, 5, 6)] * 3, "alike": [], "retrained": []}
    blind = found(**harmful, random=[[outcome(0, 1, 2, 3), outcome(0, 4, 5, 6)]] * 3).report
    assert blind.negative_control == "these harm at most half as much as its 0.88: random requests 0.50"
    assert blind.negative_holds is False


def test_no_harm_no_negative_control() -> None:
    """One bee of eight, where random requests cost one and two: nothing can be half of that."""
    report = found(chosen=[outcome(0)] * 3).report
    assert report.negative_holds is None
    assert report.negative_control.endswith(" (no test: it harms no more than random requests do)")


# What may be asked for, and by whom.


def test_each_control_is_a_draw_of_its_own() -> None:
    """Five that may be asked for, whose orders differ by number and by seed, and are the same again."""
    one = ground()
    draws = [one.drawn(i) for i in range(4)]
    assert all(sorted(draw) == list(range(len(one.mine))) for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 4
    assert draws == [ground().drawn(i) for i in range(4)]
    assert ground(seed=8).drawn(0) != draws[0]


@pytest.mark.parametrize("seed", range(8))
def test_known_victims_are_retained_ones(seed: int) -> None:
    """Example 1 is a bee too, but the defender is about to forget it: the adversary knows 2, 4, 8 and 9."""
    assert sorted(ground(replace(ATTACK, known=200), seed).theirs) == [2, 4, 8, 9]
    few = ground(ATTACK, seed)
    assert len(few.theirs) == 2 and set(few.theirs) < {2, 4, 8, 9}
    assert [few.pool.victims[i][1] for i in (0, 1)] == [1, 1]
    assert sorted(few.mine) == [0, 3, 5, 6, 7]
