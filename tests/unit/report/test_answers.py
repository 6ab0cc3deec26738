"""The three answers and the regulator's two, by hand, for every basis and label."""

from typing import Any

import pytest

from tests.worlds.records import alone, full, measurement, minimal
from unrecall.record.never_trained import as_verdict
from unrecall.record.schema import UNMET, Damage, Doubt, Estimate, Label, Measurement, Reading, Record
from unrecall.record.verdict import Reason, judge
from unrecall.report import answers, page
from unrecall.report.answers import compared, regulator, request, unlearning, unsaid
from unrecall.report.markdown import markdown


def row(name: str, group: str, verdict: Label, leak: str | None = "above", note: str = "") -> Measurement:
    """Half-way between an original of 1 and retrained models of 0."""
    given: dict[str, Any] = {"leak": leak, "note": note}
    return measurement(name, name.capitalize(), group, (0.5, 1.0, 1.0), (0.0, 0.0), verdict, **given)


def beside_retrained(*rows: Measurement) -> Record:
    _, verdict = judge([])
    judged = verdict.model_copy(update={"judged": len(rows), "basis": "retrained"})
    return minimal().model_copy(update={"measurements": list(rows), "verdict": judged})


def words(record: Record) -> list[str]:
    return [answer.word for answer in answers.answers(record)]


def test_what_was_asked_and_done() -> None:
    assert request(full()) == "Forget 200 records; 1,000 stay."
    assert request(minimal()) == "Forget a whole class."
    assert unlearning(full()).startswith("RURK (rurk), its strength tuned, seed 0; 0.800 s")
    tuning = full().tuning
    assert tuning is not None
    unmet = tuning.model_copy(update={"criterion": tuning.criterion + UNMET, "seconds": 361.0})
    words = unlearning(full().model_copy(update={"tuning": unmet}))
    assert words.startswith("RURK (rurk), its strength tuned in 361 s (goal not met), seed 0; 0.800 s")
    assert compared(full()) == "3 models that were retrained without the forgotten."
    assert compared(alone()) == "400 records that were never trained on (grade B: a random split before training)."
    assert compared(minimal()).startswith("Nothing")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # A leak anywhere in what is known is a yes, and memory left answers both of the first questions.
        ([("relearn_mean", "recovery", "leaks")], ["Yes", "Not judged"]),
        ([("loss_left", "privacy", "leaks")], ["Yes", "Yes"]),
        ([("loss_left", "privacy", "like retrained")], ["No", "No"]),
        # A row that shows less than retrained models is no knowledge, and tells whoever looks.
        ([("loss_left", "privacy", "over-forgets")], ["No", "Yes"]),
        # Each group of rows that shows anything must have a row that decides.
        ([("loss_left", "privacy", "like retrained"), ("relearn_mean", "recovery", "inconclusive")],
         ["Inconclusive", "No"]),
        ([("relearn_mean", "recovery", "like retrained"), ("relearn_worst", "recovery", "inconclusive")],
         ["No", "Not judged"]),
    ],
)  # fmt: skip
def test_rows_beside_retrained_models_decide(rows: list[tuple[str, str, Label]], expected: list[str]) -> None:
    assert words(beside_retrained(*(row(*part) for part in rows)))[:2] == expected


def test_a_row_on_which_nothing_is_to_be_seen_decides_nothing() -> None:
    empty = row("relearn_mean", "recovery", "inconclusive", note=f"Inconclusive: {Reason.NOTHING_TO_SEE}.")
    assert words(beside_retrained(row("loss_left", "privacy", "like retrained"), empty))[:2] == ["No", "No"]
    answer = answers.answers(beside_retrained(empty))[0]
    assert answer.word == "Can’t be told"
    assert answer.text.startswith(Reason.NOTHING_TO_SEE.capitalize()[:20])


def test_beside_a_no_stand_the_rows_that_can_not_tell() -> None:
    rows = [row("relearn_mean", "recovery", "like retrained"), row("prototypical_mean", "recovery", "inconclusive")]
    record = beside_retrained(*rows)
    assert answers.answers(record)[0].text.endswith("Can’t tell: Prototypical_mean.")
    assert regulator(record)[0].text.endswith("Can’t tell: Prototypical_mean.")
    assert "Can’t tell" not in answers.answers(beside_retrained(rows[0]))[0].text


def test_no_plain_no_stands_over_an_attack_that_can_not_tell_the_original() -> None:
    """Its bounds hold all that it could show, and it shows as much as the original."""
    told = row("relearn_mean", "recovery", "like retrained")
    wide = measurement(
        "prototypical_mean", "Prototypes", "recovery", (1.0, 1.0, 1.0), (1.0, 0.4), "inconclusive",
        leak="above", note=f"Inconclusive: {Reason.MODELS_DIFFER}.", bound_low=-2.13, bound_high=3.51,
    )  # fmt: skip
    untold = (
        "2 retrained models differ too much to tell: Prototypes 1.000 (original 1.000, retrained "
        "0.700, another one 0.000 to 1.000)."
    )
    for shown in (wide, wide.model_copy(update={"note": f"Inconclusive: {Reason.FEW_MODELS}."})):
        record = beside_retrained(told, shown)
        for answer in (answers.answers(record)[0], regulator(record)[0]):
            assert (answer.word, answer.tone) == ("No, as far as can be told", "open")
            assert untold in answer.text
            assert "Can’t tell:" not in answer.text
        assert answers.answers(record)[0].text.startswith(
            f"{untold} The other rows show no more than models that never"
        )
    assert words(beside_retrained(told, wide.model_copy(update={"verdict": "leaks"})))[0] == "Yes"
    assert words(beside_retrained(wide))[0] == "Inconclusive"


def test_damage_beside_retrained_models_is_named() -> None:
    lost = row("test_accuracy", "utility", "over-forgets", leak=None)
    kept, unsure = (row("retain_accuracy", "utility", label, leak=None) for label in ("like retrained", "inconclusive"))
    assert words(beside_retrained(lost, kept))[2] == "Test_accuracy"
    assert words(beside_retrained(kept))[2] == "Nothing found"
    assert words(beside_retrained(kept, unsure))[2] == "Inconclusive"


def test_what_rose_is_not_damaged_however_much_better_retrained_models_are() -> None:
    rose = row("test_accuracy", "utility", "over-forgets", leak=None)
    rose = rose.model_copy(update={"original": rose.unlearned})
    answer = answers.answers(beside_retrained(rose))[2]
    assert (answer.word, answer.tone) == ("Less than retrained models have", "open")
    assert answer.text.startswith("No less than the original has. Test_accuracy")
    lost = row("retain_accuracy", "utility", "over-forgets", leak=None)
    assert words(beside_retrained(rose, lost))[2] == "Retain_accuracy"


def test_nothing_to_hold_a_row_against_is_no_wide_interval() -> None:
    """One retrained model, or none, judges no row; a row beside two that lies in wide bounds is inconclusive."""
    known = row("relearn_mean", "recovery", "inconclusive")
    useful = row("test_accuracy", "utility", "inconclusive", leak=None)
    assert words(beside_retrained(known, useful)) == ["Inconclusive", "Not judged", "Inconclusive"]
    single = [m.model_copy(update={"references": m.references[:1]}) for m in (known, useful)]
    assert words(beside_retrained(*single)) == ["Not judged"] * 3
    assert [answer.tone for answer in answers.answers(beside_retrained(*single))] == ["open"] * 3


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("leaks", ["Yes", "Yes"]),
        ("stands out", ["Inconclusive", "Yes"]),
        ("no more than 25 %", ["No more than 25 %", "No"]),
        ("inconclusive", ["Inconclusive", "Inconclusive"]),
        ("can't be told", ["Can’t be told", "Can’t be told"]),
        ("damaged", ["Inconclusive", "Inconclusive"]),
        ("not judged", ["Not judged", "Not judged"]),
    ],
)
def test_labels_beside_records_never_trained_on_decide(label: Label, expected: list[str]) -> None:
    assert words(labelled(label))[:2] == expected


def labelled(label: Label, **changes: Any) -> Record:
    record = alone()
    assert record.never_trained is not None
    tested = record.never_trained.model_copy(update={"label": label, **changes})
    return record.model_copy(update={"never_trained": tested, "verdict": as_verdict(tested)})


def test_the_model_the_case_and_the_day_are_named() -> None:
    record = full()
    digest, day = record.provenance.weights["unlearned"][:12], record.provenance.created[:10]
    assert answers.audited(record) == f"weights {digest} (sha256 of its tensors); {record.scenario}; audited on {day}."


def test_what_was_asked_stands_under_the_title_once() -> None:
    """In the scenario's own words, which know what is forgotten, and what the holdout is."""
    record = full()
    assert answers.asked([record, record, minimal()]) == [record.scenario_summary]
    assert f'</h1>\n<p class="lead">{record.scenario_summary}</p>' in page([record])
    assert f'</h1>\n<p class="lead">{record.scenario_summary}</p>' in page([record, full("scrub")])
    assert markdown([record]).count(record.scenario_summary) == 1


def test_of_one_person_it_is_said_how_many_others_are_less_known() -> None:
    tested = alone().never_trained
    assert tested is not None
    single = tested.attacks[0].model_copy(update={"auc": 1.0, "auc_original": 0.95})
    text = answers.answers(labelled("leaks", forget=1, holdout=20, unit="group", attacks=[single]))[1].text
    assert "better than those of 20 of the 20 persons never trained on; the original did so for 19." in text
    assert "AUC" not in text
    assert "Over all attacks" not in text, "there is one"


def test_damage_beside_records_never_trained_on_is_named() -> None:
    def damage(split: str, low: float, value: float, *, damaged: bool = False) -> Damage:
        estimate = Estimate(value=value, low=low, high=value + 0.01, n=400)
        return Damage(split=split, difference=estimate, damaged=damaged)

    small, unsure = damage("test", -0.02, -0.01), damage("holdout", -0.06, -0.01)
    lost = damage("retain", -0.12, -0.1, damaged=True)
    nothing = answers.answers(labelled("leaks", damage=[small]))[2]
    assert nothing.word == "Nothing found"
    assert nothing.text.startswith("A loss of 5 points is ruled out. Change of accuracy")
    assert words(labelled("leaks", damage=[small, unsure]))[2] == "Inconclusive"
    answer = answers.answers(labelled("damaged", damage=[small, unsure, lost]))[2]
    assert answer.word == "Accuracy on retain"
    assert "retain −10.0 (−12.0 to −9.0)" in answer.text
    assert words(labelled("not judged", damage=[]))[2] == "Not judged"


def test_a_small_loss_that_is_not_chance_is_a_loss() -> None:
    def damage(split: str, low: float, value: float, high: float) -> Damage:
        return Damage(split=split, difference=Estimate(value=value, low=low, high=high, n=400), damaged=False)

    retain, test = damage("retain", -0.037, -0.025, -0.015), damage("test", -0.049, -0.025, -0.004)
    answer = answers.answers(labelled("leaks", damage=[retain, test]))[2]
    assert (answer.word, answer.tone) == ("Some accuracy, less than 5 points", "open")
    assert answer.text.startswith("Accuracy on retain and test fell, by less than 5 points. Change of accuracy since")
    answer = answers.answers(labelled("leaks", damage=[retain, test, damage("holdout", -0.08, -0.02, 0.03)]))[2]
    assert (answer.word, answer.tone) == ("Some accuracy", "open")
    both = "fell, by less than 5 points. A loss of 5 points on holdout can’t be excluded. Change"
    assert answer.text.startswith(f"Accuracy on retain and test {both}")
    answer = answers.answers(labelled("leaks", damage=[damage("test", -0.08, -0.04, -0.01)]))[2]
    assert (answer.word, answer.tone) == ("Some accuracy", "open")
    assert answer.text.startswith("Accuracy on test fell, and not by chance. A loss of 5 points on test can’t be excl")


@pytest.mark.parametrize("record", [full(), alone()], ids=["retrained", "never trained"])
def test_an_unchanged_model_is_said_to_be_unchanged(record: Record) -> None:
    same = record.provenance.model_copy(update={"weights": {"original": "ab", "unlearned": "ab"}})
    known, told, harmed = answers.answers(record.model_copy(update={"provenance": same}))
    assert known.word == "Yes"
    assert known.text.startswith("Nothing was removed: the weights are the original’s.")
    assert told.text.startswith("As well or as badly as before")
    assert harmed.word == "Nothing found"


@pytest.mark.parametrize("record", [full(), alone(), minimal(), labelled("no more than 50 %"), labelled("not judged")])
def test_each_answer_to_the_regulator_is_yes_no_or_why_it_is_neither(record: Record) -> None:
    answers_given = regulator(record)
    assert len(answers_given) == 2
    said = ("Yes", "Recognised", "No", "No more than 50 %", "Not judged", "Inconclusive", "Can’t be told")
    assert all(answer.word in said for answer in answers_given)
    assert "certificate" in unsaid()


def test_who_can_query_can_not_do_more_than_who_holds_the_model() -> None:
    """The test that only asks is one of all: recognised by it, recognised by all."""
    asking, weights = regulator(labelled("leaks"))[::-1]
    assert (asking.word, weights.word) == ("Recognised", "Recognised")
    assert asking.text.endswith("That tells who was in, and brings no content out.")
    texts = labelled("leaks")
    texts = texts.model_copy(update={"measurements": [*texts.measurements, row("forget_rouge", "forgetting", "leaks")]})
    asking = regulator(texts)[1]
    assert asking.word == "Recognised"
    assert "When it is asked: " in asking.text
    read = Reading(prompt="", answer="", pieces=[], written={}, verbatim={"unlearned": True, "original": True})
    asking = regulator(texts.model_copy(update={"readings": [read]}))[1]
    assert asking.word == "Yes"
    assert asking.text.endswith("Of 1 texts of forget it writes 1 word for word, the original 1.")
    told = beside_retrained(row("loss_left", "privacy", "leaks"))
    assert [answer.word for answer in regulator(told)] == ["Recognised", "Recognised"]
    held = beside_retrained(row("relearn_mean", "recovery", "leaks"), row("loss_left", "privacy", "like retrained"))
    assert [answer.word for answer in regulator(held)] == ["Yes", "No"]


def test_texts_that_are_written_word_for_word_are_counted() -> None:
    said = [{"original": True, "unlearned": True}, {"original": True, "unlearned": False}]
    texts = [Reading(prompt="", answer="", pieces=[], written={}, verbatim=verbatim) for verbatim in said]
    answer = answers.answers(full().model_copy(update={"readings": texts}))[0]
    assert answer.text.endswith("Of 2 texts of forget it writes 1 word for word, the original 2.")


def test_a_ruined_model_is_damaged_whatever_rows_say() -> None:
    ruined = [Doubt(id="collapse", severity="serious", message="Accuracy on retain fell by 22 points.")]
    for record in (full(), labelled("not judged", damage=[])):
        answer = answers.answers(record.model_copy(update={"doubts": ruined}))[2]
        assert answer.word == "Accuracy on retain"
        assert answer.text.startswith("Accuracy on retain fell by 22 points.")


def test_a_test_that_is_shown_and_not_counted_answers_nothing() -> None:
    record = labelled("inconclusive")
    assert record.never_trained is not None
    plain, other = record.never_trained.attacks
    tests = [plain.model_copy(update={"p": None}), other]
    _, asking = regulator(labelled("inconclusive", attacks=tests))
    assert asking.word == "Not judged"
    assert asking.text == "The verdict rests on what comes back, not on the model as it is."


@pytest.mark.parametrize(
    ("label", "expected"),
    [("inconclusive", "Inconclusive"), ("can't be told", "Can’t be told"), ("not judged", "Not judged")],
)
def test_what_is_not_recognised_is_answered_to_the_regulator_as_its_label_says(label: Label, expected: str) -> None:
    record = labelled(label, level=0.0)
    assert [answer.word for answer in regulator(record)] == [expected] * 2


@pytest.mark.parametrize(("original", "expected"), [(0.05, "Yes"), (0.06, "Can’t be told"), (None, "Not judged")])
def test_whether_anyone_recognises_the_unchanged_follows_from_the_original(
    original: float | None, expected: str
) -> None:
    assert words(labelled("unchanged", original=original))[1] == expected


def test_accuracy_on_forget_stands_beside_that_on_what_was_never_seen() -> None:
    record = labelled("leaks")
    own = full().measurement("forget_accuracy")
    assert own is not None
    unseen = own.model_copy(update={"name": "holdout_accuracy", "unlearned": Estimate(value=0.605)})
    rows = [own, unseen]
    text = answers.answers(record.model_copy(update={"measurements": rows}))[0].text
    assert f"{own.title} {own.unlearned.value:.3f} (original {own.original.value:.3f}" in text
    assert "on holdout 0.605)" in text


def test_retraining_is_said_to_be_exact_and_nothing_else_is() -> None:
    record = full().model_copy(update={"method": "retrain:lr=0.05,epochs=60"})
    assert answers.unlearning(record).endswith("the forgotten had no part in that.")
    for line in ("rurk", "retrained_otherwise", "spotter(retrain)", "retrain.py:Mine"):
        assert "no part" not in answers.unlearning(full().model_copy(update={"method": line}))
    somebodys = record.model_copy(update={"costs": {}})  # whose folder may have any name
    assert "no part" not in answers.unlearning(somebodys)


def test_a_loss_that_is_there_is_said_where_retrained_models_cannot_tell_whether_it_is_usual() -> None:
    """From 1 (.97 to 1.03) to .94 (.91 to .97), and .9 (.87 to .93): only the latter lies apart from the original's."""

    def use(after: float, count: int, retrained: float = 0.99) -> answers.Answer:
        values = (after, 1.0, 1.0), (retrained,) * count
        m = measurement("retain_accuracy", "Accuracy on retain", "utility", *values, "inconclusive")
        return answers.answers(beside_retrained(m))[2]

    fell = use(0.9, 2)
    assert (fell.word, fell.tone) == ("Some accuracy", "open")
    assert fell.text.startswith(
        "Fell since the original, and not by chance: Accuracy on retain by 10.0 points; 2 retrained models are too few "
        "to tell whether that is usual. Accuracy on retain 0.900 (original 1.000, retrained 0.990)."
    )
    assert "5 retrained models differ too much among themselves to tell" in use(0.9, 5).text
    for unsure in (use(0.98, 2), use(0.9, 2, retrained=0.85)):
        assert (unsure.word, unsure.text[:35]) == ("Inconclusive", "A loss worth naming could go unseen")


def test_less_than_nothing_left_is_none_left() -> None:
    def known(rho: float, low: float, high: float) -> str:
        record = alone()
        assert record.never_trained is not None
        attacks = [
            t.model_copy(update={"rho": rho, "rho_low": low, "rho_high": high}) for t in record.never_trained.attacks
        ]
        tested = record.never_trained.model_copy(update={"attacks": attacks})
        return answers.answers(record.model_copy(update={"never_trained": tested}))[0].text

    none = "Of what the original shows of them none is left that this test can see (95 %: up to"
    assert known(-0.19, -0.5, 0.12).startswith(f"{none} 12 %). ")
    assert known(-0.19, -0.5, -0.02).startswith(f"{none} 0 %). ")
    assert known(0.19, -0.1, 0.4).startswith("Of what the original shows of them 19 % is left (95 %: 0 % to 40 %). ")
