"""Who paid and who gained: tables by hand, the row of the audit, and the heat maps on the page."""

import json
import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.report.test_page import Reader
from tests.worlds import CPU, World, word_tokenizer
from tests.worlds.records import HOSTILE, full, hostile, matrix, minimal
from unrecall.attacks import Loss
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.metrics.contamination import confusion, gained, measure, paid, worst_drop
from unrecall.models.observe import observe
from unrecall.record import stats
from unrecall.record.schema import Matrix, Measurement, load
from unrecall.report import page
from unrecall.report.matrices import ROLES, change, heat, named, rows, sentence, shade
from unrecall.tasks import CausalLM, Classification
from unrecall.tasks.base import Task

# The numbers.

TARGET = np.array([0, 0, 0, 0, 1, 1, 2, 2])
BEFORE = np.array([0, 0, 0, 1, 1, 1, 2, 0])
AFTER = np.array([2, 2, 0, 1, 1, 2, 2, 2])


def test_a_table_by_hand() -> None:
    """Of four zeros three are right and one is called a one; of two twos one is called a zero."""
    assert confusion(TARGET, BEFORE, [0, 1, 2]).tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0.5, 0, 0.5]]
    assert confusion(TARGET, AFTER, [0, 1, 2]).tolist() == [[0.25, 0.25, 0.5], [0, 0.5, 0.5], [0, 0, 1]]
    odd = confusion(np.array([3, 7]), np.array([7, 9]), [3, 7, 9])
    assert odd[:2].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert np.isnan(odd[2]).all(), "nine was predicted, but nothing is a nine"


def test_paid_and_gained_by_hand() -> None:
    """Zeros fell from 3/4 to 1/4, ones from 1 to 1/2, twos rose; twos gained half of the zeros and half of the ones."""
    before, after = (confusion(TARGET, one, [0, 1, 2]) for one in (BEFORE, AFTER))
    assert paid(before, after).tolist() == [0.5, 0.5, -0.5]
    assert gained(before, after).tolist() == [-0.25, 0, 0.5]
    assert before.tolist() == confusion(TARGET, BEFORE, [0, 1, 2]).tolist(), "tables are left as they are"


def test_classes_without_examples_count_for_nothing() -> None:
    before = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [math.nan] * 3])
    after = np.array([[0.0, 0, 1], [0.25, 0.25, 0.5], [math.nan] * 3])
    assert gained(before, after).tolist() == [-0.25, 0, 0.75]
    assert paid(before, after)[:2].tolist() == [1, 0.25]
    assert math.isnan(paid(before, after)[2])
    alone = np.array([[1.0, 0], [math.nan, math.nan]])
    found = gained(alone, alone)
    assert math.isnan(found[0])
    assert found[1] == 0


def test_the_worst_drop_by_hand() -> None:
    """Class 0 pays 2 of 4, class 1 pays 1 of 2: the first of the two; of the classes that are asked for."""
    worst, found = worst_drop(TARGET, BEFORE, AFTER, [0, 1, 2], fewest=1)
    assert (worst, found.value, found.n) == (0, 0.5, 4)
    assert worst_drop(TARGET, BEFORE, AFTER, [2], fewest=1)[1].value == -0.5
    left, none = worst_drop(TARGET, BEFORE, AFTER, [0, 1, 2], fewest=5)
    assert (left, none.value) == (-1, None)
    assert "has 5 examples" in none.note


def test_the_interval_is_over_the_examples_of_that_class() -> None:
    """Drops of 1, 1, 1, -1: on a scale of 0 to 1 three of four, with the exact interval of a share."""
    target = np.zeros(4, dtype=int)
    _, found = worst_drop(target, np.array([0, 0, 0, 1]), np.array([1, 1, 1, 0]), [0], fewest=1)
    assert found.value == 0.5
    low, high = stats.clopper_pearson(3, 4)
    assert (found.low, found.high) == pytest.approx((2 * low - 1, 2 * high - 1))


# Every model.


class Contamination(NamedTuple):
    measurements: list[Measurement]
    matrices: list[Matrix]


def contaminated(models: Models, request: Request, task: Task) -> Contamination:
    measured = measure(Setting(models, request, task, 0, CPU))
    return Contamination(measured.measurements, measured.matrices)


def answers(model: nn.Module, request: Request) -> tuple[np.ndarray, np.ndarray]:
    parts = [observe(model, Classification(), split) for split in (request.test, request.holdout)]
    return np.concatenate([p.target for p in parts]), np.concatenate([p.prediction for p in parts])


def test_every_model_on_test_and_holdout(class_world: World) -> None:
    w = class_world
    task = Classification(classes=("ant", "bee", "cow", "dog"))
    models = Models(w.original, w.retrained[0], w.retrained[1:], w.original)
    (row,), (table,) = contaminated(models, w.request, task)
    target, before = answers(w.original, w.request)
    after = answers(w.retrained[0], w.request)[1]
    assert table.labels == ["ant", "bee", "cow", "dog"]
    assert table.forgotten == [0]
    assert table.values["unlearned"] == confusion(target, after, range(4)).round(6).tolist()
    means = np.mean([confusion(target, answers(m, w.request)[1], range(4)) for m in w.retrained[1:]], axis=0)
    assert table.values["retrained"] == means.round(6).tolist()
    tables = confusion(target, before, range(4)), confusion(target, after, range(4))
    assert table.paid["unlearned"] == paid(*tables).round(6).tolist()
    assert table.gained["unlearned"] == gained(*tables).round(6).tolist()
    assert table.paid["unlearned"][0] > 0.9, "the forgotten class pays most"  # type: ignore[operator]
    assert set(table.paid) == set(table.gained) == {"unlearned", "retrained"}
    assert table.note.startswith("240 examples of test and holdout")

    assert (row.name, row.group, row.leak, row.judged) == ("contamination_worst", "utility", None, False)
    drops = {c: (before == c)[target == c].mean() - (after == c)[target == c].mean() for c in (1, 2, 3)}
    worst = max(drops, key=lambda c: drops[c])
    assert row.unlearned.value == pytest.approx(drops[worst])
    assert row.unlearned.note == table.labels[worst]
    assert row.original.value == 0
    assert row.null.value == 0, "the original, by another name"
    assert len(row.references) == 2


def test_samples_have_no_class_that_is_left_out(samples_world: World) -> None:
    w = samples_world
    (row,), (table,) = contaminated(Models(w.original, w.retrained[0]), w.request, w.task)
    assert table.labels == [f"class {i}" for i in range(4)]
    assert table.forgotten == []
    assert set(table.values) == {"original", "unlearned"}
    target, before = answers(w.original, w.request)
    after = answers(w.retrained[0], w.request)[1]
    every = [(before == c)[target == c].mean() - (after == c)[target == c].mean() for c in range(4)]
    assert row.unlearned.value == pytest.approx(max(every))


class Fixed(nn.Module):
    """Predicts what the second number of its input says, moved on by `step`."""

    def __init__(self, classes: int, step: int = 0) -> None:
        super().__init__()
        self.classes, self.step = classes, step
        self.body, self.head = nn.Identity(), nn.Linear(classes, classes, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(classes))

    def forward(self, inputs: Tensor) -> Tensor:
        said = (inputs[:, 0] * 100).round().long()
        moved = torch.where(said % 2 == 0, (said + self.step) % self.classes, said)
        return self.head(nn.functional.one_hot(moved, self.classes).float())  # type: ignore[no-any-return]


def test_a_concept_is_no_class_that_stays(pairs_world: World) -> None:
    """All red pairs are forgotten; whether grey ones or others paid most, red can't have."""
    w = pairs_world
    red = [pair for pair in chain(w.request.forget, w.request.retain) if pair["label"] == 0]  # type: ignore[arg-type]
    rest = [pair for pair in w.request.retain if pair["label"] != 0]  # type: ignore[attr-defined]
    request = replace(w.request, forget=red, retain=rest, kind="concept")
    models = Models(w.original, w.retrained[0], w.retrained[1:])
    assert contaminated(models, request, w.task).matrices[0].forgotten == [0]
    assert contaminated(models, w.request, w.task).matrices[0].forgotten == []


def test_of_many_classes_those_that_changed_most_are_shown() -> None:
    """Thirty classes of which the even are called the next one but one: an even class changes, an odd one doesn't."""
    data = [(torch.tensor([c / 100, i / 1000]), c) for i in range(12) for c in range(30)]
    request = Request(data[:30], data[30:60], data[60:180], data[180:])
    (row,), (table,) = contaminated(Models(Fixed(30), Fixed(30, step=2)), request, Classification())
    assert len(table.labels) == 20
    assert set(range(0, 30, 2)) < {int(label.removeprefix("class ")) for label in table.labels}
    assert table.labels == sorted(table.labels, key=lambda label: int(label.removeprefix("class ")))
    assert "20 of 30 classes that changed most" in table.note
    assert row.unlearned.value == 1
    even = table.labels.index("class 4")
    assert table.paid["unlearned"][even] == 1
    assert table.gained["unlearned"][even] == pytest.approx(1 / 29, abs=1e-6)


def test_rare_classes_are_in_the_table_but_not_in_the_row() -> None:
    data = [(torch.tensor([c / 100, i / 1000]), c) for i in range(9) for c in range(3)]
    request = Request(data[:3], data[3:6], data[6:9], data[9:])
    (row,), (table,) = contaminated(Models(Fixed(3), Fixed(3, step=1)), request, Classification())
    assert row.unlearned.value is None
    assert row.note == "no class that stays has 10 examples of test and holdout"
    assert table.paid["unlearned"] == [None, None, None]


def test_the_row_says_how_many_classes_it_left_out() -> None:
    """Twelve examples of class 1 and nine of the others: class 1 didn't change."""
    data = [(torch.tensor([c / 100, i / 1000]), c) for i in range(11) for c in range(3)]
    more = [(torch.tensor([0.01, i / 1000]), 1) for i in range(100, 103)]
    request = Request(data[:3], data[3:6], data[6:9], data[9:] + more)
    (row,), _ = contaminated(Models(Fixed(3), Fixed(3, step=1)), request, Classification())
    assert (row.unlearned.value, row.unlearned.n, row.unlearned.note) == (0, 12, "class 1")
    assert row.note == "without 2 of 3 classes, which have fewer than 10 examples"


def test_a_class_that_is_only_predicted_has_an_empty_row() -> None:
    data = [(torch.tensor([c / 100, i / 1000]), c) for i in range(24) for c in (0, 1)]
    request = Request(data[:4], data[4:8], data[8:28], data[28:])
    _, (table,) = contaminated(Models(Fixed(4), Fixed(4, step=2)), request, Classification())
    assert table.labels == ["class 0", "class 1", "class 2"]
    assert table.values["unlearned"] == [[0, 0, 1], [0, 1, 0], [None] * 3]
    assert table.gained["unlearned"] == [0, 0, 0.5]
    assert table.paid["unlearned"] == [1, 0, None]
    assert table.note.endswith("No examples: class 2.")


class Unnamed(Classification):
    def classified(self) -> Task:
        raise NotSupported("Unnamed: expected the classes' names, got none.")


def test_pairs_are_classed_by_their_prompts_without_another_pass(pairs_world: World) -> None:
    """The same tables as the zero-shot task's own rows give."""
    w = pairs_world
    models = Models(w.original, w.retrained[0], w.retrained[1:])
    found, own = contaminated(models, w.request, w.task), contaminated(models, w.request, w.task.classified())
    assert found.measurements == own.measurements
    assert found.matrices == own.matrices


def test_without_classes_there_is_a_row_with_a_reason(class_world: World) -> None:
    w = class_world
    models = Models(w.original, w.original)
    (row,), none = contaminated(models, w.request, CausalLM(word_tokenizer()))
    assert none == []
    assert row.unlearned.value is None
    assert row.note == "the examples of this task have no classes"
    (row,), none = contaminated(models, w.request, Unnamed())
    assert (none, row.note[:12]) == ([], "Unnamed: exp")
    apart = replace(w.request, test=Absent("none was kept"), holdout=Absent("nor here"))
    (row,), none = contaminated(models, apart, w.task)
    assert (none, row.note) == ([], "none was kept; nor here")
    (row,), (table,) = contaminated(models, replace(w.request, test=Absent("none was kept")), w.task)
    assert table.note.startswith("40 examples")


def test_pairs_without_a_class_have_a_row_with_a_reason(pairs_world: World) -> None:
    w = pairs_world
    test = [{**pair, "label": -1} for pair in w.request.test]  # type: ignore[attr-defined]
    (row,), none = contaminated(Models(w.original, w.original), replace(w.request, test=test), w.task)
    assert (none, row.note) == ([], "some pairs have no class")


def test_the_audit_records_it(class_world: World, tmp_path: Path) -> None:
    w = class_world
    record = audit(
        original=w.original,
        unlearned=w.retrained[0],
        request=w.request,
        task=w.task,
        retrained=w.retrained[1:],
        attacks=suite(Loss()),
        session=CPU,
    )
    assert record.measurement("contamination_worst") is not None
    assert [table.name for table in record.matrices] == ["contamination"]
    record.save(tmp_path / "record.json")
    assert load(tmp_path / "record.json") == record
    assert "matrices" in record.comparable()


def test_a_record_from_before_has_no_tables(tmp_path: Path) -> None:
    data = full().model_dump(mode="json")
    del data["matrices"]
    (tmp_path / "record.json").write_text(json.dumps(data))
    old = load(tmp_path / "record.json")
    assert old.matrices == []
    text = Reader(page([old])).text
    assert "class by class" not in text
    assert "What this audit does not prove" in text


# The page.


def test_the_change_is_after_minus_before() -> None:
    found = change(matrix(), "unlearned")
    assert found[0] == [None] * 4
    assert found[2] == pytest.approx([0, 0.6, -0.85, 0.25])


def test_heat_maps_share_one_scale_around_zero() -> None:
    """The largest change of all is that of the eights in retrained models, 0.95."""
    for role in ("unlearned", "retrained"):
        drawing = str(heat(matrix(), role).drawing)
        assert ">−0.950<" in drawing and ">+0.950<" in drawing
        after = {"unlearned": "0.280 after (+0.280)", "retrained": "0.010 after (+0.010)"}[role]
        assert f"“nine” called “three”: 0.000 before, {after}" in drawing
        assert "“zero” called “zero”: no examples" in drawing
        assert [drawing.count(f">{name}<") for name in ("zero", "three", "eight ✗", "nine")] == [2, 2, 2, 2]
        largest = max(abs(by) for row in change(matrix(), role) for by in row if by is not None)
        assert f'fill-opacity="{largest / 0.95:.2f}"' in drawing
    assert shade(0.0, 0.95)["fill_opacity"] == "0.00", "no change has the page's own colour"


def test_the_sentence_names_who_stays_and_what_retrained_models_show() -> None:
    """The eights paid more, but they were to go."""
    assert sentence(matrix()) == (
        "Class “nine” lost most accuracy: 0.280 (0.000 in retrained models). "
        "Class “three” gained most: on average 0.440 more of another class’s examples are taken for it "
        "(0.280 in retrained models)."
    )
    none = matrix().model_copy(update={"paid": {"unlearned": [None, 0.004, 0.9, -0.1]}, "gained": {}})
    assert sentence(none) == (
        "No class that stays lost accuracy. "
        "No class that stays is given to other classes’ examples more often than before."
    )
    alone = matrix().model_copy(update={"paid": {"unlearned": [None, 0.1, 0.85, 0.28]}})
    assert "(no retrained model tells what would be usual)" in sentence(alone)


def test_the_page_shows_both_heat_maps_and_the_numbers() -> None:
    html = page([full()])
    reader = Reader(html)
    assert [html.count(f": {name} minus original, true class by predicted class") > 0 for name in ROLES.values()] == [
        True
    ] * 2
    assert sentence(matrix()) in reader.text
    assert "unlearned minus original" in reader.text
    assert "nine 0.980 0.280 0.000 0.175 0.250" in reader.text
    assert "No examples: zero." in reader.text
    assert "zero –" in reader.text
    assert [row.name for row in rows(matrix())] == ["zero", "three", "eight ✗", "nine"]


def test_names_of_classes_stay_text() -> None:
    html = page([hostile()])
    reader = Reader(html)
    for role in ROLES:
        drawing = str(heat(hostile().matrices[0], role).drawing)
        assert "&lt;" in drawing and "<img" not in drawing
    assert f"nine{HOSTILE.split(chr(0x2028))[0]}" in reader.text
    assert "<img src=x" not in html


def test_without_retrained_models_there_is_one_heat_map() -> None:
    table = matrix()
    values = {role: table.values[role] for role in ("original", "unlearned")}
    lone = table.model_copy(update={"values": values, "paid": {}, "gained": {}, "forgotten": []})
    html = page([minimal().model_copy(update={"matrices": [lone]})])
    reader = Reader(html)
    assert "unlearned minus original, true class" in html
    assert "retrained (mean) minus original, true class" not in html
    assert "✗ marks" not in reader.text
    assert "nine 0.980 – –" in reader.text


def test_odd_tables_do_not_crash() -> None:
    bare = Matrix(name="m", title="T", labels=["a"], values={})
    short = Matrix(
        name="m",
        title="T",
        labels=["a", "b"],
        values={"original": [[math.inf]], "unlearned": [[math.nan, 1.0], [1.0], [2.0]]},
        paid={"unlearned": [math.nan, 1.0, 5.0]},
    )
    reader = Reader(page([minimal().model_copy(update={"matrices": [bare, short]})]))
    assert "No class that stays lost accuracy." in reader.text
    assert "Class “b” lost most accuracy: 1.000" in reader.text


def test_a_long_name_is_cut_beside_the_map_alone() -> None:
    table = matrix().model_copy(update={"labels": ["zero", "a name that goes on and on", "eight", "nine"]})
    assert named(table, 1, 16) == "a name that goe…"
    assert named(table, 1) == "a name that goes on and on"
    assert named(table, 2, 16) == "eight ✗"
