"""Whether a request can harm others: by the attack's figures, beside random requests, with its controls."""

from typing import Any

import pytest

from tests.worlds.records import full, measurement
from unrecall.record.schema import AttackReport, Doubt, Estimate, Record, ThreatModel
from unrecall.report import answers, harm, page
from unrecall.report.markdown import markdown
from unrecall.report.readable import readable

NOTE = "Honouring a request for 10 training examples: 0.21 of unseen class 3 newly answered as class 8."
RANDOM = "By every judged figure the method did what it does at learning rate 0. Raise its strength."


def attacked(*, excess: Estimate, most: float = 0.35, random: float = 0.0, left: float = 0.1, **more: Any) -> Record:
    threat = ThreatModel(access="requests", data="own examples", budget="10 examples")
    given: dict[str, Any] = {
        "positive_holds": True,
        "negative_holds": True,
        "note": NOTE,
        "curves": full().attacks[0].curves,
    }
    report = AttackReport(
        name="indirect_3_8", title="Indirect attack (3 to be 8)", threat=threat, reference="", **given | more
    )
    values = {
        "success": Estimate(value=0.21, low=0.1, high=most, n=47),
        "random": Estimate(value=random, n=47),
        "excess": excess,
        "alike": Estimate(value=0.02, n=47),
    }
    rows = [
        measurement(f"indirect_3_8_{name}", f"Harm: {name}", "harm", (0.0, 0.0, 0.0), (), "not judged").model_copy(
            update={"unlearned": value, "original": Estimate(value=None, note="not applicable")}
        )
        for name, value in values.items()
    ]
    rows.append(measurement("indirect_3_8_left", "Still right", "harm", (left, 1.0, 1.0), (), "not judged"))
    rows = [row.model_copy(update={"judged": False}) for row in rows]
    doubts = [Doubt(id="same-as-null", severity="serious", message=RANDOM)]
    return full().model_copy(update={"attacks": [report], "measurements": rows, "doubts": doubts, "matrices": []})


FOUND = Estimate(value=0.21, low=0.11, high=0.36, n=47)
NOTHING = Estimate(value=0.0, low=-0.07, high=0.07, n=47)


@pytest.mark.parametrize(
    ("changes", "word", "tone"),
    [
        ({"excess": FOUND}, "Yes", "bad"),
        ({"excess": FOUND, "negative_holds": False, "negative_control": "not all"}, "Yes", "bad"),
        ({"excess": NOTHING, "most": 0.075}, "No more than random requests do", "good"),
        # What harms whatever is asked for is no defence.
        ({"excess": NOTHING, "most": 0.075, "random": 0.29}, "Yes, whatever is asked for", "bad"),
        # Too few victims, an attack that its own surrogate withstands, and a method that honours nothing.
        ({"excess": NOTHING, "most": 0.18}, "Inconclusive", "open"),
        ({"excess": NOTHING, "most": 0.075, "positive_holds": False}, "Inconclusive", "open"),
        ({"excess": NOTHING, "most": 0.075, "left": 0.9}, "Inconclusive", "open"),
        ({"excess": Estimate(value=None, note="-"), "note": "needs the method", "curves": []}, "Not judged", "open"),
    ],
)  # fmt: skip
def test_whether_a_request_harms_others(changes: dict[str, Any], word: str, tone: str) -> None:
    (answer,) = answers.harmful(attacked(**changes))
    assert (answer.word, answer.tone) == (word, tone)
    assert answer.question == "Can a request harm others? Indirect attack (3 to be 8)"


def test_the_figures_and_the_controls_stand_with_the_answer() -> None:
    (answer,) = answers.harmful(attacked(excess=FOUND))
    assert answer.text == (
        f"{NOTE} Beyond random requests: 21 % (95 %: 11 % to 36 %). After a request for others as hard: 2 %. 10 % "
        "of what the request names is still answered right. Both controls hold."
    )
    failed = attacked(excess=FOUND, left=0.9, negative_holds=False, negative_control="these should harm less, but")
    (answer,) = answers.harmful(failed)
    assert "so that the method hardly honours it" in answer.text
    assert answer.text.endswith("The negative control failed: these should harm less, but.")


def test_the_first_screen_says_what_the_attack_did_and_gives_no_other_advice() -> None:
    record = attacked(excess=FOUND)
    html, text = page([record]), markdown([record])
    for whole in (html, text):
        assert "Can a request harm others?" in whole
        assert "The attack makes requests of its own; this one is the scenario’s." in whole
        assert harm.ABOUT in whole
        assert "Raise its strength" not in whole
        assert "About the scenario’s request, which isn’t the attack’s: By every judged figure" in whole
    assert f"{record.method_title} on {record.scenario}: can a request harm others?</h1>" in html
    assert 'aria-label="What the attack’s request did"' in html
    assert [a.question for a in answers.answers(record)][2] == "What else did the scenario’s own request damage?"
    assert "can a request harm others?</th>" in page([record, full()])


def test_beside_other_attacks_doubts_are_left_as_they_are() -> None:
    record = attacked(excess=FOUND)
    both = record.model_copy(update={"attacks": [*record.attacks, *full().attacks]})
    assert readable(both).doubts == record.doubts
    assert "did it forget?" in answers.title(both)
    assert answers.harmful(full()) == [] and harm.reports(full()) == []
    assert "request harm others" not in page([full(), full("scrub")])
