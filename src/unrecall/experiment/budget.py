"""Which attacks of a suite fit into a budget of time, from what each takes on a few examples."""

import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from unrecall.attacks.base import Attack
from unrecall.disk.json_files import read_json, write_json
from unrecall.errors import BadInput, error_line
from unrecall.experiment.against import Against
from unrecall.experiment.audit_timing import prices
from unrecall.experiment.case import Case
from unrecall.experiment.cell import Cell, architecture, scenario_for
from unrecall.experiment.parallel import Processes
from unrecall.experiment.timing import training_times, unlearning_times
from unrecall.experiment.tune import TRIALS
from unrecall.harness.finding import named_parameters, report_of
from unrecall.harness.suites import QUICK, suite
from unrecall.methods.base import null_base
from unrecall.methods.retrain import Retrain
from unrecall.spec.lines import parse, show
from unrecall.tasks.base import Task, check_inputs
from unrecall.tasks.protocols import offers
from unrecall.training.session import Session, duration

SUITE = "suite.json"
"""The file of a run's folder that says which attacks its budget left, so that they stay when the run goes on."""
UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
SHARE, SHORTEST, LONGEST = 0.02, 4.0, 20.0
"""An attack is tried for this share of the budget, but not for less or more than so many seconds."""
SMALL = 0.01
"""The share of the budget below which an attack goes last, as leaving it out would save nearly nothing."""


@dataclass(frozen=True)
class Price:
    """An attack of a suite, and the most seconds that it takes; 0 where it can't run.

    `judged`: whether a verdict rests on it. `quick`: what the suite `quick` asks of it, where that is another attack.
    """

    line: str
    judged: bool
    seconds: float
    quick: "Price | None" = None


class Costs(NamedTuple):
    """What runs take in seconds: each attack in all of them, and what there is to do whatever attacks there are."""

    fixed: float
    attacks: tuple[Price, ...]


class Choice(NamedTuple):
    """The attacks that fit into a budget; those that are reduced or left out for it; the seconds that all will take."""

    suite: tuple[str, ...]
    reduced: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float

    def said(self, budget: str) -> str:
        """What the budget changed, in a sentence; empty where it changed nothing."""
        parts = [f"reduced {', '.join(self.reduced)}"] if self.reduced else []
        parts += [f"left out {', '.join(self.left_out)}"] if self.left_out else []
        return f"The budget of {budget} {' and '.join(parts)}." if parts else ""


def seconds_of(text: str) -> float:
    """The seconds of a time such as 600, 90s, 20min, 1.5h; BadInput for anything else."""
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(UNITS)})?", text.strip(), re.ASCII)
    if match is None or float(match[1]) == 0:
        raise BadInput(f"--budget: expected a time such as 600, 20min or 2h, got '{text}'. Correct it.")
    return float(match[1]) * UNITS[match[2] or "s"]


def choose(costs: Costs, budget: float) -> Choice:
    """Which attacks fit, by a fixed order: each step goes from the last of the suite to the first, until the rest fits.

    An attack that alone doesn't fit is reduced, or goes where that doesn't help. Then those go that no verdict rests
    on; then those that one rests on are reduced; then they go. What takes less than `SMALL` of the budget goes last.
    BadInput where nothing that can run would be left.
    """
    left = budget - costs.fixed
    chosen = dict(enumerate(costs.attacks))

    def reduce(place: int) -> None:
        chosen[place] = chosen[place].quick or chosen[place]

    def leave_out(place: int) -> None:
        del chosen[place]

    for place, attack in enumerate(costs.attacks):
        if attack.seconds > left:
            reduce(place)
            if chosen[place].seconds > left:
                leave_out(place)
    for small in (SMALL * budget, 0.0):
        for step, judged in ((leave_out, False), (reduce, True), (leave_out, True)):
            for place in reversed(list(chosen)):
                fits = sum(attack.seconds for attack in chosen.values()) <= left
                if not fits and chosen[place].judged is judged and chosen[place].seconds > small:
                    step(place)
    seconds = sum(attack.seconds for attack in chosen.values())
    if seconds > left or (seconds == 0 and any(attack.seconds for attack in costs.attacks)):
        raise _too_small(costs, budget)
    before = dict(enumerate(costs.attacks))
    return Choice(
        tuple(attack.line for attack in chosen.values()),
        tuple(before[place].line for place in chosen if chosen[place] is not before[place]),
        tuple(before[place].line for place in before if place not in chosen),
        costs.fixed + seconds,
    )


def _too_small(costs: Costs, budget: float) -> BadInput:
    each = [attack for whole in costs.attacks for attack in (whole, whole.quick) if attack and attack.seconds]
    if not each:
        return BadInput(
            f"--budget: expected time for what comes before attacks, {_about(costs.fixed)}, got {duration(budget)}. "
            "Give more time."
        )
    least = min(each, key=lambda attack: attack.seconds)
    return BadInput(
        f"--budget: expected time for one attack at least, got {duration(budget)}. What comes before attacks takes "
        f"{_about(costs.fixed)}; with the smallest, {least.line}, it is {_about(costs.fixed + least.seconds)}. "
        "Give more time."
    )


def _about(seconds: float) -> str:
    return "longer than it was tried for" if math.isinf(seconds) else f"about {math.ceil(seconds)} s"


class UserModels(NamedTuple):
    """What an audit of somebody's checkpoint needn't train: the original, and so many retrained models."""

    original: bool
    retrained: int


def cells_in_budget(cells: Sequence[Cell], folder: Path, budget: str, given: UserModels | None = None) -> list[Cell]:
    """The cells with the attacks that fit into the budget, or that fitted when the folder's run began.

    `given`: for an audit, in which no method is run. The time is counted as if one cell followed another.
    """
    seconds, asked = seconds_of(budget), {"budget": budget, "suite": cells[0].suite}
    path = folder / SUITE
    chosen = before = read_json(path) if path.is_file() else {}
    if before and not _whole(before, {*asked, "chosen", "said"}):
        raise BadInput(f"{path}: expected the attacks of this run, got a damaged file. Choose another --out.")
    if {key: before.get(key) for key in asked} != asked:
        Session(show=cells[0].show).say("trying methods and attacks on a few examples, to tell what they take")
        processes = Processes(1)
        costs = processes.result(partial(_costs_or_reason, tuple(cells), seconds, given))
        processes.end()
        if isinstance(costs, str):
            raise BadInput(costs)
        choice = choose(costs, seconds)
        chosen = asked | {"chosen": list(choice.suite), "said": choice.said(budget)}
        if before and before["chosen"] != chosen["chosen"]:
            raise BadInput(
                f"{folder}: expected the attacks of this run, {', '.join(before['chosen'])}, got others for "
                f"--budget {budget}. Choose another --out."
            )
        write_json(path, chosen)
        line = f"{chosen['said']} All takes about {duration(choice.seconds)} at most."
        Session(show=cells[0].show).say(line.lstrip())
    return [replace(cell, suite=" ".join(chosen["chosen"]), note=chosen["said"]) for cell in cells]


def _whole(content: object, keys: set[str]) -> bool:
    """Whether the file of a suite holds what was written there."""
    if not isinstance(content, dict) or content.keys() != keys or not isinstance(content["said"], str):
        return False
    chosen = content["chosen"]
    return isinstance(chosen, list) and all(isinstance(line, str) for line in chosen)


def _costs_or_reason(cells: Sequence[Cell], budget: float, given: UserModels | None) -> Costs | str:
    """What cells take, or the line that says what is wrong; for a process of its own, as trials are broken off."""
    try:
        return _costs(cells, budget, given)
    except Exception as error:
        return error_line(error)


def _costs(cells: Sequence[Cell], budget: float, given: UserModels | None) -> Costs:
    """What cells take: a few steps of all trainings and methods, and each attack tried on a few examples.

    The time that this takes counts too.
    """
    started = time.perf_counter()
    cell, session = cells[0], Session(device=cells[0].device)
    scenario = scenario_for(cell)
    if given is not None and given.original and scenario.original is None:
        scenario = replace(scenario, original=architecture(scenario, cell.seeds.training, session))
    attacks = suite(*cell.suite.split()).suiting(scenario.task)
    quick = [_quick(attack, scenario.task) for attack in attacks]
    case = Case(scenario, Retrain(), attacks, session)
    model = case.start()
    check_inputs(scenario.task, model, scenario.request)
    counts = scenario.models_to_train(sorted({cell.seeds.training for cell in cells}), session)
    if given is not None:
        counts["retrained"] = max(0, counts["retrained"] - given.retrained)
    fixed = sum(timed.seconds for timed in training_times(case, model, counts))
    running = Running(cells, 0.0, len(cells)) if given else _running(cells, case, model)
    searches = Counter(cell.tuned for cell in running.cells if isinstance(cell.tuned, Against) and given is None)
    against = [search.attack_on(scenario.task, scenario.request.kind) for search in searches]
    tried = [*attacks, *filter(None, quick), *against]
    patience = min(LONGEST, max(SHORTEST, SHARE * budget))
    (measuring, *beside_unseen), of_attacks = prices(replace(case, attacks=tried), model, patience)
    of_model = [price / (2 + case.retrained) for price in of_attacks]
    seconds = [each * running.attacked(attack, case.retrained) for attack, each in zip(tried, of_model, strict=True)]
    of_search = zip(searches.values(), of_model[len(tried) - len(against) :], strict=True)
    fixed += running.seconds + (1 + TRIALS) * sum(count * each for count, each in of_search)
    fixed += len(running.cells) * measuring + (len(running.cells) + running.settings) * sum(beside_unseen) / 2
    fixed += time.perf_counter() - started
    return Costs(fixed, _priced(attacks, quick, seconds))


class Running(NamedTuple):
    """The cells whose method can run, the seconds that their methods take in all of them, and the models that result.

    `models`: how many, nulls among them.
    """

    cells: Sequence[Cell]
    seconds: float
    models: int

    @property
    def settings(self) -> int:
        """How many there are of request, original and evaluation seed: scores of other models are kept for each."""
        return len({(bool(cell.tuned), cell.seeds.training, cell.seeds.evaluation) for cell in self.cells})

    def attacked(self, attack: Attack, retrained: int) -> int:
        """On how many models an attack is run; on the originals and retrained ones once a setting if it is scored."""
        return self.models + (1 + retrained) * (self.settings if attack.kind == "scored" else len(self.cells))


def _running(cells: Sequence[Cell], case: Case, model: nn.Module) -> Running:
    """Which cells' methods can run, by a few steps of each; where one can't, its own run says why."""
    able, seconds, models = list[Cell](), 0.0, 0
    for line, tuned in dict.fromkeys((cell.method, cell.tuned) for cell in cells):
        alike = [cell for cell in cells if (cell.method, cell.tuned) == (line, tuned)]
        with suppress(Exception):  # whatever it is, it stops no other cell
            method = parse(line, "methods")
            times = unlearning_times(replace(case, method=method, tuned=tuned), model)
            seconds += len(alike) * sum(timed.seconds for timed in times)
            models += len(alike) * (1 if null_base(method, model) is None else 2)
            able += alike
    return Running(able, seconds, models)


def _quick(attack: Attack, task: Task) -> Attack | None:
    """What the suite `quick` asks of a judged attack; None where that is no other, or it isn't judged."""
    if not attack.judged or named_parameters(attack):
        return None
    name = report_of(attack).name
    alike = (quick for need, quick in QUICK if offers(task, need) and report_of(quick).name == name)
    return next((quick for quick in alike if quick != attack), None)


def _priced(attacks: Sequence[Attack], quick: Sequence[Attack | None], seconds: Sequence[float]) -> tuple[Price, ...]:
    """The prices of attacks, whose seconds come first, and then those of what `quick` asks of some."""
    of_quick, priced = iter(seconds[len(attacks) :]), list[Price]()
    for attack, other, most in zip(attacks, quick, seconds, strict=False):
        price = None if other is None else Price(show(other), True, min(most, next(of_quick)))
        priced.append(Price(show(attack), bool(attack.judged) and not named_parameters(attack), most, price))
    return tuple(priced)
