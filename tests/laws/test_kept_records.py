"""Every record that the repository keeps is read by the present schema and rule, and agrees with itself and both."""

import json
from pathlib import Path

import pytest

from unrecall.harness.suites import judged_names
from unrecall.record import former
from unrecall.record.judgement import declared_by_own_rule, judged_by_own_rule, rejudge
from unrecall.record.migrate import SCHEMA
from unrecall.record.recheck import recheck
from unrecall.record.schema import load
from unrecall.record.verdict import RULE, undeclared
from unrecall.report import page

HOME = Path(__file__).parents[2]
KEPT = sorted((HOME / "results").glob("*/*.json"))
DECLARED = judged_names()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_kept_record_holds(path: Path) -> None:
    assert recheck(path, DECLARED).problems == []


def test_a_record_of_schema_1_is_read_with_every_number_that_it_has() -> None:
    texts = {path: json.loads(path.read_text(encoding="utf-8")) for path in KEPT}
    old = {path: written for path, written in texts.items() if written["schema_version"] == 1}
    assert {path.parent.name for path in old} >= {"small-cifar5", "tofu"}
    for path, written in old.items():
        if path.parent.name not in ("small-cifar5", "tofu"):
            continue
        record = load(path)
        assert (record.schema_version, record.verdict.rule) == (SCHEMA, former.RULE)
        assert record.scores == {}
        assert [attack.parameters for attack in record.attacks] == [{}] * len(record.attacks)
        read = record.model_dump(mode="json")
        for row, new in zip(written["measurements"], read["measurements"], strict=True):
            assert row | {"chance": new["chance"], "undefined": new["undefined"], "prior": 0} == new
        assert {row["name"] for row in read["measurements"] if row["chance"] is not None} == {
            row["name"]
            for row in written["measurements"]
            if row["name"].endswith("_auc") and "remind" not in row["name"]
        }


def test_a_record_of_schema_2_has_all_that_it_said_under_the_names_of_today() -> None:
    """Two fields have other names: of the trials of tuning, and of the indirect attack."""
    written = json.loads((HOME / "results" / "small-cifar5" / "scrub-tuned-0.json").read_text(encoding="utf-8"))
    tuning = load(HOME / "results" / "small-cifar5" / "scrub-tuned-0.json").tuning
    assert tuning is not None
    assert [t.sparing for t in tuning.trials] == [t["kept"] for t in written["tuning"]["trials"]]
    assert any(t.sparing for t in tuning.trials)
    (attack,) = load(HOME / "results" / "digits-indirect" / "ssd-2.json").attacks
    assert (attack.parameters["victims"], "known" in attack.parameters) == (200, False)


def test_what_schema_1_said_in_a_note_is_a_number() -> None:
    row = load(HOME / "results" / "small-cifar5" / "scrub-0.json").measurement("residual_knowledge")
    assert row is not None
    assert (row.unlearned.note, row.undefined) == ("35 zero denominators", 35)


def test_a_record_of_an_older_rule_is_judged_again_and_keeps_its_numbers(tmp_path: Path) -> None:
    record = load(next(path for path in KEPT if path.parent.name == "small-cifar5"))
    assert judged_by_own_rule(record) == record, "by the rule that it was made with"
    anew = rejudge(record)
    assert anew.verdict.rule == RULE
    rows = [
        m.model_copy(update={"verdict": "not judged", "bound_low": -9.0, "bound_high": 9.0})
        for m in record.measurements
    ]
    verdict = record.verdict.model_copy(update={"rule": "older-0", "label": "like retrained", "line": "Fine."})
    older = record.model_copy(update={"measurements": rows, "verdict": verdict})
    assert judged_by_own_rule(older) is None
    again = rejudge(older)
    assert again.verdict == anew.verdict
    assert [(m.unlearned, m.references) for m in again.measurements] == [
        (m.unlearned, m.references) for m in record.measurements
    ]
    assert "the record was judged “like retrained” by the rule older-0" in page([older])
    older.save(tmp_path / "record.json")
    problems = recheck(tmp_path / "record.json", DECLARED).problems
    (problem,) = [line for line in problems if line.startswith("verdict")]
    known = f"'{RULE}', 'families-3', 'families-2', 'exchange-4', 'exchange-3', '{former.RULE}'"
    assert problem == f"verdict: the record was judged by the rule 'older-0'; can be checked here: {known}."


def test_rows_that_are_judged_otherwise_than_declared_are_named() -> None:
    record = load(next(path for path in KEPT if path.parent.name == "small-cifar5"))
    then = declared_by_own_rule(record, DECLARED)
    assert undeclared(record, then) == []
    assert "In this version other" not in page([record], then)
    rows = [
        m.model_copy(update={"judged": not m.judged, "leak": "below"})
        if m.name in ("forget_accuracy", "disagreement")
        else m
        for m in record.measurements
    ]
    other = record.model_copy(update={"measurements": rows})
    assert {m.name for m in undeclared(other, then)} == {"forget_accuracy", "disagreement"}
    text = page([other], then)
    assert "In this version other measurements are judged, or leak on another side: Accuracy on forget; " in text
    assert "In this version other" not in page([other])
