"""Which verdict stands at the head of a record, and whether a method forgot anything, as a record tells it."""

import pytest

from tests.worlds.records import minimal, never_trained
from unrecall.record.judgement import forgot_nothing, judged_by_own_rule, rejudge
from unrecall.record.never_trained import as_verdict, concluded, not_judged
from unrecall.record.schema import AttackReport, Estimate, Measurement, NeverTrained, Record, ThreatModel
from unrecall.record.verdict import judge
from unrecall.report.sentences import judging


def told(name: str, before: float, after: float, reference: float | None, holdout: float | None = None) -> Record:
    """A record with one measurement of forget, and accuracy on holdout where it is given."""
    none = Estimate(value=None)

    def row(called: str, original: float, unlearned: float, retrained: float | None) -> Measurement:
        values = {"original": Estimate(value=original), "unlearned": Estimate(value=unlearned), "null": none}
        references = [] if retrained is None else [Estimate(value=retrained)]
        return Measurement(
            name=called, title=called, group="forgetting", references=references, reference=retrained, **values
        )

    rows = [row(name, before, after, reference)]
    rows += [] if holdout is None else [row("holdout_accuracy", holdout, holdout, None)]
    return minimal().model_copy(update={"measurements": rows, "kind": "samples"})


@pytest.mark.parametrize(
    ("name", "values", "nothing"),
    [
        ("forget_accuracy", (1.0, 0.97, 0.6), True),  # .03 of .4: less than a tenth
        ("forget_accuracy", (1.0, 0.95, 0.6), False),
        ("forget_accuracy", (0.62, 0.62, 0.6), False),  # there was nothing to forget
        ("forget_probability", (0.9, 0.85, None), True),  # of texts nothing is what was never seen
        ("forget_probability", (0.9, 0.8, None), False),
        ("forget_accuracy", (1.0, 1.0, None, 0.5), True),  # holdout where there is no retrained model
        ("forget_accuracy", (1.0, 1.0, None), False),  # nothing to tell by
    ],
)
def test_less_than_a_tenth_of_what_could_go_is_nothing(name: str, values: tuple[float, ...], nothing: bool) -> None:
    assert bool(forgot_nothing(told(name, *values))) is nothing


def test_of_a_class_nothing_is_what_was_never_seen_though_holdout_is_of_that_class() -> None:
    record = told("forget_accuracy", 1.0, 0.98, None, 0.97)
    assert forgot_nothing(record) == "", "0.03 of samples is too little to tell"
    assert forgot_nothing(record.model_copy(update={"kind": "class"})).startswith("It forgot nothing")
    over = record.verdict.model_copy(update={"label": "over-forgets"})
    worse = forgot_nothing(record.model_copy(update={"kind": "class", "verdict": over}))
    assert worse.startswith("Of what must go it forgot nothing: ")


def test_unchanged_weights_forgot_nothing() -> None:
    record = told("forget_accuracy", 1.0, 0.0, 0.0)
    unchanged = record.model_copy(update={"verdict": record.verdict.model_copy(update={"label": "unchanged"})})
    assert "weights are the original's" in forgot_nothing(unchanged)


def beside_holdout(tested: NeverTrained, *, unchanged: bool = False) -> Record:
    """A record that is judged by this alone, as it says."""
    weights = {"original": "0" * 64, "unlearned": ("0" if unchanged else "1") * 64}
    record = minimal()
    provenance = record.provenance.model_copy(update={"weights": weights})
    update = {"never_trained": tested, "verdict": as_verdict(tested), "provenance": provenance}
    return record.model_copy(update=update)


def test_the_label_beside_never_trained_records_follows_from_the_figures_whatever_the_record_says() -> None:
    true = concluded(never_trained(), unchanged=False)
    honest = beside_holdout(true)
    assert rejudge(honest) == honest
    assert judging(honest, None) == ""
    forged = beside_holdout(true.model_copy(update={"label": "no more than 25 %", "line": "No more than 25 %."}))
    again = rejudge(forged)
    assert (again.verdict, again.never_trained) == (as_verdict(true), true)
    assert "the record says “no more than 25 %” of itself, which they do not bear out" in judging(forged, None)
    older = forged.model_copy(update={"verdict": forged.verdict.model_copy(update={"rule": "exchange-2"})})
    assert rejudge(older).verdict == as_verdict(true)
    assert rejudge(beside_holdout(true, unchanged=True)).verdict.label == "unchanged"


def test_without_attacks_there_is_no_verdict_beside_never_trained_records() -> None:
    reason = beside_holdout(not_judged("there is none."))
    assert rejudge(reason) == reason
    unchanged = beside_holdout(not_judged("", unchanged=True), unchanged=True)
    assert rejudge(unchanged) == unchanged
    forged = NeverTrained(label="no more than 25 %", line="No more than 25 %.")
    for tested in (forged, forged.model_copy(update={"label": "not judged"})):
        again = rejudge(beside_holdout(tested)).verdict
        assert (again.label, again.line) == (
            "not judged",
            "Not judged beside records never trained on: no attack was run.",
        )


def test_a_record_of_the_rule_before_is_checked_without_its_controls_and_shown_with_them() -> None:
    values = {"unlearned": Estimate(value=0.5, n=100), "original": Estimate(value=9.0, n=100)}
    references = [Estimate(value=value, n=100) for value in (0.5, 0.51, 0.49, 0.5, 0.5)]
    row = Measurement(
        name="relearn_mean", title="Relearning", group="recovery", null=Estimate(value=None), references=references,
        leak="above", **values,
    )  # fmt: skip
    threat = ThreatModel(access="", data="", budget="")
    attack = AttackReport(name="relearn", title="Relearning", threat=threat, positive_holds=False)
    labelled, verdict = judge([row])
    before = minimal().model_copy(
        update={
            "measurements": labelled,
            "attacks": [attack],
            "verdict": verdict.model_copy(update={"rule": "families-2"}),
        }
    )
    assert verdict.label == "like retrained"
    assert judged_by_own_rule(before) == before
    anew = rejudge(before)
    assert (anew.verdict.rule, anew.verdict.label) == ("families-4", "inconclusive")
    later = anew.model_copy(update={"verdict": anew.verdict.model_copy(update={"rule": "families-3"})})
    assert judged_by_own_rule(later) == later, "that rule looked at controls"
    assert judged_by_own_rule(anew) == anew
    assert "the record was judged “like retrained” by the rule families-2" in judging(before, None)
