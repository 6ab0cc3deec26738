"""What a look at a record alone finds odd in its numbers, and what it must not."""

from pathlib import Path
from typing import Any

import pytest

from tests.worlds.records import full
from unrecall.harness.checking import _exact, _method
from unrecall.methods.base import method_of
from unrecall.record import stats
from unrecall.record.provenance import versions
from unrecall.record.schema import Estimate, Measurement, Record


def share(hits: int) -> Estimate:
    """So many of 6 examples, with the exact interval of such a share."""
    low, high = stats.clopper_pearson(hits, 6)
    return Estimate(value=hits / 6, low=low, high=high, n=6)


MEAN = Estimate(value=0.94, low=0.47, high=0.99, n=6)


@pytest.mark.parametrize(
    ("original", "null", "odd"), [(share(6), share(6), 0), (share(6), share(5), 1), (share(6), MEAN, 0)]
)
def test_a_mean_over_tokens_is_no_forged_share_where_the_others_get_all_right(
    original: Estimate, null: Estimate, odd: int
) -> None:
    row = Measurement(name="retain_accuracy", title="", group="utility", unlearned=MEAN, original=original, null=null)
    assert len(list(_exact(row))) == odd


def made_by(line: str, title: str = "", version: str = versions()["unrecall"], **changed: Any) -> Record:
    """A record as a run of that method leaves it; `changed`: parameters that are edited, None for one that is gone."""
    method, record = method_of(line), full()
    parameters = {k: v for k, v in (method.as_dict() | changed).items() if v is not None}
    provenance = record.provenance.model_copy(update={"versions": {"unrecall": version}})
    stated = {"method": line, "method_title": title or method.title, "parameters": parameters}
    return record.model_copy(update=stated | {"provenance": provenance})


SCRUB = made_by("scrub")


@pytest.mark.parametrize(
    "line", ["scrub", "rurk:tau=0.05,lr=0.01", "salun(random_label:epochs=2):share=0.3", "retrain"]
)
def test_a_method_s_own_title_and_parameters_agree_with_its_line(line: str) -> None:
    assert list(_method(made_by(line))) == []


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (
            SCRUB.model_copy(update={"method": "retrain", "method_title": "Retrain"}),
            "parameters: they name alpha, which the method does not have.",
        ),
        (
            SCRUB.model_copy(update={"method_title": "Retrain from scratch"}),
            "method_title: the record says 'Retrain from scratch', its method is called 'SCRUB'.",
        ),
        (
            made_by("retrain").model_copy(update={"parameters": {}}),
            "parameters: the record has none, its method has some.",
        ),
        (made_by("scrub", gamma=3.0), "parameters: the method's line says gamma=1.0, they say 3.0."),
        (made_by("scrub:gamma=3", gamma=None), "parameters: the method's line says gamma=3.0, they do not name it."),
        (
            made_by("scrub:gamma=3", version="0.0.9", gamma=1.0),
            "parameters: the method's line says gamma=3.0, they say 1.0.",
        ),
    ],
)
def test_a_record_that_claims_another_method_is_seen(record: Record, problem: str) -> None:
    assert problem in list(_method(record))


def test_parameters_of_other_versions_may_lack_some_and_have_other_defaults() -> None:
    assert list(_method(made_by("scrub", version="0.0.9", gamma=3.0, alpha=None))) == []


def test_what_only_its_user_knows_is_held_against_no_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint may be called as a method is; the file of a method of one's own is never run by a check."""
    named = {"method": "retrain", "method_title": "Checkpoint retrain", "parameters": {}}
    assert list(_method(full().model_copy(update=named | {"costs": {}}))) == []
    assert list(_method(full().model_copy(update=named))) != []
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("raise SystemExit")
    own = {"method": "own.py:Scrub", "method_title": "Mine", "parameters": {"a": 1}}
    assert list(_method(full().model_copy(update=own))) == []
