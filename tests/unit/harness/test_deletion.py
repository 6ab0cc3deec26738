"""All outcomes of an attack by hand: chosen answers of each model, so that every number and sentence can be counted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import nn

from tests.worlds import CPU
from unrecall.attacks.indirect import Indirect
from unrecall.data.request import Request
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.adversary import Adversary, Predictions
from unrecall.harness.finding import Finding, report_of
from unrecall.harness.harm import NONE, Answers, Outcomes, TrialOfSize, harm_finding
from unrecall.record.schema import Curve, Measurement
from unrecall.record.stats import SKEWED
from unrecall.tasks import Classification

NAMES = ("ant", "bee", "cat", "dog")
ATTACK = Indirect(victim=1, answered_as=2, sizes=(2, 3, 5), controls=2, retrain=2, victims=2)

# Eight unseen bees, and seven others; five of each come first, from test, the rest is holdout.
TRUTH = [1, 1, 1, 1, 0, 0, 2, 2, 3, 3, 1, 1, 1, 1, 3]
BEES = [0, 1, 2, 3, 10, 11, 12, 13]
ORIGINAL = {"bees": [1, 1, 1, 1, 0, 1, 1, 2], "others": [0, 1, 2, 3, 3, 3, 3]}  # 6 of 8 right, 5 of 7 right
FORGET, RETAIN = [0, 1], [1, 3, 1, 3, 0, 2, 1, 1]  # a bee is in forget as well
REQUESTED = [0, 3, 3]  # an ant and two dogs; the original answers the first two right


def examples(classes: list[int], start: int) -> list[tuple[torch.Tensor, int]]:
    return [(torch.tensor([float(start + i)]), c) for i, c in enumerate(classes)]


def answers(bees: list[int], others: list[int], requested: tuple[int, ...]) -> Answers:
    classes = np.zeros(len(TRUTH), int)
    classes[BEES] = bees
    classes[[i for i in range(len(TRUTH)) if i not in BEES]] = others
    return Answers(classes, np.empty(0, int), np.array(requested, float))


def outcome(*cats: int, others: list[int] | None = None, requested: tuple[int, ...] = (1, 1, 1)) -> Answers:
    """The original's answers, but that these bees (by number) are now called cats."""
    bees = [2 if i in cats else c for i, c in enumerate(ORIGINAL["bees"])]
    return answers(bees, ORIGINAL["others"] if others is None else others, requested)


CHOSEN = [
    outcome(0),
    outcome(0, 1, 2, 3, 4, 5, others=[0, 0, 2, 3, 0, 3, 0], requested=(1, 0, 0)),
    outcome(0, 1, 2, 3, 4, 5, 6, others=[0, 0, 0, 0, 0, 0, 0]),
]
SURROGATE = [outcome(), outcome(0, 1, 2, 3), outcome(0)]
RANDOM = [
    [outcome(), outcome(1)],
    [outcome(0, requested=(1, 1, 0)), outcome(0, 6)],
    [outcome(0, 1, 2), outcome(6)],
]


def outcomes(
    chosen: list[Answers] = CHOSEN,
    surrogate: list[Answers] = SURROGATE,
    random: list[list[Answers]] = RANDOM,
    **changed: Any,
) -> Outcomes:
    """The adversary picks the second of three sizes, and asks for an ant and two dogs."""
    as_they_are = Outcomes(
        attack=ATTACK,
        names=NAMES,
        truth=np.array(TRUTH),
        before=answers(**ORIGINAL, requested=(1, 1, 0)),
        trials=[TrialOfSize(*parts) for parts in zip((2, 3, 5), chosen, surrogate, random, strict=True)],
        picked=1,
        requested=REQUESTED,
        losses=(2.0, 1.5),
        random_surrogate=[outcome(), outcome(3)],
        as_hard=[outcome(0, 1, 2, requested=(0, 0, 1))],
        retrained=[outcome(0), outcome()],
    )
    return replace(as_they_are, **changed)


def finding_of(**changed: Any) -> Finding:
    return harm_finding(outcomes(**changed))


def rows(finding: Finding) -> dict[str, Measurement]:
    return {m.name.removeprefix(f"{finding.report.name}_"): m for m in finding.measurements}


def test_every_row() -> None:
    """Of eight bees 0-5 are newly called cats, 6 is left alone, and 7 was called a cat before: no harm."""
    row = rows(finding_of())
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
    for name, measurement in row.items():
        assert measurement.group == "harm" and measurement.null == NONE
        original = measurement.original
        if name in before:
            assert (original.value, original.n) == (pytest.approx(before[name][0]), before[name][1]), name
        else:
            assert original == NONE, name


def test_titles_and_notes() -> None:
    row, title = rows(finding_of()), "Indirect unlearning attack (bee to be answered as cat): "
    share = f"{title}unseen bee newly answered as cat"
    assert {name: measurement.title for name, measurement in row.items()} == {
        "success": share,
        "random": f"{share}, after random requests",
        "excess": f"{share}, beyond random requests",
        "alike": f"{share}, after a request for others as hard",
        "surrogate": f"{share}, by the adversary's surrogate",
        "transfer": f"{title}harm by the defender, as a share of the surrogate's",
        "retrained": f"{share}, retrained without the request",
        "answered": f"{title}unseen bee answered as cat",
        "accuracy": f"{title}accuracy on unseen bee",
        "others": f"{title}accuracy on unseen examples of other classes",
        "left": f"{title}requested examples still answered right",
    }
    right = "requested examples still answered right"
    assert {name: measurement.note for name, measurement in row.items() if measurement.note} == {
        "random": f"each: 0.12, 0.25; {right}: 0.83",
        "alike": f"mean loss 1.5 in place of 2; {right}: 0.33",
    }


def test_the_interval_of_a_share_stays_a_share() -> None:
    """Random requests harm 1, 0.5 and six times 0, retraining 0.5 and seven times 0: Student's begin below 0.

    Fewer than three whole ones each, so they are the exact intervals of 1.5 and of 0.5 of eight. A difference may.
    """
    finding = finding_of()
    row = rows(finding)
    for name, ones in (("random", 1.5), ("retrained", 0.5)):
        low, high = beta.ppf(0.025, ones, 9 - ones), beta.ppf(0.975, ones + 1, 8 - ones)
        assert (row[name].unlearned.low, row[name].unlearned.high) == (pytest.approx(low), pytest.approx(high))
    assert (row["transfer"].unlearned.low, row["transfer"].unlearned.note) == (None, SKEWED)
    for name, measurement in row.items():
        low, high = measurement.unlearned.low, measurement.unlearned.high
        assert name == "transfer" or (low is not None and high is not None)
        assert name in ("excess", "transfer") or 0 <= (low or 0) <= (high or 0) <= 1
    # 0, 1, 1, 1, 1, 1, -0.5, 0: five more of eight, and half of one fewer.
    excess = row["excess"].unlearned
    assert excess.value == pytest.approx(4.5 / 8)
    assert -1 <= (excess.low or -2) <= 5 / 8 - beta.ppf(0.975, 1.5, 7.5)
    assert 1 >= (excess.high or 2) >= beta.ppf(0.975, 6, 3) - 0.5 / 8
    for curve in finding.report.curves:
        for series in curve.series:
            ends = [end for end in (*(series.low or []), *(series.high or [])) if end is not None]
            assert ends and all(0 <= end <= 1 for end in ends), series.role


def test_classes_that_go_by_numbers_are_called_classes() -> None:
    numbered = outcomes(names=("0", "1", "2", "3"))
    assert [numbered.called(c) for c in (0, 3, 4)] == ["class 0", "class 3", "class 4"]
    assert numbered.title == "Indirect unlearning attack (class 1 to be answered as class 2)"
    any_wrong = replace(numbered, attack=replace(ATTACK, answered_as=-1))
    assert any_wrong.title == "Indirect unlearning attack (class 1 to be answered wrong)"
    assert harm_finding(numbered).report.note.startswith(
        "Honouring a request for 3 training examples (2 of class 3, 1 of class 0): 0.75 of unseen class 1 newly "
    )


def test_parameters_in_a_title_stand_with_their_names() -> None:
    report = report_of(ATTACK)
    assert (report.name, report.title) == ("indirect_1_2", "Indirect unlearning attack (victim 1, answered as 2)")
    assert report_of(Indirect()).title == "Indirect unlearning attack"


def test_what_can_not_be_told() -> None:
    row = rows(finding_of(as_hard=[], retrained=[]))
    assert (row["alike"].unlearned.value, row["alike"].unlearned.note) == (None, "too few others to ask for")
    assert (row["retrained"].unlearned.value, row["retrained"].unlearned.note) == (
        None,
        "the scenario can't train models",
    )
    assert "retrained" not in rows(finding_of(attack=replace(ATTACK, retrain=0), retrained=[]))
    assert rows(finding_of(surrogate=[outcome()] * 3))["transfer"].unlearned.value is None


def test_any_wrong_answer_where_none_is_wished() -> None:
    """Bees 0-3 and 5 are newly wrong; 4 and 7 were wrong before, and nothing is answered as wished."""
    row = rows(finding_of(attack=replace(ATTACK, answered_as=-1)))
    assert row["success"].unlearned.value == 5 / 8
    assert row["success"].title.endswith("unseen bee newly wrong")
    assert "answered" not in row


def points(curve: Curve) -> dict[str, tuple[list[float], list[float | None]]]:
    return {series.role: (series.x, series.y) for series in curve.series}


def test_every_point_of_the_curves() -> None:
    harm, accuracy = finding_of().report.curves
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
    assert set(points(finding_of(retrained=[]).report.curves[0])) == {"unlearned", "random requests", "surrogate"}


def test_the_sentence_that_says_who_paid() -> None:
    """Ants gain a half, cats stay as they are, dogs lose 2 of 3 and bees 5 of 8."""
    assert finding_of().report.note == (
        "Honouring a request for 3 training examples (2 of dog, 1 of ant): 0.75 of unseen bee newly answered as cat, "
        "and 0.19 after random requests of that size. Classes that lost most accuracy: dog -0.67, bee -0.62."
    )
    assert finding_of(chosen=[outcome()] * 3).report.note.endswith("Classes that lost most accuracy: none.")
    ruined = Answers((np.array(TRUTH) + 1) % 4, np.empty(0, int), np.ones(3))
    assert finding_of(chosen=[ruined] * 3).report.note.endswith(": dog -1.00, bee -0.75, ant -0.50.")


def test_the_positive_control_looks_at_the_surrogate() -> None:
    """By its own method 5 of 8, 5 more than none and 4 more than 1 in 8; whatever the defender's makes of it."""
    some = [outcome(0, 1, 2, 3, 4)] * 3
    for chosen in (CHOSEN, [outcome()] * 3):
        report = finding_of(chosen=chosen, surrogate=some, random_surrogate=[outcome(), outcome()]).report
        assert report.positive_holds is True
        assert report.positive_control.endswith("the defender is the surrogate itself: 0.62 against 0.00")
    for other in ([outcome(), outcome(3)], [outcome(0, 1, 2, 3, 4)]):
        assert finding_of(surrogate=some, random_surrogate=other).report.positive_holds is False


@pytest.mark.parametrize(("cats", "tells"), [((0, 1, 2, 3), False), ((0, 1, 2, 3, 4), True)])
def test_four_of_eight_tell_nothing(cats: tuple[int, ...], tells: bool) -> None:
    """Four that differ, all to one side, have a chance of 1 in 16; five have 1 in 32."""
    finding = finding_of(
        chosen=[outcome(*cats)] * 3, random=[[outcome()]] * 3, surrogate=[outcome(*cats)] * 3,
        random_surrogate=[outcome()], as_hard=[], retrained=[],
    )  # fmt: skip
    assert finding.report.positive_holds is tells
    assert finding.report.negative_holds is (True if tells else None)


def test_where_all_are_harmed_and_none_at_random() -> None:
    """Eight of eight newly called dogs: at least so many more than random requests as the exact bound of both says."""
    dogs = Answers(np.where(np.array(TRUTH) == 1, 3, 0), np.empty(0, int), np.ones(3))
    finding = finding_of(
        attack=replace(ATTACK, answered_as=3), chosen=[dogs] * 3, surrogate=[dogs] * 3, random=[[outcome()]] * 3,
        random_surrogate=[outcome()], as_hard=[], retrained=[],
    )  # fmt: skip
    excess = rows(finding)["excess"].unlearned
    assert excess.value == 1 and excess.low == pytest.approx(2 * 0.025 ** (1 / 8) - 1)
    assert finding.report.positive_holds is finding.report.negative_holds is True


def test_the_negative_controls_harm_at_most_half_as_much() -> None:
    """3 of 8 is less than half of 7 of 8, and so allowed; 4 of 8, of any of the three, is not."""
    most = [outcome(0, 1, 2, 3, 4, 5, 6)] * 3
    report = finding_of(chosen=most).report
    assert report.negative_holds is True
    assert report.negative_control == (
        "these harm at most half as much as its 0.88: random requests 0.19, one for others as hard 0.38, "
        "retraining without it 0.06"
    )
    assert finding_of(chosen=most, as_hard=[outcome(0, 1, 2, 3)]).report.negative_holds is False
    assert finding_of(chosen=most, retrained=[outcome(0, 1, 2, 3)]).report.negative_holds is False
    alone = finding_of(chosen=most, as_hard=[], retrained=[]).report
    assert alone.negative_holds is True and alone.negative_control.endswith("its 0.88: random requests 0.19")
    # 7 of 8, and random requests 0.5 on average: 1 and six times 0.5, which are six that it exceeds.
    harmful = {"chosen": most, "as_hard": [], "retrained": []}
    blind = finding_of(**harmful, random=[[outcome(0, 1, 2, 3), outcome(0, 4, 5, 6)]] * 3).report
    said = "these should harm at most half as much as its 0.88, but not all of them do: random requests 0.50"
    assert blind.negative_control == said
    assert blind.negative_holds is False


def test_no_harm_no_negative_control() -> None:
    """One bee of eight, where random requests cost one and two: nothing can be half of that."""
    report = finding_of(chosen=[outcome(0)] * 3).report
    assert report.negative_holds is None
    assert report.negative_control.endswith(" (no test: it harms no more than random requests do)")


# What may be asked for, and by whom.


def adversary(attack: Indirect = ATTACK, seed: int = 7) -> Adversary:
    request = Request(*(examples(c, 100 * i) for i, c in enumerate((FORGET, RETAIN, TRUTH[10:], TRUTH[:10]))))
    original, classes = nn.Identity(), np.array([*FORGET, *RETAIN])
    setting = Setting(Models(original, original), request, Classification(classes=NAMES), seed, CPU)
    return Adversary(attack, setting, Predictions(classes, classes, np.ones(10), np.zeros(10)))


def test_each_control_is_a_draw_of_its_own() -> None:
    """Five that may be asked for, whose orders differ by number and by seed, and are the same again."""
    draws = [adversary().shuffled(i).tolist() for i in range(4)]
    assert all(sorted(draw) == [0, 3, 5, 6, 7] for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 4
    assert draws == [adversary().shuffled(i).tolist() for i in range(4)]
    assert adversary(seed=8).shuffled(0).tolist() != draws[0]


@pytest.mark.parametrize("seed", range(8))
def test_known_victims_are_retained_ones(seed: int) -> None:
    """Example 1 is a bee too, but the defender is about to forget it: the adversary knows 2, 4, 8 and 9."""
    assert sorted(adversary(replace(ATTACK, victims=200), seed).victims) == [2, 4, 8, 9]
    few = adversary(ATTACK, seed)
    assert len(few.victims) == 2 and set(few.victims) < {2, 4, 8, 9}
    known = few.examples(few.victims)
    assert [known[i][1] for i in (0, 1)] == [1, 1]
    assert sorted(few.candidates) == [0, 3, 5, 6, 7]
