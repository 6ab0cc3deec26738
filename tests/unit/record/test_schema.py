"""A record survives the disk, and one that was tampered with is caught."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worlds import network
from tests.worlds import records as sample_records
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.harness.finding import Finding
from unrecall.harness.score_files import write_scores
from unrecall.harness.suites import judged_names
from unrecall.record.doubts import Facts, doubts
from unrecall.record.judgement import rejudge
from unrecall.record.never_trained import concluded, possible_levels
from unrecall.record.recheck import recheck
from unrecall.record.schema import (
    SCHEMA,
    SCORES,
    AttackReport,
    Doubt,
    Estimate,
    Measurement,
    Record,
    ThreatModel,
    Trial,
    Tuning,
    load,
)
from unrecall.record.verdict import judge

DECLARED = judged_names()


def judged(**changed: Any) -> Record:
    """A record whose verdict is what its numbers say."""
    record = sample_records.full()
    rows = [m.model_copy(update={"judged": m.name in DECLARED, "leak": side(m.name)}) for m in record.measurements]
    labelled, verdict = judge(rows)
    record = record.model_copy(update={"measurements": labelled, "verdict": verdict, **changed})
    return record.model_copy(update={"doubts": due(record)})


def side(name: str) -> str | None:
    return None if name in ("retain_accuracy", "test_accuracy") else "above"


def due(record: Record) -> list[Doubt]:
    """The doubts that an audit with these numbers has."""
    facts = Facts(
        sizes=record.sizes,
        measurements={m.name: m for m in record.measurements},
        reports=record.attacks,
        references=max((len(m.references) for m in record.measurements), default=0),
        tuning=record.tuning,
        dirty=record.provenance.dirty,
        unchanged=record.provenance.unchanged,
    )
    return doubts(facts)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf")])
def test_what_is_not_finite_is_no_value_and_says_so(value: float) -> None:
    none = Estimate(value=value, low=0.1, high=0.2, n=3)
    assert (none.value, none.low, none.high, none.n) == (None, None, None, 3)
    assert none.note == f"not a finite number ({value})"
    assert Estimate(value=value, note="its own reason").note == "its own reason"
    open_ended = Estimate(value=0.5, low=0.1, high=value)
    assert (open_ended.value, open_ended.low, open_ended.high) == (0.5, None, None)
    assert "no interval" in open_ended.note


def test_a_reference_that_is_not_finite_does_not_take_part_in_the_verdict() -> None:
    values = [0.1, float("nan"), 0.12, 0.11]
    row = Measurement(
        name="a",
        title="A",
        group="recovery",
        unlearned=Estimate(value=0.11, n=100),
        original=Estimate(value=0.9, n=100),
        null=Estimate(value=None),
        references=[Estimate(value=value, n=100) for value in values],
        leak="above",
    )
    (labelled,), verdict = judge([row])
    (without,), _ = judge([row.model_copy(update={"references": [row.references[i] for i in (0, 2, 3)]})])
    assert (labelled.verdict, labelled.bound_high) == (without.verdict, without.bound_high)
    assert labelled.bound_high is not None and np.isfinite(labelled.bound_high)
    assert "nan" not in verdict.line


@pytest.mark.parametrize(
    "record", [sample_records.full(), sample_records.minimal(), sample_records.hostile(), judged()]
)
def test_round_trip(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.save(path)
    assert load(path) == record
    first = path.read_bytes()
    load(path).save(path)
    assert path.read_bytes() == first


def test_comparable_leaves_out_clocks_memory_and_provenance_but_no_number() -> None:
    trial = Trial(strength=1.0, gap=0.0, retain_drop=0.0, sparing=True)
    tuning = Tuning(parameter="lr", chosen=1.0, criterion="c", trials=[trial])
    record = judged().model_copy(update={"tuning": tuning})
    slower = record.model_copy(
        update={
            "tuning": tuning.model_copy(update={"seconds": 99.0}),
            "costs": {k: v.model_copy(update={"seconds": 99.0, "peak_mib": 1.0}) for k, v in record.costs.items()},
            "provenance": record.provenance.model_copy(update={"created": "later", "command": "x", "dirty": False}),
        }
    )
    assert slower.comparable() == record.comparable()
    for changed in (
        {"seed": 7},
        {"tuning": tuning.model_copy(update={"chosen": 2.0})},
        {"measurements": record.measurements[1:]},
        {"costs": {k: v.model_copy(update={"passes": 1}) for k, v in record.costs.items()}},
        {"provenance": record.provenance.model_copy(update={"weights": {}})},
        {"provenance": record.provenance.model_copy(update={"fingerprint": ""})},
    ):
        assert record.model_copy(update=changed).comparable() != record.comparable()


def edited(change: Callable[[dict[str, Any]], Any], path: Path) -> Path:
    data = judged().model_dump(mode="json")
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("schema_version"), "expected an unrecall record, got JSON without schema_version"),
        (lambda d: d.update(schema_version=SCHEMA + 1), f"expected schema version {SCHEMA}, got {SCHEMA + 1}"),
        (lambda d: d.pop("verdict"), "Field required at verdict"),
        (lambda d: d.update(extra=1), "Extra inputs are not permitted at extra"),
        (lambda d: d["measurements"][0].update(verdict="fine"), r"at measurements\.0\.verdict"),
        (lambda d: d["measurements"][1]["unlearned"].update(value="x"), r"at measurements\.1\.unlearned\.value"),
        (lambda d: d.update(kind="person"), r"at kind"),
        (lambda d: d["doubts"][0].update(severity="mild"), r"at doubts\.0\.severity"),
    ],
)
def test_schema_errors_name_the_field(change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        load(edited(change, tmp_path / "record.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"expected an unrecall record \(JSON\), got .* character 2"),
        ("[]", "without schema_version"),
        ("3", "without"),
    ],
)
def test_what_is_no_record(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        load(path)
    with pytest.raises(BadInput, match="expected a readable file"):
        load(tmp_path)


def test_a_newer_record_says_what_reads_it(tmp_path: Path) -> None:
    def newer(data: dict[str, Any]) -> None:
        data["schema_version"] = SCHEMA + 1
        data["provenance"]["versions"]["unrecall"] = "7.1.0"

    with pytest.raises(BadInput, match=rf"got {SCHEMA + 1}\. Read it with unrecall 7\.1\.0 or later\.$"):
        load(edited(newer, tmp_path / "record.json"))


@pytest.mark.parametrize("version", [0, SCHEMA + 1, "1", None, []])
def test_what_lacks_all_but_a_version_is_refused(version: Any, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"schema_version": version}))
    with pytest.raises(BadInput, match="one that lacks a part"):
        load(path)


def test_an_older_record_that_is_broken_says_so(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for data in ({"schema_version": 1}, {"schema_version": 1, "attacks": [3]}, {"schema_version": 1, "attacks": None}):
        path.write_text(json.dumps(data))
        with pytest.raises(BadInput, match="expected a valid record of schema version 1, got one that lacks a part"):
            load(path)


def test_an_honest_record_is_left_in_peace(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    judged().save(path)
    assert recheck(path, DECLARED)[:2] == (judged(), [])
    bare = sample_records.minimal().model_copy(update={"verdict": judge([])[1], "sizes": {"forget": 9, "holdout": 9}})
    bare.model_copy(update={"doubts": due(bare)}).save(path)
    assert recheck(path, DECLARED)[1] == []


def better(data: dict[str, Any]) -> None:
    """The whole verdict, forged to look fine, with every number as it was."""
    for entry in data["measurements"]:
        entry["verdict"] = "like retrained"
    data["verdict"] |= {"label": "like retrained", "line": "All is well."}


def against(data: dict[str, Any], kl: float, criterion: str = "relearn", measure: str = "shown") -> None:
    """Tuned against relearning with a budget of .5 nats, of which the first trial spent `kl`."""
    data["tuning"] |= {
        "against": "relearn",
        "most_kl": 0.5,
        "measure": measure,
        "criterion": f"the least that {criterion} brings, 0.5 nats",
    }
    data["tuning"]["trials"][0]["kl"] = kl


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["measurements"][0].update(verdict="like retrained"), "forget_accuracy: the record says 'like ret"),
        (
            lambda d: d["verdict"].update(label="like retrained"),
            "the record says 'like retrained', its numbers",
        ),
        (lambda d: d["verdict"].update(line="All is well."), "the record says 'All is well.', its numbers say"),
        (lambda d: d["verdict"].update(counts={}), "verdict: the record says other counts"),
        (lambda d: d["verdict"].update(alpha=1e-9), "judged at alpha 1e-09, the rule says 0.05"),
        (better, "verdict: the record says 'All is well.'"),
        (lambda d: d["measurements"][0].update(reference=0.1), "forget_accuracy: the mean of its references is not"),
        (lambda d: d["measurements"][0].update(reference=None), "forget_accuracy: the mean of its references is not"),
        (lambda d: d["measurements"][0]["references"][0].update(value=0.9), "forget_accuracy: the mean of its refer"),
        (lambda d: d["measurements"][0]["unlearned"].update(value=0.9), "forget_accuracy: the interval"),
        (lambda d: d["measurements"][1]["null"].update(high=-9.0), "forget_loss: the interval"),
        (lambda d: d["measurements"][0].update(bound_high=1.0), "forget_accuracy: its bounds are not those"),
        (lambda d: d["measurements"][0].update(bound_low=None), "forget_accuracy: its bounds are not those"),
        (
            lambda d: d["measurements"][0].update(judged=False),
            "forget_accuracy: the record has it not judged, the rule",
        ),
        (lambda d: d["measurements"][1].update(judged=True), "forget_loss: the record has it judged, the rule has"),
        (lambda d: d["measurements"][0].update(leak=None), "forget_accuracy: the record says it leaks nowhere, the ru"),
        (lambda d: d["measurements"][0].update(margin=9.0), "forget_accuracy: expected a margin of at most 0.1, got 9"),
        (lambda d: d["doubts"].clear(), "doubts: the record leaves out 'Only 3 retrained models: bounds are wide"),
        (lambda d: d["doubts"][0].update(severity="note"), "doubts: the record leaves out"),
        (lambda d: d["tuning"].update(chosen=0.5), "tuning: the strength 0.5 was chosen, but not tried"),
        (
            lambda d: d.update(seeds={"training": 1}),
            "seeds: expected those of training and unlearning, or none, got tra",
        ),
        (lambda d: d.update(seeds={"foo": 3}), "seeds: expected those of training and unlearning, or none, got foo"),
        (lambda d: against(d, kl=99.0), "tuning: the strength 0.003 spent 99 nats of 0.5, and is said otherwise"),
        (lambda d: against(d, kl=0.1, criterion="quantise"), "tuning: its criterion names another attack or budget"),
        (
            lambda d: against(d, kl=0.1, measure="loss"),
            "tuning: its criterion names another measure of what",
        ),
        (lambda d: d["tuning"].update(measure="loss"), "tuning: it names a measure of what comes back, and no attack"),
        (lambda d: d.update(sizes={}), "sizes: expected at least one forget example, got 0"),
        (lambda d: d["measurements"][0]["unlearned"].update(value=None), "does not hold None"),
        (lambda d: d["provenance"]["weights"].update(original="ab"), "weights of original: 'ab' is no sha256"),
    ],
)
def test_forgery_is_caught(change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path) -> None:
    problems = recheck(edited(change, tmp_path / "record.json"), DECLARED).problems
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize("place", ["unlearned.safetensors", "parts/unlearned-0123456789abcdef.safetensors"])
def test_weights_beside_the_record_must_be_those_that_were_audited(place: str, tmp_path: Path) -> None:
    record = judged()
    digests = {**record.provenance.weights, "unlearned": weights.digest_of(network(seed=1))}
    honest = record.model_copy(update={"provenance": record.provenance.model_copy(update={"weights": digests})})
    honest.save(tmp_path / "record.json")
    weights.save(network(seed=1), tmp_path / place)
    assert recheck(tmp_path / "record.json", DECLARED)[1] == []
    weights.save(network(seed=2), tmp_path / place)
    (problem,) = recheck(tmp_path / "record.json", DECLARED)[1]
    assert problem == f"{Path(place).name}: its weights are not those that were audited."


def finding_with(name: str, scores: dict[str, np.ndarray]) -> Finding:
    """What an attack of that name leaves, without a measurement."""
    report = AttackReport(name=name, title=name, threat=ThreatModel(access="", data="", budget=""))
    return Finding(report=report, measurements=[], scores=scores)


@pytest.mark.parametrize("home", [".", "parts"])
def test_scores_beside_the_record_must_be_those_that_it_was_made_from(home: str, tmp_path: Path) -> None:
    file, record = tmp_path / home / SCORES / "relearn.safetensors", judged(scores={"relearn": "0" * 64})
    arrays = {"unlearned/forget": np.array([[0.25, 0.5]], np.float32)}
    digests = write_scores([finding_with("relearn", arrays)], tmp_path / home)
    record.model_copy(update={"scores": digests}).save(tmp_path / "record.json")
    assert recheck(tmp_path / "record.json", DECLARED).problems == []
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(bytes(whole))
    (problem,) = recheck(tmp_path / "record.json", DECLARED).problems
    assert problem == "scores of relearn: the file is not the one that the record was made from."
    file.unlink()
    (problem,) = recheck(tmp_path / "record.json", DECLARED).problems
    assert problem.startswith("scores of relearn: missing. Expected scores/relearn.safetensors beside the record")


def test_scores_that_no_attack_owns_are_named(tmp_path: Path) -> None:
    arrays = {"unlearned/forget": np.array([[0.25, 0.5]], np.float32)}
    scores = write_scores([finding_with("renamed", arrays)], tmp_path)
    judged(scores=scores).save(tmp_path / "record.json")
    (problem,) = recheck(tmp_path / "record.json", DECLARED).problems
    assert problem == "scores of renamed: the record holds no report of an attack of that name."
    judged().save(tmp_path / "record.json")
    (problem,) = recheck(tmp_path / "record.json", DECLARED).problems
    assert problem == "scores/renamed.safetensors: the record names no such scores."


def beside_never_trained(**changes: Any) -> Record:
    """A record whose verdict follows from its figures, but for the changes; no scores are kept."""
    tested = concluded(sample_records.never_trained(), unchanged=False)
    return sample_records.alone().model_copy(update={"scores": {}, "never_trained": tested.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({}, ""),
        ({"label": "no more than 25 %"}, "label"),
        ({"leak": 0.5}, "label"),
        ({"line": "All is well."}, "line"),
        ({"grade": "A"}, "grade"),
        ({"control": "matched"}, "grade"),
        ({"needed": 3}, "needed"),
        ({"epsilon": 0.0}, "epsilon"),
    ],
)
def test_a_verdict_beside_never_trained_records_must_follow_without_its_scores_too(
    changes: dict[str, Any], follows: str, tmp_path: Path
) -> None:
    beside_never_trained(**changes).save(tmp_path / "record.json")
    problems = recheck(tmp_path / "record.json", DECLARED).problems
    assert (f"never trained: its {follows} does not follow from its other figures." in problems) is bool(follows)
    assert any("does not follow" in problem for problem in problems) is bool(follows)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"leak": 0.9}, "its leak is not the smallest p of its attacks."),
        ({"leak": 0.0021}, "its leak is not the smallest p of its attacks."),
        ({"strange": 0.0}, "its strange is no p of 9999 labellings."),
        ({"original": 1.2}, "its original is no p of 9999 labellings."),
        ({"strange": None}, "its strange is no p of 9999 labellings."),
    ],
)
def test_the_p_beside_never_trained_records_must_fit_each_other_without_scores(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    tested = sample_records.never_trained().model_copy(update=changes)
    record = sample_records.alone().model_copy(
        update={"scores": {}, "never_trained": concluded(tested, unchanged=False)}
    )
    record.save(tmp_path / "record.json")
    assert f"never trained: {problem}" in recheck(tmp_path / "record.json", DECLARED).problems


@pytest.mark.parametrize(("level", "possible"), [(0.04, True), (0.0, False), (0.05, False), (1.0, False)])
def test_levels_can_not_hide_a_small_p(level: float, possible: bool, tmp_path: Path) -> None:
    """A p of .002 was found, so that labellings were not too few: the levels are .04 and .01."""
    beside_never_trained(level=level).save(tmp_path / "record.json")
    said = "never trained: its levels can't be those of its p."
    assert (said not in recheck(tmp_path / "record.json", DECLARED).problems) is possible


def test_levels_follow_from_the_smallest_p_that_there_can_be() -> None:
    assert possible_levels(0.002, 0.9) == {(0.04, 0.01)}
    assert possible_levels(0.9, 0.03) == {(0.04, 0.01), (0.04, 0.0)}
    assert possible_levels(0.045, None) == {(0.04, 0.01), (0.04, 0.0), (0.05, 0.0)}
    assert possible_levels(None, None) == {(0.04, 0.01), (0.04, 0.0), (0.05, 0.0), (0.0, 0.0)}


def test_a_retrained_value_without_a_retrained_model_is_a_problem(tmp_path: Path) -> None:
    def claim(data: dict[str, Any]) -> None:
        data["measurements"][0] |= {"references": [], "reference": 0.5}

    problems = recheck(edited(claim, tmp_path / "record.json"), DECLARED).problems
    assert any(problem.endswith("the mean of its references is not its reference.") for problem in problems)


def test_it_agrees_with_what_is_there_and_no_more(tmp_path: Path) -> None:
    judged().save(tmp_path / "record.json")
    assert recheck(tmp_path / "record.json", DECLARED).agreement == "agrees with itself and the rule"
    weights.save(network(seed=1), tmp_path / "unlearned.safetensors")
    beside = recheck(tmp_path / "record.json", DECLARED).agreement
    assert beside == "agrees with itself and the rule, and with the weights beside it"


def test_a_check_says_what_it_can_not_see(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    judged().save(path)
    unseen = recheck(path, DECLARED).unseen
    assert len(unseen) == 3
    assert "only doing the run again shows" in unseen[0]
    assert "scores of single examples: the record names none" in unseen
    assert "the weights: no unlearned checkpoint lies beside the record" in unseen
    judged(scores={"loss": "0" * 64}).save(path)
    weights.save(network(seed=1), tmp_path / "unlearned.safetensors")
    assert recheck(path, DECLARED).unseen == unseen[:1]


def test_a_rule_that_is_not_there_is_no_excuse(tmp_path: Path) -> None:
    path = edited(lambda d: d["verdict"].update(rule="none-9"), tmp_path / "record.json")
    (problem,) = recheck(path, DECLARED).problems
    assert problem.startswith("verdict: the record was judged by the rule 'none-9'")


def test_a_record_may_have_no_holdout(tmp_path: Path) -> None:
    record = judged()
    without = record.model_copy(update={"sizes": record.sizes | {"holdout": 0}})
    path = tmp_path / "record.json"
    without.save(path)
    assert recheck(path, DECLARED)[1] == []


def test_estimates_without_an_interval_are_in_order(tmp_path: Path) -> None:
    record = judged()
    bare = record.measurements[0].model_copy(update={"original": Estimate(value=None, note="why")})
    path = tmp_path / "record.json"
    record = rejudge(record.model_copy(update={"measurements": [bare, *record.measurements[1:]]}))
    record.model_copy(update={"doubts": due(record)}).save(path)
    assert recheck(path, DECLARED)[1] == []
