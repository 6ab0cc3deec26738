"""What a look at a record alone finds odd in its numbers, and what it must not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worlds.records import full
from unrecall.attacks import Loss
from unrecall.harness.checking import ROWS, _attacks, _curves, _exact, _figures_of, _kind, _method, _rows, _sums
from unrecall.harness.memory_left import estimates_of_memory
from unrecall.methods.base import method_of
from unrecall.record import stats
from unrecall.record.provenance import commit, versions
from unrecall.record.row import Row
from unrecall.record.schema import AttackReport, Cost, Curve, Estimate, Matrix, Measurement, Record, Series, ThreatModel


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


def made_by(line: str, title: str = "", code: Mapping[str, Any] | None = None, **changed: Any) -> Record:
    """A record as a run of that method leaves it; `changed`: parameters that are edited, None for one that is gone.

    `code`: what is other about the code that made it.
    """
    method, record = method_of(line), full()
    parameters = {k: v for k, v in (method.as_dict() | changed).items() if v is not None}
    present = {"versions": versions(), "commit": commit()}
    provenance = record.provenance.model_copy(update={**present, **(code or {})})
    stated = {"method": line, "method_title": title or method.title, "parameters": parameters}
    return record.model_copy(update=stated | {"provenance": provenance})


SCRUB = made_by("scrub")
OTHER_CODE: list[dict[str, Any]] = [{"versions": {"unrecall": "0.0.9"}}, {"commit": "0123abc"}]


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
            made_by("scrub:gamma=3", code=OTHER_CODE[0], gamma=1.0),
            "parameters: the method's line says gamma=3.0, they say 1.0.",
        ),
    ],
)
def test_a_record_that_claims_another_method_is_seen(record: Record, problem: str) -> None:
    assert problem in list(_method(record))


@pytest.mark.parametrize("code", OTHER_CODE)
def test_parameters_of_other_code_may_lack_some_and_have_other_defaults(code: dict[str, Any]) -> None:
    assert list(_method(made_by("scrub", code=code, gamma=3.0, alpha=None))) == []


def test_what_only_its_user_knows_is_held_against_no_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint may be called as a method is; the file of a method of one's own is never run by a check."""
    named = {"method": "retrain", "method_title": "Checkpoint retrain", "parameters": {}}
    assert list(_method(full().model_copy(update=named | {"costs": {}}))) == []
    assert list(_method(full().model_copy(update=named))) != []
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("raise SystemExit")
    own = {"method": "own.py:Scrub", "method_title": "Mine", "parameters": {"a": 1}}
    assert list(_method(full().model_copy(update=own))) == []


HALF = dict.fromkeys(("original", "unlearned", "null"), Estimate(value=0.5))


OTHER_TITLE = "forget_accuracy: its title is 'Accuracy on test', the code says 'Accuracy on forget'."


def titled(name: str, title: str) -> Measurement:
    return ROWS[name].measured(HALF).model_copy(update={"title": title})


@pytest.mark.parametrize(
    ("name", "title", "problems"),
    [
        ("forget_accuracy", "Accuracy on forget", []),
        (
            "forget_accuracy",
            "Accuracy on test",
            [OTHER_TITLE],
        ),
        ("forget_retrieval_first", "Retrieval among 1,609, first, forget", []),
    ],
)
def test_a_row_has_the_title_that_the_code_gives_it(name: str, title: str, problems: list[str]) -> None:
    record = full().model_copy(update={"measurements": [titled(name, title)]})
    assert [problem for problem in _rows(record) if problem.startswith(f"{name}: its title")] == problems


def attacked(title: str, row_title: str, steps: tuple[int, ...] = (1, 4)) -> Record:
    """A record of relearning at 1 and 4 steps; `steps`: those that it says."""
    row = Row("relearn_mean", row_title, "recovery", "above", judged=True).measured(HALF)
    line = Series(role="unlearned", x=[0, 1, 4], y=[0, 0.1, 0.2])
    curve = Curve(name="recovery", title="", x_label="", y_label="", series=[line])
    who = ThreatModel(access="", data="", budget="")
    given = {"parameters": {"steps": list(steps)}, "curves": [curve]}
    report = AttackReport(name="relearn", title=title, threat=who, **given)  # type: ignore[arg-type]
    return full().model_copy(update={"measurements": [row], "attacks": [report]})


@pytest.mark.parametrize(
    ("title", "row_title", "off"),
    [
        ("Relearning", "Relearning, mean over the budget", False),
        ("Relearning (0.3)", "Relearning (0.3), mean over the budget", False),
        ("Quantisation", "Quantisation, mean over the budget", True),
        ("Relearning", "Quantisation, mean over the budget", True),
    ],
)
def test_an_attack_and_its_judged_row_have_its_title(title: str, row_title: str, off: bool) -> None:
    assert any("its title is" in problem for problem in _attacks(attacked(title, row_title))) == off


@pytest.mark.parametrize(("steps", "off"), [((1, 4), False), ((1, 4, 8), False), ((1, 64), True)])
def test_relearning_is_drawn_at_the_steps_that_it_says(steps: tuple[int, ...], off: bool) -> None:
    record = attacked("Relearning", "", steps)
    problems = [f"relearn: it was set to {list(steps)} steps, its curves are of [0.0, 1.0, 4.0]."] if off else []
    assert list(_curves(record)) == problems


def of_class(record: Record) -> Record:
    return record.model_copy(update={"measurements": [titled("class_margin", "")]})


def of_table(record: Record) -> Record:
    table = Matrix(name="contamination", title="", labels=["a"], forgotten=[0], values={})
    return record.model_copy(update={"measurements": [], "matrices": [table]})


def of_records(record: Record) -> Record:
    return record.model_copy(update={"measurements": [titled("members_left", "")], "matrices": []})


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [(of_class, ["class"]), (of_table, ["class", "concept"]), (of_records, ["samples", "backdoor"])],
)
def test_what_was_to_be_forgotten_fits_rows_and_tables(shape: Callable[[Record], Record], kinds: list[str]) -> None:
    for kind in ("samples", "class", "concept", "backdoor"):
        record = shape(full()).model_copy(update={"kind": kind})
        assert (list(_kind(record)) == []) == (kind in kinds), kind


@pytest.mark.parametrize(("phases", "off"), [([4, 6], False), ([], False), ([4, 5], True)])
def test_steps_are_those_of_the_runs_of_the_loop(phases: list[int], off: bool) -> None:
    cost = Cost(seconds=1.0, passes=100, steps=10, peak_mib=1.0, phases=phases)
    problems = _sums(full().model_copy(update={"costs": {"original": cost}}))
    assert ("costs of original: 10 steps, but those of its phases are 9." in problems) == off


def test_memory_left_is_each_model_s_own_with_more_than_ten_retrained_models() -> None:
    """ "retrained 10" stands before "retrained 2" in a file's alphabet."""
    draws = np.random.default_rng(0)
    known = {"original": 3.0, "unlearned": 1.0} | {f"retrained {i}": 0.0 for i in range(12)}
    scores = {
        role: {"forget": draws.normal(more - 4, 0.3, 40), "holdout": draws.normal(-4, 0.3, 40)}
        for role, more in known.items()
    }
    arrays = {f"{role}/{arm}": values[None] for role, arms in scores.items() for arm, values in arms.items()}
    arrays |= {f"{role}/budgets": np.zeros(1) for role in scores}
    losses = {role: {arm: -values for arm, values in arms.items()} for role, arms in scores.items()}
    due = estimates_of_memory(losses, "samples")["loss_left"]  # type: ignore[arg-type]
    left = _figures_of(Loss(), arrays, "samples").rows["left"]
    assert len({estimate.value for estimate in due.values()}) == 14
    assert {role: left[role].value for role in due} == pytest.approx({role: e.value for role, e in due.items()})
