"""Which attacks fit into a budget: by hand arithmetic, and once on a small case."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_cli import METHOD, WHO, call, case, one_line, with_
from unrecall.attacks import Loss, Relearn
from unrecall.errors import BadInput
from unrecall.experiment import budget
from unrecall.experiment.against import Against
from unrecall.experiment.budget import Costs, Price, choose, seconds_of
from unrecall.experiment.cell import Cell
from unrecall.experiment.timing import Timed
from unrecall.record.schema import load
from unrecall.spec.lines import show
from unrecall.tasks import Classification

__all__ = ["case"]

RELEARN = Price("relearn", True, 400.0, Price("relearn:steps=1", True, 100.0))
COSTS = Costs(100.0, (RELEARN, Price("rmia", False, 50.0), Price("loss", True, 60.0), Price("svc", False, 30.0)))
"""640 seconds in all."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("600", 600), ("90s", 90), ("20min", 1200), ("20 min", 1200), ("2h", 7200), ("1.5h", 5400), ("1d", 86_400)],
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-5", "soon", "2 weeks", "1e3", "nan", "20min3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--budget: expected a time such as 600, 20min or 2h, got"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "suite", "reduced", "left_out", "taken"),
    [
        (640, "relearn rmia loss svc", "", "", 640),
        (639, "relearn rmia loss", "", "svc", 610),
        (600, "relearn loss", "", "rmia svc", 560),
        (520, "relearn:steps=1 loss", "relearn", "rmia svc", 260),
        # 350 seconds are left, in which relearning alone doesn't fit: it is reduced first, and all fits
        (450, "relearn:steps=1 rmia loss svc", "relearn", "", 340),
        (310, "relearn:steps=1 rmia loss", "relearn", "svc", 310),
        (250, "relearn:steps=1", "relearn", "rmia loss svc", 200),
        # 90 are left: relearning goes, reduced or not, and then the two that no verdict rests on
        (190, "loss", "", "relearn rmia svc", 160),
        (160, "loss", "", "relearn rmia svc", 160),
    ],
)
def test_attacks_go_in_a_fixed_order(seconds: float, suite: str, reduced: str, left_out: str, taken: float) -> None:
    choice = choose(COSTS, seconds)
    assert choice == (tuple(suite.split()), tuple(reduced.split()), tuple(left_out.split()), taken)


def test_what_costs_nothing_stays() -> None:
    costs = Costs(0.0, (Price("relearn", True, 100.0), Price("min_k", False, 0.5), Price("uma", False, 50.0)))
    assert choose(costs, 101).suite == ("relearn", "min_k")


def test_small_ones_go_last_and_still_go() -> None:
    many = tuple(Price(f"loss{i}", True, 0.5) for i in range(60))
    assert len(choose(Costs(595.0, many), 600).suite) == 10  # in the 5 seconds that are left


def test_without_an_attack_that_can_run_the_rest_is_what_takes_too_long() -> None:
    with pytest.raises(BadInput, match="expected time for what comes before attacks, about 100 s, got 10 s"):
        choose(Costs(100.0, (Price("prototypical", True, 0.0),)), 10)


def test_a_budget_too_small_for_any_attack_says_what_the_smallest_takes() -> None:
    message = (
        "expected time for one attack at least, got 100 s.* about 100 s; with the smallest, svc, it is about 130 s"
    )
    with pytest.raises(BadInput, match=message):
        choose(COSTS, 100)
    idle = Costs(100.0, (*COSTS.attacks, Price("prototypical", True, 0.0)))
    with pytest.raises(BadInput, match=message):
        choose(idle, 100)
    with pytest.raises(BadInput, match="with the smallest, lira, it is longer than it was tried for"):
        choose(Costs(1.0, (Price("lira", False, math.inf),)), 100)


def test_the_change_is_said_in_a_sentence() -> None:
    assert choose(COSTS, 520).said("520") == "The budget of 520 reduced relearn and left out rmia, svc."
    assert choose(COSTS, 640).said("640") == ""


def test_an_attack_is_reduced_to_what_the_quick_suite_asks() -> None:
    quick = budget._quick(Relearn(), Classification())
    assert quick is not None and show(quick) == "relearn:steps=1+4+16,learning_rates=0.01"
    assert budget._quick(Loss(), Classification()) is None
    assert budget._quick(Relearn(data="benign"), Classification()) is None


class Here:
    """Work that is to be done in another process, done in this one."""

    def __init__(self, count: int) -> None:
        pass

    def result(self, work: Callable[[], Any]) -> Any:
        return work()

    def end(self) -> None:
        pass


RUN = ["run", *WHO, "--method", METHOD, "--suite", "rmia svc", "--out", "out", "--budget", "30"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What attacks are said to take, and how often that was asked."""
    asked: list[float] = []

    def costs(cells: Any, seconds: float, given: Any) -> Costs:
        asked.append(seconds)
        return Costs(10.0, (Price("rmia", False, 15.0), Price("svc", False, 10.0)))

    monkeypatch.setattr(budget, "Processes", Here)
    monkeypatch.setattr(budget, "_costs_or_reason", costs)
    return asked


def test_the_record_says_what_a_budget_left_out_and_the_suite_stays(measured: list[float]) -> None:
    for _ in range(2):
        assert call(*RUN) == 0
    assert measured == [30.0], "the second time the suite is the one that was chosen"
    record = load(Path("out/seed-0/record.json"))
    assert [report.name for report in record.attacks] == ["rmia"]
    assert record.scenario_summary == "blobs. The budget of 30 left out svc."
    assert json.loads(Path("out/suite.json").read_text())["chosen"] == ["rmia"]
    assert call("check", "out") == 0


def test_another_budget_with_the_same_suite_is_the_same_run(
    measured: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*RUN) == 0
    assert call(*with_(RUN, budget="31s")) == 0
    capsys.readouterr()
    assert call(*with_(RUN, budget="1h")) == 2
    assert one_line(capsys).endswith("attacks of this run, rmia, got others for --budget 1h. Choose another --out.")
    assert call(*RUN[:-2]) == 2
    assert "another run (other budget)" in one_line(capsys)
    assert measured == [30.0, 31.0, 3600.0]


def test_a_budget_too_small_leaves_nothing(measured: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*with_(RUN, budget="12")) == 2
    assert "with the smallest, svc, it is about 20 s. Give more time." in one_line(capsys)
    assert not Path("out").exists()


def test_a_case_is_priced_from_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "Processes", Here)
    assert call(*with_(RUN, budget="1h")) == 0
    assert json.loads(Path("out/suite.json").read_text())["chosen"] == ["rmia", "svc"]
    assert load(Path("out/seed-0/record.json")).scenario_summary == "blobs"


def test_an_attack_that_tuning_runs_counts_before_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds a model."""
    lines: list[str] = []

    def prices(case: Any, *_: Any) -> tuple[list[float], list[float]]:
        lines.extend(show(attack) for attack in case.attacks)
        return [0.0], [(2 + case.retrained) * 3.0 for _ in case.attacks]

    monkeypatch.setattr(budget, "prices", prices)
    monkeypatch.setattr(budget, "training_times", lambda *_: [])
    monkeypatch.setattr(budget, "unlearning_times", lambda *_: [])
    cell = Cell("case.py:make", METHOD, "rmia", 0, False, "out", "cpu")
    plain = budget._costs([cell], 3600, None)
    lines.clear()
    searched = budget._costs([replace(cell, tuned=Against("relearn"))], 3600, None)
    assert [line.split(":")[0] for line in lines] == ["rmia", "relearn"]
    assert searched.fixed - plain.fixed == pytest.approx(7 * 3.0, abs=2), "six trials, and the original"
    assert searched.attacks == plain.attacks
    lines.clear()
    twice = budget._costs([replace(cell, tuned=Against("relearn"), seed=seed) for seed in range(2)], 3600, None)
    assert len(lines) == 2, "it is tried once"
    assert twice.fixed - plain.fixed == pytest.approx(2 * 7 * 3.0, abs=2)


def priced(monkeypatch: pytest.MonkeyPatch, cells: Sequence[Cell] | str) -> Costs:
    """What cells take, or one cell for each method, where trying costs no time.

    Three seconds a model for an attack, a thousand for each method; before attacks 7 s, and 4 s of the original and the
    unlearned model beside records that were never trained on.
    """
    monkeypatch.setattr(budget, "training_times", lambda *_: [])
    monkeypatch.setattr("unrecall.experiment.clock.time.perf_counter", lambda: 0.0)
    monkeypatch.setattr(
        budget, "prices", lambda case, *_: ([7.0, 4.0], [(2 + case.retrained) * 3.0 for _ in case.attacks])
    )
    times = budget.unlearning_times

    def unlearning_times(case: Any, model: Any) -> list[Timed]:
        return [Timed(one.line, 1000.0) for one in list(times(case, model))[:1]]

    monkeypatch.setattr(budget, "unlearning_times", unlearning_times)
    if isinstance(cells, str):
        cells = [Cell("case.py:make", line, "rmia cka", 0, False, "out", "cpu") for line in cells.split()]
    return budget._costs(cells, 3600, None)


def test_a_method_that_can_not_run_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """AltPO is of texts, and EC finds no layer of that name."""
    costs = priced(monkeypatch, f"altpo {METHOD}")
    assert costs.fixed == 1011
    assert costs == priced(monkeypatch, METHOD) == priced(monkeypatch, f"{METHOD} ec:layers=none")
    assert priced(monkeypatch, "altpo").fixed == 0


def test_the_original_and_retrained_models_are_attacked_once_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of them; of each method an unlearned model and its null. What CKA finds is kept for no other cell."""
    cells = [Cell("case.py:make", line, "rmia cka", 0, False, "out", "cpu") for line in (METHOD, "grad_diff")]

    def models(*cells: Cell) -> list[float]:
        return [attack.seconds / 3 for attack in priced(monkeypatch, cells).attacks]

    assert models(cells[0]) == [3 + 2, 3 + 2]
    assert models(*cells) == [3 + 4, 6 + 4]
    assert priced(monkeypatch, cells).fixed == 2 * (1000 + 7) + 4 / 2 * (1 + 2)
    assert models(cells[0], replace(cells[1], seed=1)) == [6 + 4, 6 + 4]
    assert models(cells[0], replace(cells[1], tuned=True)) == [6 + 4, 6 + 4], "of another request, without validation"
    assert models(replace(cells[0], method="ssd")) == [3 + 1, 3 + 1], "which has no null"


def test_a_bench_within_a_budget_fails_only_where_a_method_can_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(budget, "Processes", Here)
    bench = ["bench", *WHO, "--methods", f"altpo {METHOD}", "--suite", "rmia", "--out", "out", "--budget", "1h"]
    assert call(*bench) == 2
    assert [path.parts[1].split("-")[0] for path in Path("out").glob("*/*/record.json")] == ["neggrad_plus"]
    assert "AltPO: expected a task of texts" in capsys.readouterr().err


def test_what_is_wrong_with_a_case_is_said_as_without_a_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(budget, "Processes", Here)
    assert call(*with_(RUN, scenario="case.py:label")) == 2
    line = one_line(capsys)
    assert call(*with_(RUN[:-2], scenario="case.py:label")) == 2
    assert one_line(capsys) == line
