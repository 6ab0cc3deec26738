"""Tables of numbers, by hand: means and deviations over seeds, bold where it holds, and other files left alone."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.test_summary import audit
from tests.worlds.records import alone, full, measurement, minimal, never_trained
from unrecall.errors import BadInput
from unrecall.record.schema import Estimate, Record
from unrecall.report import export, table
from unrecall.report.latex import MARK, as_latex
from unrecall.report.page import key_measurements

SEEDS = [audit("near", 0, "leaks", 0.1, 0.88), audit("near", 1, "leaks", 0.3, 0.90), audit("far", 0, "leaks", 0.8, 0.5)]


def latex(records: Sequence[Record]) -> str:
    """The records as a table in LaTeX."""
    return as_latex(table.lines(records), [name for name, _ in key_measurements(records)])


def test_a_line_has_mean_deviation_and_interval_over_seeds() -> None:
    near, use, far, _ = table.lines(SEEDS)
    assert (near.method, near.seeds, near.measurement) == ("near", 2, "loss_left")
    assert near.unlearned.mean == pytest.approx(0.2)
    assert near.unlearned.sd == pytest.approx(0.2 / 2**0.5)  # of .1 and .3
    half = 12.706 * 0.1  # Student's t of one degree of freedom, times sd / sqrt(2)
    assert near.unlearned[-2:] == pytest.approx((0.2 - half, 0.2 + half), abs=1e-3)
    assert (near.original, near.retrained, near.retrained_sd, near.retrained_models) == (1.0, 0.0, 0.0, 2)
    assert (use.measurement, use.unlearned.mean) == ("retain_accuracy", pytest.approx(0.89))
    assert (far.seeds, far.unlearned.sd) == (1, None)
    assert far.unlearned[-2:] == pytest.approx((0.77, 0.83))  # of its examples


def test_no_interval_goes_beyond_what_a_measurement_can_be() -> None:
    """Of .88 and .9 it is .89 +- 12.706 * .01, so from .763; memory left can be any number."""
    near, use = table.lines([SEEDS[0], audit("near", 1, "leaks", 0.9, 0.90)])
    assert use.unlearned[-2:] == pytest.approx((0.89 - 0.12706, 1.0), abs=1e-3)
    assert near.unlearned.high == pytest.approx(0.5 + 12.706 * 0.4, abs=1e-2)
    one = audit("near", 0, "leaks", 0.5, 0.99)  # its own interval is +- .03
    assert table.lines([one])[1].unlearned[-2:] == pytest.approx((0.96, 1.0))


def test_without_retrained_models_no_row_beside_them_is_judged() -> None:
    """A row that has none to stand beside can't be told from them; its own label would be inconclusive."""
    bare = [m.model_copy(update={"references": [], "reference": None}) for m in SEEDS[0].measurements]
    record = alone().model_copy(update={"measurements": bare})
    rows = {row.measurement: row for row in table.lines([record])}
    assert (rows["loss_left"].judged, rows["loss_left"].verdict) == (False, "not judged")
    assert rows["memory_left_as_it_is"].judged


def of_original(original: str, unlearning: int, known: float) -> Record:
    """An audit of an unlearning of an original, whose loss AUC is `known`."""
    record = audit("m", unlearning, "leaks", known, 0.9)
    provenance = record.provenance.model_copy(update={"weights": {"original": original}})
    return record.model_copy(update={"provenance": provenance, "seeds": {"training": 0, "unlearning": unlearning}})


def test_seeds_of_one_original_are_averaged_before_originals_are_compared() -> None:
    """.2 and .4 of one, .6 and .8 of another: means .3 and .7, of which Student's t of one degree makes .5 +- 2.54."""
    known = {("a", 0): 0.2, ("a", 1): 0.4, ("b", 2): 0.6, ("b", 3): 0.8}
    line = table.lines([of_original(*key, value) for key, value in known.items()])[0]
    assert line.unlearned[-2:] == pytest.approx((0.5 - 12.706 * 0.2, 0.5 + 12.706 * 0.2), abs=1e-3)
    assert line.unlearned.sd_unlearning == pytest.approx(0.02**0.5)
    assert line.unlearned.sd_training == pytest.approx(0.07**0.5)  # (2 x .08 - .02) / 2
    assert line.unlearned.sd_evaluation is None
    missing = table.lines([of_original(*key, value) for key, value in list(known.items())[:3]])[0]
    assert (missing.unlearned.sd_training, missing.unlearned.sd_unlearning) == (None, None)


def held_beside(seed: int, values: tuple[float, ...], weights: tuple[str, ...]) -> Record:
    """An audit beside retrained models of these values and weights."""
    record = audit("m", seed, "leaks", 0.5, 0.9)
    known = record.measurements[0].model_copy(update={"references": [Estimate(value=value) for value in values]})
    keys = {f"retrained {i}": key for i, key in enumerate(weights)}
    provenance = record.provenance.model_copy(update={"weights": keys})
    return record.model_copy(update={"measurements": [known], "provenance": provenance})


def test_retrained_models_are_told_apart_by_their_weights() -> None:
    """Of two evaluations of one each counts once, their mean; two models that give the same are two."""
    line = table.lines([held_beside(0, (0.1, 0.3), ("a", "b")), held_beside(1, (0.3, 0.3), ("a", "b"))])[0]
    assert (line.retrained, line.retrained_models) == (pytest.approx(0.25), 2)  # .2 of a, .3 of b
    line = table.lines([held_beside(0, (0.0, 0.0), ("a", "b")), held_beside(1, (0.0, 0.3), ("c", "d"))])[0]
    assert (line.retrained, line.retrained_models) == (pytest.approx(0.075), 4)
    line = table.lines([held_beside(0, (0.1, 0.3), ()), held_beside(1, (0.1, 0.3), ())])[0]
    assert line.retrained_models == 2, "which they are isn't said"


def test_originals_that_agree_have_no_interval() -> None:
    """One of no width would stand apart from every other method's."""
    runs = [of_original("a", 0, 0.5), of_original("b", 1, 0.5)]
    line = table.lines(runs)[0]
    assert line.unlearned.mean == 0.5
    assert line.unlearned[-2:] == (None, None)


def test_seeds_of_a_model_that_was_given_are_unlearnings() -> None:
    line = table.lines([of_original("a", 0, 0.2), of_original("a", 1, 0.4)])[0]
    assert (line.unlearned.sd_training, line.unlearned.sd_unlearning) == (None, pytest.approx(0.02**0.5))
    assert line.unlearned[-2:] == pytest.approx((0.3 - 12.706 * 0.1, 0.3 + 12.706 * 0.1), abs=1e-3)


def test_the_mean_is_in_the_middle_of_its_interval_where_seeds_are_missing_too() -> None:
    """Of one original three audits, of the other one: (0 + 1) / 2."""
    known = {("a", 0): 0.0, ("a", 1): 0.0, ("a", 2): 0.0, ("b", 3): 1.0}
    line = table.lines([of_original(*key, value) for key, value in known.items()])[0]
    assert line.unlearned.mean == pytest.approx(0.5)
    low, high = line.unlearned[-2:]
    assert low is not None and high is not None
    assert (low + high) / 2 == pytest.approx(0.5)


def test_of_two_audits_of_which_one_has_a_value_its_own_interval_stands() -> None:
    without = audit("near", 1, "leaks", 0.1, 0.9)
    rows = [m.model_copy(update={"unlearned": Estimate(value=None)}) for m in without.measurements]
    audits = [SEEDS[0], without.model_copy(update={"measurements": rows})]
    line = table.lines(audits)[0]
    own = SEEDS[0].measurements[0].unlearned
    assert line.unlearned[-3:] == ("examples", own.low, own.high)
    assert (line.seeds, line.without_value) == (1, 1)
    assert "(1 of 2 seeds)" in latex(audits)


def test_other_tunings_are_other_methods() -> None:
    def tuned(against: str) -> Record:
        record = audit("m", 0, "leaks", 0.5, 0.9)
        identity = {"method": "m", "tuning": "True"} | ({"tuned against": against} if against else {})
        return record.model_copy(update={"provenance": record.provenance.model_copy(update={"identity": identity})})

    assert len({id(line) for line in table.lines([tuned(""), tuned("relearn"), tuned("quantise")])}) == 6


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    for suffix in (".csv", ".json"):
        export.write(SEEDS, tmp_path / f"t{suffix}")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    objects = json.loads((tmp_path / "t.json").read_text())
    assert [row["measurement"] for row in rows] == [o["measurement"] for o in objects]
    assert [float(row["unlearned"]) for row in rows] == [o["unlearned"] for o in objects]
    assert rows[2]["sd"] == "" and objects[2]["sd"] is None
    assert [*rows[0]] == [*objects[0]] == [*table.COLUMNS]


def test_what_stands_beside_records_never_trained_on_has_its_p_and_its_shares() -> None:
    record = alone()
    assert record.never_trained is not None
    rows = {row.measurement: row for row in table.lines([record])}
    assert rows["p_never_trained"].unlearned.mean == record.never_trained.leak
    assert rows["p_never_trained"].original == record.never_trained.original
    first = record.never_trained.attacks[0]
    left = rows[f"memory_left_{first.name}"]
    assert (left.unlearned.mean, *left.unlearned[-2:]) == (first.rho, first.rho_low, first.rho_high)
    assert (left.original, left.verdict, left.retrained_models) == (1.0, record.never_trained.label, 0)
    assert rows["p_stands_out"].unlearned.mean == record.never_trained.strange
    text = latex([record])
    assert f"{record.never_trained.leak:.3f}" in text
    assert "\nretrained &" not in text


def without_others(seed: int, leak: float, **first: Any) -> Record:
    """An audit without retrained models, whose first attack has other figures."""
    tested = never_trained()
    attacks = [tested.attacks[0].model_copy(update=first), *tested.attacks[1:]]
    changed = tested.model_copy(update={"leak": leak, "attacks": attacks})
    return alone().model_copy(update={"seed": seed, "never_trained": changed})


def test_a_share_that_the_original_is_too_weak_for_is_none() -> None:
    weak = {"rho": 3.957, "rho_low": None, "rho_high": None}
    rows = {row.measurement: row for row in table.lines([without_others(0, 0.1, **weak)])}
    left = rows["memory_left_as_it_is"]
    assert (left.unlearned.mean, left.original, left.seeds, left.without_value) == (None, None, 0, 1)
    both = [without_others(0, 0.1, **weak), without_others(1, 0.1)]
    left = {row.measurement: row for row in table.lines(both)}["memory_left_as_it_is"]
    assert (left.unlearned.mean, left.seeds, left.without_value) == (0.77, 1, 1)


def test_an_attack_that_is_shown_and_does_not_count_is_not_judged() -> None:
    rows = {row.measurement: row for row in table.lines([without_others(0, 0.1, p=None)])}
    assert (rows["memory_left_as_it_is"].judged, rows["memory_left_benign_20"].judged) == (False, True)


def test_of_several_p_the_smallest_and_the_largest_stand_and_no_mean() -> None:
    audits = [without_others(seed, leak) for seed, leak in enumerate((0.0001, 0.6, 0.9))]
    of = table.lines(audits)[0]
    assert (of.measurement, of.seeds, of.unlearned.mean, of.unlearned.sd) == ("p_never_trained", 3, None, None)
    assert of.unlearned[-3:] == ("smallest and largest", 0.0001, 0.9)
    assert r"$1.0 \times 10^{-4}$ to 0.900" in latex(audits)


def of_request(fingerprint: str, record: Record) -> Record:
    return record.model_copy(update={"provenance": record.provenance.model_copy(update={"fingerprint": fingerprint})})


def test_each_request_has_a_table_of_its_own() -> None:
    near, far = audit("near", 0, "leaks", 0.5, 0.89), audit("far", 0, "leaks", 0.5, 0.5)
    apart = [of_request("a" * 64, near), of_request("b" * 64, far)]
    text = latex(apart)
    assert [line for line in text.splitlines() if line.startswith("% custom")] == [
        "% custom, request 1 (request aaaaaaaaaaaa)", "% custom, request 2 (request bbbbbbbbbbbb)"
    ]  # fmt: skip
    assert "textbf" not in text


def bold_of(*records: Record) -> list[str]:
    text = latex(records)
    return [line.split(" & ")[0] for line in text.splitlines() if "textbf" in line]


def test_bold_is_what_is_nearest_and_apart() -> None:
    alone = audit("near", 0, "leaks", 0.5, 0.89)
    assert bold_of(alone, audit("far", 0, "leaks", 0.5, 0.5)) == ["near"]  # .89 +- .03 beside .5 +- .03; .9 is due
    assert bold_of(alone, audit("far", 0, "leaks", 0.5, 0.86)) == []  # which overlap
    assert bold_of(alone) == []


def test_nothing_is_bold_beside_other_retrained_models_or_another_kind_of_interval() -> None:
    near, far = audit("near", 0, "leaks", 0.5, 0.89), audit("far", 0, "leaks", 0.5, 0.5)
    rows = [m.model_copy(update={"references": [Estimate(value=0.8)], "reference": 0.8}) for m in far.measurements]
    others = near, far.model_copy(update={"measurements": rows})
    assert bold_of(*others) == []
    assert "retrained & 0.800 to 0.900" in latex(others)
    assert bold_of(near, far, audit("far", 1, "leaks", 0.5, 0.51)) == []  # .505 +- .064 is over seeds


def test_latex_has_digits_of_small_numbers() -> None:
    record = alone()
    assert record.never_trained is not None
    tested = record.never_trained.model_copy(update={"leak": 0.00012})
    small = record.model_copy(update={"never_trained": tested})
    assert r"$1.2 \times 10^{-4}$" in latex([small])


def test_latex_puts_no_p_on_a_level_that_it_does_not_have() -> None:
    records = [without_others(0, 0.0404)]
    assert " & 0.0404 & " in latex(records)


def test_latex_escapes_what_it_would_take_for_commands() -> None:
    hostile = audit(r"a_b\input{x}%", 0, "leaks", 0.5, 0.9)
    text = latex([hostile])
    assert r"a\_b\textbackslash{}input\{x\}\%" in text
    assert r"\input{x}" not in text
    assert text.startswith(MARK)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_no_name_leaves_the_comment_it_stands_in() -> None:
    hostile = audit("a\n\nb", 0, "leaks", 0.5, 0.9).model_copy(update={"scenario": "s\n\\input{x}\r\\input{y}"})
    text = latex([hostile])
    assert not any(line.startswith("\\input") for line in text.splitlines())
    assert "\na b & " in text


@pytest.mark.parametrize("before", ["", "\t", " ", "\r\n ", "\x00", "\ufeff"])
def test_no_cell_is_a_formula(before: str) -> None:
    hostile = audit(f"{before}=1+1", 0, "leaks", 0.5, 0.9)
    (row, *_) = csv.reader(io.StringIO(export.as_csv(table.lines([hostile])).split("\n", 1)[1]))
    assert row[1] == f"'{before}=1+1"


@pytest.mark.parametrize("suffix", export.FORMS)
def test_other_files_stay_and_own_ones_are_written_anew(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    for records in ([full()], [minimal()], [full(), minimal()]):
        export.write(records, path)
    if suffix == ".csv":
        path.write_text("scenario,method,seeds,measurement\n")  # the head of an earlier version
        export.write([full()], path)
    path.write_text("mine")
    with pytest.raises(BadInput, match="expected a table of unrecall's, or nothing, got another file"):
        export.write([full()], path)
    assert path.read_text() == "mine"
    with pytest.raises(BadInput, match=r"expected a name that ends in \.csv, \.json, \.tex"):
        export.write([full()], tmp_path / "t.txt")
    with pytest.raises(BadInput, match="expected at least one record"):
        export.write([], path)


def rows_of(*records: Record) -> list[list[str]]:
    """The rows of a LaTeX table, in cells."""
    lines = latex(records).splitlines()
    return [line.removesuffix(r" \\").split(" & ") for line in lines if " & " in line]


def test_two_checkpoints_of_one_name_and_what_was_tuned_to_the_same_line_keep_their_rows() -> None:
    def made(method: str, known: float, **identity: str) -> Record:
        record, weights = audit(method, 0, "leaks", 0.5, known), {"unlearned": identity.get("checkpoints", "")}
        own = record.provenance.model_copy(update={"weights": weights, "identity": identity})
        return record.model_copy(update={"provenance": own})

    checkpoints = [made("u", 0.1, checkpoints="aaaaaaaaaa"), made("u", 0.2, checkpoints="bbbbbbbbbb")]
    assert [row[0] for row in rows_of(*checkpoints)[3:]] == ["u, weights aaaaaaaa", "u, weights bbbbbbbb"]
    tuned = [made("m:lr=1", 0.1, tuning="True"), made("m:lr=1", 0.2, tuning="False")]
    assert [row[0] for row in rows_of(*tuned)[3:]] == ["m:lr=1 (tuned)", "m:lr=1"]


def test_latex_has_three_digits_of_a_strength_unless_two_methods_would_be_one() -> None:
    def names(*lines: str) -> list[str]:
        return [row[0] for row in rows_of(*(audit(line, 0, "leaks", 0.5, 0.9) for line in lines))[3:]]

    assert names("m:lr=0.22627416998,epochs=12345,a=1.23456e-05", "n:lr=0.0001", "v1.2345.py:F") == [
        "m:lr=0.226,epochs=12345,a=1.23e-05", "n:lr=0.0001", "v1.2345.py:F",
    ]  # fmt: skip
    assert names("m:lr=0.12341", "m:lr=0.12342", "m:lr=0.5551") == ["m:lr=0.12341", "m:lr=0.12342", "m:lr=0.555"]


def test_latex_has_verdicts_no_empty_column_and_one_formula_a_cell() -> None:
    """.9 and .9008 deviate by .0008 / sqrt(2)."""
    seeds = [audit("m", 0, "leaks", 0.5, 0.9), audit("m", 1, "like retrained", 0.5, 0.9008)]
    head, *_, row = rows_of(*seeds)
    assert (head[-1], row[-1]) == ("verdict", "leaks")
    assert row[1] == r"0.900 $\pm 5.7 \times 10^{-4}$"
    empty = measurement("forget_accuracy", "Forgot", "forgetting", (None, None, None), (), "not judged")
    without = seeds[0].model_copy(update={"measurements": [*seeds[0].measurements, empty]})
    assert "Forgot" not in rows_of(without)[0]
    text = latex(seeds)
    assert "% \\caption{custom}\n% \\label{tab:unrecall-1}\n\\begin{tabular}" in text
