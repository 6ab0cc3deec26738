"""Each doubt is raised where it should be, and nowhere else."""

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.records import measurement, never_trained
from unrecall.record import doubts as checks
from unrecall.record.doubts import CHECKS, Facts, doubts
from unrecall.record.schema import (
    NO_USE,
    UNMET,
    AttackReport,
    Damage,
    Estimate,
    Measurement,
    ThreatModel,
    Trial,
    Tuning,
)


def sizes(forget: int = 60, holdout: int = 60) -> dict[str, int]:
    return {"forget": forget, "retain": 100, "holdout": holdout, "test": 100}


def row(name: str, unlearned: float, original: float, null: float | None, references: tuple[float, ...]) -> Measurement:
    """A judged measurement of 100 examples, bounds 0.05 around the references' mean."""
    made = measurement(name, name, "g", (unlearned, original, 0.0), references, "like retrained", leak="above")
    mean = sum(references) / len(references)
    return made.model_copy(
        update={
            "unlearned": Estimate(value=unlearned, low=unlearned - 0.05, high=unlearned + 0.05, n=100),
            "null": Estimate(value=null, n=100),
            "bound_low": mean - 0.05,
            "bound_high": mean + 0.05,
        }
    )


def report(positive: bool | None = True, negative: bool | None = True) -> AttackReport:
    return AttackReport(
        name="relearn", title="Relearning", threat=ThreatModel(access="a", data="d", budget="b"),
        positive_control="p", positive_holds=positive, negative_control="n", negative_holds=negative,
    )  # fmt: skip


def healthy() -> Facts:
    """An audit that nobody could doubt."""
    five = (0.60, 0.61, 0.59, 0.60, 0.60)
    rows = [
        row("forget_accuracy", 0.6, 1.0, 1.0, five),
        row("holdout_accuracy", 0.6, 0.6, 0.6, five),
        row("retain_accuracy", 0.98, 1.0, 1.0, (0.99,) * 5),
        row("rmia_auc", 0.5, 0.9, 0.9, (0.5,) * 5),
        row("relearn_mean", 0.6, 1.0, 1.0, five),
        row("residual_knowledge", 1.0, 1.4, 1.4, (1.0,) * 5),
    ]
    rows[3], rows[-1] = rows[3].model_copy(update={"chance": 0.5}), rows[-1].model_copy(update={"undefined": 3})
    trial = Trial(strength=1.0, gap=0.0, retain_drop=0.0, sparing=True)
    return Facts(
        sizes=sizes(),
        measurements={m.name: m for m in rows},
        reports=[report(), report(None, None)],
        references=5,
        tuning=Tuning(parameter="tau", chosen=1.0, criterion="c", trials=[trial]),
        dirty=False,
    )


def changed(m: Measurement, **fields: dict[str, Any]) -> Measurement:
    return m.model_copy(update={key: getattr(m, key).model_copy(update=value) for key, value in fields.items()})


def with_row(name: str, **fields: dict[str, Any]) -> Facts:
    facts = healthy()
    return replace(facts, measurements={**facts.measurements, name: changed(facts.measurements[name], **fields)})


def with_all(**values: float) -> Facts:
    """Every measurement with one role's value moved by as much."""
    facts = healthy()

    def moved(m: Measurement) -> Measurement:
        return changed(m, **{role: {"value": (m.reference or 0) + shift} for role, shift in values.items()})

    return replace(facts, measurements={name: moved(m) for name, m in facts.measurements.items()})


def without_values(pairs: int) -> Facts:
    facts = healthy()
    row = facts.measurements["residual_knowledge"].model_copy(update={"undefined": pairs})
    return replace(facts, measurements={**facts.measurements, "residual_knowledge": row})


def as_null() -> Facts:
    facts = healthy()
    same = {n: changed(m, null={"value": m.unlearned.value}) for n, m in facts.measurements.items()}
    return replace(facts, measurements=same)


def of_texts(probability: float, references: tuple[float, ...] = ()) -> Facts:
    """An audit of texts to which the original gives so much probability, without retrained models unless given."""
    made = row("forget_probability", probability, probability, probability, references or (0.0,))
    made = made.model_copy(update={"judged": False})
    made = made if references else made.model_copy(update={"references": [], "reference": None})
    return replace(healthy(), measurements={"forget_probability": made})


def weak(name: str, original: float, reference: float) -> Facts:
    """Retrained models that know less of retain than the original."""
    return replace(healthy(), measurements={name: row(name, original, original, original, (reference,) * 5)})


def fitted(original: float, references: tuple[float, ...]) -> Facts:
    """Retrained models that fit retain so well, by its mean loss in nats."""
    made = row("retain_loss", original, original, original, references).model_copy(update={"judged": False})
    return replace(healthy(), measurements={"retain_loss": made})


def beside_one_retrained(*, told: bool) -> Facts:
    """An audit beside never-trained records with a retrained model, which a membership attack can tell from or not."""
    loss = report(negative=not told).model_copy(update={"name": "loss"})
    made = row("loss_auc", 0.63, 0.66, None, (0.64,)).model_copy(update={"judged": False})
    return Facts(sizes(), {"loss_auc": made}, [loss], 1, never_trained=never_trained())


CASES: list[tuple[str, str, Callable[[], Facts]]] = [
    ("forget-unknown", "serious", lambda: of_texts(0.014)),
    ("forget-unknown", "serious", lambda: of_texts(0.014, (0.01,) * 5)),
    (
        "forget-unknown",
        "serious",
        lambda: with_row("forget_accuracy", unlearned={"value": 0.1}, original={"value": 0.1}),
    ),
    ("weak-references", "serious", lambda: weak("retain_accuracy", 1.0, 0.41)),
    ("weak-references", "serious", lambda: weak("retain_probability", 0.5, 0.4)),
    ("other-recipe", "warning", lambda: fitted(0.02, (0.06, 0.07, 0.051))),
    ("other-recipe", "warning", lambda: fitted(0.4, (0.15, 0.1, 0.18))),
    ("cut-texts", "serious", lambda: replace(healthy(), cuts=["3 of 4 forget examples lose 84 % of their tokens"])),
    ("cut-texts", "warning", lambda: replace(healthy(), cuts=["3 of 9 retain examples lose 4 % of their tokens"])),
    ("few-references", "serious", lambda: replace(healthy(), references=1)),
    ("few-references", "warning", lambda: replace(healthy(), references=4)),
    ("small-sets", "note", lambda: replace(healthy(), sizes=sizes(forget=49))),
    ("small-sets", "warning", lambda: replace(healthy(), sizes=sizes(holdout=19))),
    ("unchanged", "serious", lambda: replace(healthy(), unchanged=True)),
    (
        "swapped-models",
        "warning",
        lambda: with_row(
            "forget_accuracy",
            unlearned={"value": 1.0, "low": 0.95, "high": 1.0},
            original={"value": 0.6, "low": 0.5, "high": 0.7},
        ),
    ),
    ("statistics", "serious", lambda: with_row("forget_accuracy", null={"value": 0.75})),
    ("same-as-null", "serious", as_null),
    ("nothing-to-forget", "serious", lambda: with_all(original=0.01)),
    ("collapse", "serious", lambda: with_row("retain_accuracy", unlearned={"value": 0.85})),
    ("positive-control", "warning", lambda: replace(healthy(), reports=[report(positive=False)])),
    ("negative-control", "warning", lambda: replace(healthy(), reports=[report(negative=False)])),
    ("ruined-copies", "serious", lambda: replace(healthy(), reports=[report().model_copy(update={"note": NO_USE})])),
    ("known-to-retrained", "serious", lambda: beside_one_retrained(told=True)),
    ("stands-out", "warning", lambda: with_row("rmia_auc", unlearned={"value": 0.3, "high": 0.4})),
    ("no-ratio", "warning", lambda: without_values(31)),
    ("modified", "note", lambda: replace(healthy(), dirty=True)),
]


@pytest.mark.parametrize(("id_", "severity", "make"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_check_fires(id_: str, severity: str, make: Callable[[], Facts]) -> None:
    found = {doubt.id: doubt for doubt in doubts(make())}
    assert id_ in found
    assert found[id_].severity == severity
    assert found[id_].message.strip().endswith((".", ")."))
    others = found.keys() - {id_}
    assert others <= {"same-as-null", "statistics"}, "a check fires on what it is about"


def test_what_the_original_does_not_know_is_said_first_and_with_the_right_advice() -> None:
    facts = replace(as_null(), references=0)
    rows = {**facts.measurements, "forget_probability": row("forget_probability", 0.014, 0.014, 0.014, (0.01,))}
    found = doubts(replace(facts, measurements=rows))
    assert found[0].id == "forget-unknown"
    assert "0.014" in found[0].message
    assert "template" in found[0].message
    same = next(doubt for doubt in found if doubt.id == "same-as-null")
    assert "Raise" not in same.message
    (told,) = (doubt for doubt in doubts(as_null()) if doubt.id == "same-as-null")
    assert told.message.endswith("Raise its strength.")


@pytest.mark.parametrize("original", [0.5, 0.12])
def test_texts_that_the_original_knows_in_part_are_no_doubt(original: float) -> None:
    assert doubts(of_texts(original)) == []


def test_a_backdoor_and_a_hard_task_that_training_helped_with_are_no_doubt() -> None:
    low = {"unlearned": {"value": 0.1}, "original": {"value": 0.45}}
    facts = with_row("forget_accuracy", **low)
    rows = {**facts.measurements}
    rows["forget_accuracy"] = rows["forget_accuracy"].model_copy(update={"reference": 0.1})
    assert not list(checks.forget_unknown(replace(facts, measurements=rows)))
    assert list(checks.forget_unknown(facts))
    assert not list(checks.forget_unknown(replace(facts, kind="backdoor")))
    ranked = {**facts.measurements, "recall_10": row("recall_10", 0.1, 0.1, None, (0.1,))}
    assert not list(checks.forget_unknown(replace(facts, measurements=ranked))), "one of a user's items comes first"


@pytest.mark.parametrize("n", [4, 8, 100, 1000])
def test_few_examples_hide_no_difference_from_the_null(n: int) -> None:
    facts = as_null()
    rows = {
        name: changed(m, unlearned={"n": n}, null={"value": (m.unlearned.value or 0) + 0.06})
        for name, m in facts.measurements.items()
    }
    assert "same-as-null" not in {doubt.id for doubt in doubts(replace(facts, measurements=rows))}


def test_all_checks_are_silent_on_a_healthy_audit() -> None:
    assert doubts(healthy()) == []


def test_a_classifier_that_learns_the_sides_can_not_stand_out() -> None:
    facts = healthy()
    low = changed(facts.measurements["rmia_auc"], unlearned={"value": 0.3, "high": 0.4})
    rows = {name: low.model_copy(update={"name": name, "chance": None}) for name in ("remind_auc", "remind_forest_auc")}
    assert doubts(replace(facts, measurements={**facts.measurements, **rows})) == []


def test_unlike_holdout() -> None:
    facts = healthy()
    unlike = facts.measurements["holdout_accuracy"].model_copy(update={"reference": 0.45})
    found = doubts(replace(facts, measurements={**facts.measurements, "holdout_accuracy": unlike}))
    assert [doubt.id for doubt in found] == ["unlike-holdout"]
    assert "60 % of forget and 45 % of holdout" in found[0].message


@pytest.mark.parametrize(
    ("changes", "severity", "said"),
    [
        ({"blind": 0.01, "grade": "C"}, "serious", "before any model is asked"),
        ({"grade": "C"}, "warning", "(grade C)"),
        ({"placebo": 0.001}, "serious", "Two random halves"),
        ({"covariates": {}}, "warning", "scores are raw"),
    ],
)
def test_a_holdout_that_is_unlike_forget_or_says_nothing(changes: dict[str, Any], severity: str, said: str) -> None:
    tested = never_trained().model_copy(update=changes)
    (doubt,) = doubts(replace(healthy(), references=0, measurements={}, never_trained=tested))
    assert (doubt.id, doubt.severity) == ("other-holdout", severity)
    assert said in doubt.message


@pytest.mark.parametrize(
    ("forget", "holdout", "n", "kind", "said"),
    [
        (1.0, 0.85, 1000, "samples", True),  # half of 0.3; 4 standard errors are 0.074
        (1.0, 0.84, 1000, "samples", False),
        (1.0, 1.0, 1000, "class", False),
        (0.79, 0.79, 1000, "samples", False),  # the original knows forget hardly better than test
        (1.0, 0.85, 100, "samples", False),  # 4 standard errors are 0.23
        (1.0, 1.0, 0, "samples", False),
    ],
)
def test_a_holdout_that_the_original_knows_as_it_knows_forget(
    forget: float, holdout: float, n: int, kind: str, said: bool
) -> None:
    five = (0.7,) * 5
    values = {"forget_accuracy": forget, "holdout_accuracy": holdout, "test_accuracy": 0.7}
    rows = {
        name: row(name, 0.7, value, value, five).model_copy(update={"judged": False}) for name, value in values.items()
    }
    facts = replace(healthy(), measurements=rows, kind=kind, sizes={"forget": 60, "holdout": n, "test": n})
    messages = [doubt.message for doubt in doubts(facts) if doubt.id == "other-holdout"]
    expected = "The original gets 85 % of holdout right and 70 % of test: was the holdout trained on? "
    assert messages == ([f"{expected}Then nothing here holds."] if said else [])


@pytest.mark.parametrize(
    ("unlearned", "original", "test", "said"),
    [
        ((0.90, 0.80), (0.70, 0.79), (0.7, 0.8), True),  # forget rose by 0.2, test by 0.1
        ((0.90, 0.80), (0.70, 0.81), (0.7, 0.8), False),  # the intervals meet
        ((0.90, 0.80), (0.70, 0.79), (0.7, 0.95), False),  # trained further: test rose by 0.25
        ((0.70, 0.60), (0.90, 0.95), (0.7, 0.7), False),
    ],
)
def test_models_that_seem_swapped_by_what_they_get_right(
    unlearned: tuple[float, float], original: tuple[float, float], test: tuple[float, float], said: bool
) -> None:
    facts = with_row(
        "forget_accuracy",
        unlearned={"value": unlearned[0], "low": unlearned[1]},
        original={"value": original[0], "high": original[1]},
    )
    rows = {**facts.measurements, "test_accuracy": row("test_accuracy", test[1], test[0], test[0], (0.7,) * 5)}
    messages = [message for _, message in checks.swapped_models(replace(facts, measurements=rows))]
    known = "The unlearned model knows forget better than the original does (90 % of it right against 70 %): "
    assert messages == ([f"{known}the two may be swapped, or it was trained on forget again."] if said else [])


@pytest.mark.parametrize(("retain", "said"), [(0.8, True), (0.95, False)])
def test_models_that_seem_swapped_where_there_is_no_test(retain: float, said: bool) -> None:
    """Forget rose by 0.2; retain, which stands for the test set, by 0.1 or by 0.25."""
    facts = with_row("forget_accuracy", unlearned={"value": 0.9, "low": 0.8}, original={"value": 0.7, "high": 0.79})
    absent = row("test_accuracy", 0.7, 0.7, 0.7, (0.7,) * 5)
    nothing = Estimate(value=None, note="no test set")
    rows = {
        **facts.measurements,
        "test_accuracy": absent.model_copy(update={"original": nothing, "unlearned": nothing}),
        "retain_accuracy": row("retain_accuracy", retain, 0.7, 0.7, (0.7,) * 5),
    }
    assert bool(list(checks.swapped_models(replace(facts, measurements=rows)))) == said


@pytest.mark.parametrize(
    ("z", "z_original", "high", "said"),
    [(6.1, 1.1, 0.01, True), (6.0, 1.1, 0.01, False), (1.1, 6.1, 0.01, False), (6.1, 1.1, -0.01, False)],
)
def test_models_that_seem_swapped_beside_the_holdout(z: float, z_original: float, high: float, said: bool) -> None:
    """From 5 on, and not where accuracy was lost: what damages all but forget sets it apart too."""
    tested = never_trained()
    attacks = [tested.attacks[0].model_copy(update={"z": z, "z_original": z_original}), *tested.attacks[1:]]
    damage = [Damage(split="test", difference=Estimate(value=-0.02, low=-0.05, high=high), damaged=False)]
    moved = tested.model_copy(update={"attacks": attacks, "damage": damage})
    messages = [message for _, message in checks.swapped_models(replace(healthy(), never_trained=moved))]
    assert [message.split("(")[1].split(")")[0] for message in messages] == (
        ["beside the holdout, z = 6.1 against 1.1"] if said else []
    )


def test_an_attack_that_broke_the_model_is_named() -> None:
    tested = never_trained()
    first, second = tested.attacks[0], tested.attacks[1]
    attacks = [first.model_copy(update={"losses": {"retain": 0.5}})]
    attacks += [second.model_copy(update={"losses": {"retain": loss}}) for loss in (6.0, 6.1)]
    facts = replace(
        healthy(), references=0, measurements={}, never_trained=tested.model_copy(update={"attacks": attacks})
    )
    (doubt,) = doubts(facts)
    assert doubt.message == f"{second.title} broke the model: its loss on retain is 6.1. Lower --rate."


def test_without_retrained_models_a_verdict_beside_the_holdout_will_do() -> None:
    assert doubts(replace(healthy(), references=0, measurements={}, never_trained=never_trained())) == []


def test_controls_of_attacks_on_which_no_verdict_rests_raise_no_doubt() -> None:
    failed = replace(healthy(), reports=[report(False, False)], measurements={}, references=1)
    assert {"positive-control", "negative-control"} <= {doubt.id for doubt in doubts(failed)}
    assert doubts(replace(failed, never_trained=never_trained())) == []
    untested = never_trained().model_copy(update={"attacks": []})
    assert {"positive-control", "negative-control"} <= {
        doubt.id for doubt in doubts(replace(failed, never_trained=untested))
    }
    both = replace(failed, never_trained=never_trained(), references=2)
    assert {"positive-control", "negative-control"} <= {doubt.id for doubt in doubts(both)}


def test_few_references_say_what_judges_without() -> None:
    """Where that would do: single records, and none named that were never trained on."""
    short = "0 retrained models: nothing can be judged. Train at least 2, better 5 or more"
    without = ", or name records like forget that were never trained on (holdout), to judge without."
    bare = replace(healthy(), references=0, sizes=sizes(holdout=0))
    for facts, message in (
        (bare, f"{short}{without}"),
        (replace(bare, kind="class"), f"{short}."),
        (replace(bare, sizes=sizes()), f"{short}."),
    ):
        assert [doubt.message for doubt in doubts(facts) if doubt.id == "few-references"] == [message]


def test_tuning_that_kept_nothing() -> None:
    trial = Trial(strength=1.0, gap=0.0, retain_drop=0.5, sparing=False)
    facts = replace(healthy(), tuning=Tuning(parameter="tau", chosen=1.0, criterion="c", trials=[trial]))
    assert [doubt.id for doubt in doubts(facts)] == ["tuning"]
    assert facts.tuning is not None
    ranked = facts.tuning.model_copy(update={"criterion": "at most 5% of likelihood lost"})
    (doubt,) = doubts(replace(facts, tuning=ranked))
    assert doubt.message.startswith("No strength that was tried kept the likelihood of retained items; the least")


@pytest.mark.parametrize(("untouched", "fires"), [(0.049, True), (0.05, False), (0.9, False)])
def test_an_attack_that_shows_little_hardly_tells_strengths_apart(untouched: float, fires: bool) -> None:
    trial = Trial(strength=1.0, gap=0.0, retain_drop=0.0, sparing=True)
    said = Tuning(parameter="tau", chosen=1.0, criterion="c", untouched=untouched, against="relearn", trials=[trial])
    raised = [doubt.message for doubt in doubts(replace(healthy(), tuning=said))]
    assert bool(raised) == fires
    assert all(f"relearn showed only {untouched:.3f} of forget" in message for message in raised)
    assert not doubts(replace(healthy(), tuning=said.model_copy(update={"against": ""})))


def test_gaps_of_losses_are_said_in_nats() -> None:
    trial = Trial(strength=1.0, gap=0.3, retain_drop=0.0, sparing=True)
    tuned = {"parameter": "tau", "chosen": 1.0, "criterion": "c", "against": "relearn", "measure": "loss"}
    little, much = (Tuning(**tuned, untouched=value, trials=[trial]) for value in (0.04, 0.4))  # type: ignore[arg-type]
    raised = [doubt.message for said in (little, much) for doubt in doubts(replace(healthy(), tuning=said))]
    assert "relearn showed only 0.040 nats of forget beyond validation" in raised[0]
    assert all("relearn still shows 0.300 nats more than is to be left" in message for message in raised[1:])
    assert len(raised) == 3


@pytest.mark.parametrize(
    ("kind", "against", "gap", "words"),
    [
        ("samples", "", 0.3, "forget and validation still differ by +0.300"),
        ("samples", "", -0.3, "forget and validation still differ by -0.300"),
        ("samples", "relearn", 0.3, "relearn still shows 0.300 more than is to be left (0.400 before"),
        ("samples", "relearn", -0.3, ""),
        ("class", "", 0.3, "what must go still shows 0.300 more than is to be left (0.400 before"),
        ("class", "", -0.05, ""),
        ("samples", "", 0.1, ""),
    ],
)
def test_less_than_nothing_is_a_gap_for_samples_alone(kind: str, against: str, gap: float, words: str) -> None:
    trial = Trial(strength=1.0, gap=gap, retain_drop=0.0, sparing=True)
    said = Tuning(parameter="t", chosen=1.0, criterion="c", untouched=0.4, against=against, trials=[trial])
    raised = [doubt.message for doubt in doubts(replace(healthy(), tuning=said, kind=kind)) if doubt.id == "tuning"]
    assert (len(raised) == 1 and words in raised[0]) if words else not raised


@pytest.mark.parametrize(("kind", "words"), [("samples", "still differ by +0.150"), ("class", "still shows 0.150")])
def test_a_goal_that_no_strength_met_is_doubted_however_small_the_gap(kind: str, words: str) -> None:
    trial = Trial(strength=1.0, gap=0.15, retain_drop=0.0, sparing=True)
    met = Tuning(parameter="t", chosen=1.0, criterion="c", untouched=0.405, trials=[trial])
    unmet = met.model_copy(update={"criterion": f"c{UNMET}"})
    assert not doubts(replace(healthy(), tuning=met, kind=kind))
    (doubt,) = doubts(replace(healthy(), tuning=unmet, kind=kind))
    assert (doubt.id, doubt.severity) == ("tuning", "warning")
    assert words in doubt.message


@pytest.mark.parametrize(("null", "fires"), [(0.81, False), (0.79, True), (0.6, True), (1.0, False), (None, False)])
def test_statistics_fires_from_half_of_the_forgetting_on(null: float | None, fires: bool) -> None:
    found = doubts(with_row("forget_accuracy", null={"value": null}))
    assert ("statistics" in {doubt.id for doubt in found}) == fires


def test_statistics_says_how_much() -> None:
    (doubt,) = doubts(with_row("forget_accuracy", null={"value": 0.7}))
    assert doubt.message.startswith("30 of the 40 points of forgetting are there at learning rate 0")


def test_statistics_is_silent_where_nothing_was_forgotten() -> None:
    assert not list(checks.statistics(with_row("forget_accuracy", unlearned={"value": 1.0}, null={"value": 1.0})))


def test_checks_live_with_nothing_measured() -> None:
    empty = replace(healthy(), measurements={}, reports=[], tuning=None, dirty=None)
    assert doubts(empty) == []


def test_the_most_serious_comes_first() -> None:
    found = doubts(replace(healthy(), references=1, sizes=sizes(holdout=19), dirty=True))
    assert [doubt.severity for doubt in found] == ["serious", "warning", "note"]


def test_every_check_is_in_the_list_and_every_doubt_is_tested() -> None:
    tree = ast.parse(Path(checks.__file__).read_text())
    written = {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and ast.unparse(n.args) == "facts: Facts"}
    assert written - {"doubts"} == {check.__name__ for check in CHECKS}
    tested = {case[0].replace("-", "_") for case in CASES} | {"unlike_holdout", "tuning", "other_holdout"}
    assert tested == {check.__name__ for check in CHECKS}


def test_checks_are_documented() -> None:
    page = Path(__file__).parents[3] / "docs" / "checks.md"
    if not page.exists():
        pytest.skip("docs/checks.md isn't written yet")
    text = page.read_text()
    assert all(id_ in text for id_, _, _ in CASES)


@pytest.mark.parametrize(
    ("original", "references"),
    [(0.02, (0.03, 0.06, 0.07)), (0.0001, (0.004, 0.005)), (0.4, (0.3, 0.5)), (0.02, (0.09,))],
)
def test_retrained_models_of_the_same_recipe_raise_no_doubt(original: float, references: tuple[float, ...]) -> None:
    """Unlike by less than a factor of two, by less than 0.01 nats, or not known to be unlike by more than one model."""
    assert "other-recipe" not in [doubt.id for doubt in doubts(fitted(original, references))]
