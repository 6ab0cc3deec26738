"""Every record that the repository keeps agrees with itself and with the rule as it stands."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from unrecall.record.recheck import recheck
from unrecall.record.schema import load

HOME = Path(__file__).parents[2]
KEPT = sorted((HOME / "benchmarks" / "records").glob("*/*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_kept_record_holds(path: Path) -> None:
    assert recheck(path)[1] == []


def test_a_record_of_an_older_rule_is_judged_again_and_keeps_its_numbers() -> None:
    spec = importlib.util.spec_from_file_location("publish", HOME / "recipes" / "publish.py")
    assert spec is not None and spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    record = load(next(path for path in KEPT if path.parent.name == "small-cifar5"))
    assert publish.judged_again(record) == record
    older = [
        m.model_copy(update={"judged": not m.judged, "leak": "below", "bound_low": -9.0, "bound_high": 9.0})
        if m.name in ("forget_accuracy", "disagreement")
        else m
        for m in record.measurements
    ]
    again = publish.judged_again(record.model_copy(update={"measurements": older}))
    assert again == record
