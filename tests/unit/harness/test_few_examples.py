"""One, two or three examples to forget: what they are too few for is a row with the reason."""

from dataclasses import replace
from typing import Any

import pytest

from tests.laws.test_metrics import REDUCED
from tests.worlds import CPU, World
from unrecall.data.examples import Selection
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import finding_of
from unrecall.harness.suites import suite
from unrecall.metrics import METRICS


@pytest.mark.parametrize(
    ("world", "count"),
    [("samples_world", 1), ("samples_world", 2), ("samples_world", 3), ("class_world", 1),
     ("class_world", 2), ("text_world", 1)],
)  # fmt: skip
def test_the_standard_suite_says_what_few_examples_are_too_few_for(
    world: str, count: int, request: pytest.FixtureRequest
) -> None:
    w: World = request.getfixturevalue(world)
    few: Any = replace(w.request, forget=Selection(w.request.forget, range(count)))
    setting = Setting(Models(w.original, w.retrained[0], w.retrained[1:]), few, w.task, 0, CPU)
    rows = [row for metric in METRICS if metric.suits(setting) for row in metric.measure(setting).measurements]
    for attack in suite("standard").suiting(w.task):
        found = finding_of(replace(attack, **REDUCED.get(type(attack), {})), setting)
        assert found.measurements or found.report.note
        rows += found.measurements
    for row in rows:
        for estimate in (row.unlearned, row.original, *row.references):
            assert estimate.value is not None or estimate.note or row.note, row.name
