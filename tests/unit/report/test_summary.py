"""Several seeds as one, and methods in order, by hand."""

from pathlib import Path

import pytest

from tests.unit.report.test_page import Reader
from tests.worlds.records import alone, full, many, measurement, minimal, never_trained
from unrecall.record.schema import Estimate, Label, Record
from unrecall.report import page
from unrecall.report.markdown import markdown
from unrecall.report.summary import (
    Spread,
    cases,
    left,
    lines,
    lost,
    methods,
    over_seeds,
    percent_from_0,
    percent_over_seeds,
    ranking,
    repeated,
    tries,
)


def audit(method: str, seed: int, label: Label, known: float, use: float) -> Record:
    """Of what the original shows beyond retrained models (1 to 0), `known` is left; `use` where they have 0.9."""
    rows = [
        measurement("loss_left", "Memory left", "privacy", (known, 1.0, 1.0), (0.0, 0.0), label, leak="above"),
        measurement("retain_accuracy", "Retain", "utility", (use, 0.9, 0.9), (0.9, 0.9), "like retrained"),
    ]
    verdict = minimal().verdict.model_copy(update={"label": label, "judged": 2})
    return minimal().model_copy(update={"method": method, "seed": seed, "measurements": rows, "verdict": verdict})


def test_what_is_left_and_what_was_lost() -> None:
    record = audit("m", 0, "leaks", 0.4, 0.88)
    assert left(record) == pytest.approx(0.4)
    assert lost(record) == pytest.approx(0.02)
    assert left(alone()) == pytest.approx(0.77)
    assert lost(alone()) == pytest.approx(0.01)
    assert (left(minimal()), lost(minimal())) == (None, None)


def test_what_the_original_had_no_more_of_was_not_lost() -> None:
    def beside(original: float) -> Record:
        record = audit("m", 0, "leaks", 0.4, 0.88)
        use = record.measurements[1].model_copy(update={"original": Estimate(value=original)})
        return record.model_copy(update={"measurements": [record.measurements[0], use]})

    assert lost(beside(0.87)) == pytest.approx(-0.01)  # where retrained models have 0.9
    assert lost(beside(0.89)) == pytest.approx(0.01)
    assert lost(beside(0.95)) == pytest.approx(0.02)
    (place,) = ranking(methods([beside(0.87)]))
    assert percent_over_seeds(place.seeds.lost) == "0 %"


def test_below_is_the_side_of_a_leak_too() -> None:
    """12 of 84 steps, where the original needs none: (84 - 12) / (84 - 0) of what it shows is left."""
    steps = [m for m in full().measurements if m.name == "relearn_steps"]
    assert left(full().model_copy(update={"measurements": steps})) == pytest.approx(72 / 84)


def test_seeds_of_a_method_are_one() -> None:
    seeds = [audit("scrub", i, label, known, 0.9) for i, (label, known) in enumerate(
        [("leaks", 0.5), ("like retrained", 0.1), ("inconclusive", 0.3)]
    )]  # fmt: skip
    (group,) = methods(seeds)
    assert (group.label, group.numbers) == ("leaks", [1, 2, 3])
    assert group.left == Spread(pytest.approx(0.3), 0.1, 0.5, 0.5, 0)
    assert over_seeds(group, "retain_accuracy") == Spread(pytest.approx(0.9), 0.9, 0.9, 0.9, 0)
    assert over_seeds(group, "nothing") is None
    assert percent_over_seeds(group.left) == "30 % (10 % to 50 %)"
    assert (percent_from_0(-0.04), percent_over_seeds(None)) == ("0 %", "unknown")
    (line,) = lines(seeds)
    assert line.startswith("scrub on custom, 3 seeds: at worst leaks; left of the forgotten 30 % (10 % to 50 %), worst")
    text = Reader(page(seeds)).text
    assert "All seeds together" in text
    assert "Over seeds" in text


def test_two_requests_of_one_scenario_stand_apart() -> None:
    """Two letters over the same data, each answered by the same method, are no two seeds of one."""
    first, second = (audit("scrub", 0, "leaks", known, 0.9) for known in (0.5, 0.1))
    other = second.provenance.model_copy(update={"fingerprint": "0" * 64})
    groups = methods([first, second.model_copy(update={"provenance": other}), audit("scrub", 1, "leaks", 0.5, 0.9)])
    assert [(group.name, group.numbers) for group in groups] == [
        ("scrub, request 1", [1, 3]),
        ("scrub, request 2", [2]),
    ]


def test_methods_of_two_requests_are_not_ranked_against_each_other() -> None:
    first, second = audit("scrub", 0, "leaks", 0.5, 0.9), audit("npo", 0, "leaks", 0.1, 0.9)
    other = [with_own(record, fingerprint="0" * 64) for record in (first, second)]
    assert {name: len(members) for name, members in cases(methods([first, second])).items()} == {first.scenario: 2}
    together = cases(methods([first, second, *other]))
    assert {name: len(members) for name, members in together.items()} == {
        f"{first.scenario}, request 1": 2,
        f"{first.scenario}, request 2": 2,
    }
    assert sum("in order on" in line for line in lines([first, second, *other])) == 2


def test_the_worst_use_is_the_lowest() -> None:
    (group,) = methods([audit("m", 0, "leaks", 0.5, 0.8), audit("m", 1, "leaks", 0.5, 0.9)])
    use = over_seeds(group, "retain_accuracy")
    assert use is not None
    assert (use.worst, use.seed) == (0.8, 0)


def test_a_tuned_method_is_one_whatever_was_chosen() -> None:
    def made(method: str, seed: int, key: str) -> Record:
        record = audit(method, seed, "leaks", 0.5, 0.9)
        identity = {"method": key, "tuning": "True"}
        return record.model_copy(update={"provenance": record.provenance.model_copy(update={"identity": identity})})

    groups = methods([made("rurk:lambda_f=1", 0, "a"), made("rurk:lambda_f=2", 1, "a"), made("scrub", 0, "b")])
    assert [group.name for group in groups] == ["rurk (tuned)", "scrub (tuned)"]


def test_methods_stand_by_verdict_then_by_what_is_left_then_by_what_was_lost() -> None:
    audits = [
        audit("leaks-little", 0, "leaks", 0.2, 0.9),
        audit("leaks-much", 0, "leaks", 0.9, 0.9),
        audit("unsure", 0, "inconclusive", 0.9, 0.5),
        audit("good-costly", 0, "like retrained", 0.01, 0.7),
        audit("good", 0, "like retrained", 0.02, 0.9),
        audit("good-too", 0, "like retrained", -0.3, 0.89),
    ]
    places = [(place.rank, place.tied, place.seeds.name) for place in ranking(methods(audits))]
    assert places == [
        (1, True, "good"), (1, True, "good-too"), (3, False, "good-costly"), (4, False, "unsure"),
        (5, False, "leaks-little"), (6, False, "leaks-much"),
    ]  # fmt: skip
    said = list(lines(audits))
    assert said[1].startswith("  1= good: like retrained; left of the forgotten 2 %; lost elsewhere 0 %")
    text = Reader(page(audits)).text
    assert text.index("good-too") < text.index("good-costly") < text.index("leaks-much")
    assert "A ranking on this case" in text


def test_one_audit_needs_no_summary() -> None:
    assert list(lines([full()])) == []
    assert any("in order on digits" in line for line in lines(many(3)))


def with_own(record: Record, **provenance: object) -> Record:
    return record.model_copy(update={"provenance": record.provenance.model_copy(update=provenance)})


def beside(weights: str, data: str = "", fingerprint: str = "0" * 64) -> Record:
    """An audit without retrained models of a model with these weights."""
    identity = {"data": data} if data else {}
    return with_own(alone(), weights={"unlearned": weights}, identity=identity, fingerprint=fingerprint)


def test_several_models_beside_one_holdout_are_several_tries() -> None:
    """By hand: three bounds of 95 % hold together with 1 - 3 * 0.05, and twenty with nothing."""
    (sentence,) = tries([beside(weights) for weights in "abc"])
    assert sentence.startswith("3 models were judged beside the same holdout")
    assert "holds for the best of 3 with 85 % confidence" in sentence
    (sentence,) = tries([beside(str(number)) for number in range(20)])
    assert "with no confidence" in sentence
    assert sentence in lines([beside(str(number)) for number in range(20)])
    text = Reader(page([beside("a"), beside("b")])).text
    assert "holds for the best of 2 with 90 % confidence" in text
    assert "2 models were judged" in markdown([beside("a"), beside("b")])


def test_one_model_is_one_try_however_often_it_is_judged() -> None:
    assert list(tries([beside("a"), beside("a")])) == []
    assert list(tries([full("scrub"), full("rurk")])) == []  # beside retrained models
    assert list(tries([beside("a", fingerprint="1"), beside("b", fingerprint="2")])) == []


def test_tuning_that_took_a_part_of_the_holdout_leaves_the_request_the_same() -> None:
    tuned, plain = beside("a", data="x", fingerprint="half"), beside("b", data="x", fingerprint="whole")
    by_itself = beside("c", data="y", fingerprint="half")  # an audit of a checkpoint, by what was left to it
    assert len(list(tries([tuned, plain]))) == 1
    (sentence,) = tries([tuned, by_itself, plain])
    assert sentence.startswith("3 models")


def test_what_was_not_tested_is_no_try() -> None:
    records = [beside("a"), beside("b")]
    tested = never_trained().model_copy(update={"attacks": [], "label": "not judged"})
    assert list(tries([record.model_copy(update={"never_trained": tested}) for record in records])) == []


def test_checkpoints_are_no_seeds_of_a_method() -> None:
    first, second = audit("a.safetensors", 0, "leaks", 0.5, 0.9), audit("b.safetensors", 0, "leaks", 0.5, 0.9)
    keys = [(first, "a"), (second, "b"), (audit("a.safetensors", 1, "leaks", 0.5, 0.9), "a")]
    keyed = [with_own(record, identity={"method": "m", "checkpoints": key}) for record, key in keys]
    groups = methods(keyed)
    assert [(group.name, group.numbers) for group in groups] == [("a.safetensors", [1, 3]), ("b.safetensors", [2])]
    unstated = audit("not stated", 0, "leaks", 0.5, 0.9)
    apart = [with_own(unstated, weights={"unlearned": name}) for name in "ab"]
    assert [group.numbers for group in methods(apart)] == [[1], [2]]


def known_as(record: Record, **identity: str) -> Record:
    return with_own(record, identity={"method": "m", "scenario": "s", "attacks": "a"} | identity)


def test_what_seeds_must_share_parts_audits_that_differ_in_it() -> None:
    """Each beside seed 0 and seed 1 of one case: two seeds, and one that stands apart, by a name of its own."""
    seeds = [known_as(audit("m", seed, "leaks", 0.5, 0.9)) for seed in (0, 1)]
    alone_by = seeds[0].verdict.model_copy(update={"basis": "never trained"})
    others = {
        "case 2": known_as(seeds[1], scenario="more epochs"),
        "attacks 2": known_as(seeds[1], attacks="quick"),
        "rate 0.5": known_as(seeds[1], rate="0.5"),
        "version 2": known_as(seeds[1], method="edited"),
        "without retrained models": seeds[1].model_copy(update={"verdict": alone_by}),
        "run 2": seeds[1].model_copy(update={"measurements": audit("m", 1, "leaks", 0.7, 0.9).measurements}),
    }
    for name, other in others.items():
        groups = methods([*seeds, other])
        assert [group.numbers for group in groups] == [[1, 2], [3]], name
        assert groups[1].name == f"m, {name}"
        assert len(cases(groups)) == (1 if name in ("version 2", "run 2") else 2), name
    (line, *_) = lines([*seeds, others["run 2"]])
    assert line.startswith("m, run 1 on custom, 2 seeds")


def test_numbers_of_cases_are_the_same_in_the_names_of_methods() -> None:
    groups = methods([known_as(audit(name, 0, "leaks", 0.5, 0.9), scenario=case) for name, case in ("nx", "my", "mz")])
    assert {case: [group.name for group in of_case] for case, of_case in cases(groups).items()} == {
        "custom, case 1": ["n"], "custom, case 2": ["m, case 2"], "custom, case 3": ["m, case 3"],
    }  # fmt: skip


def test_checkpoints_of_one_name_are_told_apart_by_their_weights() -> None:
    audits = [
        with_own(
            audit("u.safetensors", 0, "leaks", 0.5, 0.9), identity={"checkpoints": key}, weights={"unlearned": key}
        )
        for key in ("0123456789", "abcdefghij")
    ]
    assert [group.name for group in methods(audits)] == [
        "u.safetensors, weights 01234567", "u.safetensors, weights abcdefgh",
    ]  # fmt: skip


def test_a_tuned_method_is_called_so_beside_the_same_line_that_was_given() -> None:
    audits = [known_as(audit("m:lr=1", 0, "leaks", 0.5, 0.9), tuning=tuned) for tuned in ("True", "False")]
    assert [group.name for group in methods(audits)] == ["m:lr=1 (tuned)", "m:lr=1"]


def test_one_audit_named_twice_is_one() -> None:
    first, other = audit("m", 0, "leaks", 0.1, 0.9), audit("m", 1, "leaks", 0.1, 0.9)
    provenance = first.provenance.model_copy(update={"created": "another day"})
    again = first.model_copy(update={"provenance": provenance})
    records = {Path("a"): first, Path("b"): again, Path("c"): other}
    assert repeated(records) == {Path("b"): Path("a")}
    assert [group.numbers for group in methods([first, again, other])] == [[1, 3]], "two seeds, however they are read"
