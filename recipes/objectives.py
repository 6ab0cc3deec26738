"""Does a model that was trained by NIB or ULE leak less after the same unlearning? Digits, five seeds; colours too.

python recipes/objectives.py [digits] [colours] [shortcuts]

Writes results/objectives/runs.jsonl, one line a run, continues where an earlier call stopped, and prints the tables of
results/objectives/README.md. Takes about half an hour on two busy cores.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrecall.data.examples import iterate
from unrecall.experiment.run import experiment
from unrecall.harness.suites import suite
from unrecall.methods.base import method_of
from unrecall.metrics.worst_group import by_group
from unrecall.models.observe import accuracy
from unrecall.record.schema import Measurement, Record
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.coloured_digits import ColouredDigits
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.shortcuts import STRENGTHS, Shortcuts
from unrecall.training.session import Session

OUT = Path(__file__).parent.parent / "results" / "objectives" / "runs.jsonl"
OBJECTIVES = ("plain", "nib", "ule")
METHODS = ("finetune", "neggrad_plus", "salun")
SEEDS = range(5)
SESSION = Session(device="cpu")
SHOWN = ("forget_accuracy", "test_accuracy", "restoration", "loss_auc", "loss_left", "relearn_mean")
"""What is kept of a record; loss_left is the memory left."""


def shown(measurement: Measurement) -> dict[str, Any]:
    """The unlearned model's number, the original's, and those of the retrained models."""
    return {
        "unlearned": measurement.unlearned.value,
        "original": measurement.original.value,
        "retrained": [estimate.value for estimate in measurement.references],
    }


def measured(record: Record) -> dict[str, Any]:
    """What is kept of a record, by measurement."""
    return {row.name: shown(row) for row in record.measurements if row.name in SHOWN}


def audited(scenario: Scenario, method: str, seed: int) -> dict[str, Any]:
    """An unlearning and its audit by two attacks, beside retrained models of the same objective."""
    record = experiment(
        scenario, method_of(method), suite("loss", "relearn:steps=1+4+16,learning_rates=0.01"), seed, SESSION
    ).record
    return measured(record)


def digits() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Each objective, method and seed on digits, a tenth of which was entered wrongly and must go."""
    for objective in OBJECTIVES:
        scenario = Digits(forget="mistakes:0.1", objective=objective, references=3).make()
        for seed in SEEDS:
            for method in METHODS:
                yield f"digits {objective} {method} {seed}", partial(audited, scenario, method, seed)


def groups(scenario: Scenario, seed: int) -> dict[str, Any]:
    """An original's accuracy on the test set and on its worst group."""
    model = scenario.train_original(seed, SESSION).model
    correct = accuracy(model, scenario.task, scenario.request.test)
    names = [group for _, _, group in iterate(scenario.request.test)]
    parts = by_group(np.asarray(correct), names).values()
    return {"test": float(np.mean(correct)), "worst": min(float(part.mean()) for part in parts)}


def colours() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Originals on coloured digits, by objective and by how long they were trained."""
    for epochs, objective, seed in itertools.product((10, 25), (*OBJECTIVES, "ule:weight=30"), SEEDS):
        scenario = ColouredDigits(rho=0.98, epochs=epochs, objective=objective, seed=seed).make()
        yield f"colours, {epochs} epochs, {objective} {seed}", partial(groups, scenario, seed)


def recovery(scenario: Scenario, seed: int) -> dict[str, Any]:
    """Accuracy on the changed and on the clean pictures: the original, after fine-tuning on clean ones, retrained."""
    return measured(experiment(scenario, method_of("finetune"), suite("loss"), seed, SESSION).record)


def shortcuts() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Each kind of shortcut, in half of the training pictures and in nearly all of them."""
    for kind in STRENGTHS:
        for poisoned in (0.5, 0.9, 0.99):
            scenario = Shortcuts(kind=kind, poisoned=poisoned, references=2).make()
            yield f"shortcuts {kind} {poisoned} 0", partial(recovery, scenario, 0)


PARTS = {"digits": digits, "colours": colours, "shortcuts": shortcuts}


def rows() -> list[dict[str, Any]]:
    """What is there already."""
    return [json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()] if OUT.exists() else []


def mean(values: list[float]) -> str:
    """A mean and its standard deviation over runs; a dash where there are none."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def tables() -> Iterator[str]:
    """The figures of each case over its seeds: unlearned, original and retrained."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in rows():
        cases.setdefault(row["run"].rpartition(" ")[0], []).append(row)
    for case, own in cases.items():
        yield f"{case} ({len(own)})"
        for name in sorted({key for row in own for key in row} - {"run"}):
            values = [row[name] for row in own if name in row]
            if isinstance(values[0], float):
                yield f"  {name}: {mean(values)}"
            elif isinstance(values[0], dict):
                retrained = [value for part in values for value in part["retrained"]]
                sides = [mean([part[role] for part in values]) for role in ("unlearned", "original")]
                yield f"  {name}: unlearned {sides[0]}, original {sides[1]}, retrained {mean(retrained)}"


def main(*parts: str) -> None:
    torch.set_num_threads(1)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    done = {row["run"] for row in rows()}
    for part in parts or PARTS:
        for run, measure in PARTS[part]():
            if run not in done:
                with OUT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"run": run, **measure()}) + "\n")
                print(run, flush=True)
    print("\n".join(tables()))


if __name__ == "__main__":
    main(*sys.argv[1:])
