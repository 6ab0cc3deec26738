"""Four requests, one after another, on MovieLens: each method's models beside models retrained without what was asked.

python recipes/movielens.py DATA_FOLDER [MODEL REQUEST METHOD]

DATA_FOLDER holds ratings.csv and movies.csv; MODEL is mf, lightgcn, sasrec or gru, REQUEST what the scenario's `forget`
takes, METHOD a line as for --method; left out, all of RUNS. Writes results/movielens/requests.jsonl, one line a model,
request, method and checkpoint, and the tables in README.md beside it; continues where an earlier call stopped. Ten
minutes on two cores for one method, most of it the retrained models, which other methods find in the cache.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from unrecall.errors import BadInput
from unrecall.experiment.sequence import sequence
from unrecall.harness.suites import suite
from unrecall.record.schema import Record
from unrecall.scenarios.movielens import MovieLens
from unrecall.spec.lines import parse
from unrecall.training.session import Session

OUT = Path(__file__).parent.parent / "results" / "movielens"
CHECKPOINTS = 4
Model: TypeAlias = Literal["mf", "lightgcn", "sasrec", "gru"]
MODELS: tuple[Model, ...] = ("mf", "lightgcn", "sasrec", "gru")
METHODS = (
    "finetune:optimizer=adam,lr=0.005,epochs=2",
    "neggrad_plus:optimizer=adam,lr=0.002,beta=0.95",
    "scrub:optimizer=adam,lr=0.002",
    "ssd:importance=exact,alpha=5",
    "random_label:optimizer=adam,lr=0.002,epochs=2",
    "npo:lr=0.002,epochs=3",
)
"""The methods, with Adam at a rate that moves embeddings; nothing else in them knows a recommender."""
GRAPH = ("certified_edge", "idea", "gif")
"""The methods for models that read a graph, at their defaults."""
RUNS: tuple[tuple[Model, str, tuple[str, ...]], ...] = (
    ("mf", "category:Horror", METHODS),
    ("mf", "spam", METHODS),
    ("sasrec", "category:Horror", METHODS),
    ("lightgcn", "category:Horror", GRAPH),
)
"""The models, what is asked of them, and by which methods it is honoured."""
EPOCHS = {"sasrec": 12}
"""How long a model is trained, where not as long as the scenario does."""
FIGURES = {
    "recall_10": "recall@10",
    "recall_20": "recall@20",
    "ndcg_10": "NDCG@10",
    "ndcg_20": "NDCG@20",
    "sensitive_share_10": "sensitive share, mean",
    "sensitive_least_10": "least",
    "sensitive_most_10": "most",
    "hit_rate_10": "others' hit rate",
    "loss_auc": "loss AUC",
    "cost_passes": "passes of retraining",
}
"""What is written down of each model, and how the table calls it."""


class Run(NamedTuple):
    """A model, what is asked of it, and the method that honours it."""

    model: Model
    forget: str
    method: str


def runs() -> Iterator[Run]:
    """All of them."""
    return (Run(model, forget, method) for model, forget, methods in RUNS for method in methods)


def asked(model: str, forget: str, method: str) -> Run:
    """The one that a command line names."""
    if model not in MODELS:
        raise BadInput(f"expected MODEL to be one of {', '.join(MODELS)}, got '{model}'.")
    return Run(model, forget, method)


def line(run: Run, checkpoint: int, record: Record) -> dict[str, Any]:
    """What a record says, as a row; shares of retraining's time are those of a run in which it was timed."""
    rows = {row.name: row for row in record.measurements}
    values = {name: [rows[name].original.value, rows[name].unlearned.value, rows[name].reference] for name in FIGURES}
    costs = {role: cost.seconds for role, cost in record.costs.items()}
    return {**run._asdict(), "checkpoint": checkpoint, "values": values, "seconds": costs}


def rows() -> list[dict[str, Any]]:
    """What earlier calls wrote."""
    path = OUT / "requests.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def run_one(run: Run, data: str) -> None:
    """The four requests; those that are written down already are not written again."""
    case = MovieLens(
        data, run.forget, run.model, checkpoints=CHECKPOINTS, epochs=EPOCHS.get(run.model, 0), references=1
    )
    cases = (replace(case, checkpoint=i) for i in range(1, CHECKPOINTS + 1))
    written = [row["checkpoint"] for row in rows() if Run(row["model"], row["forget"], row["method"]) == run]
    if len(written) == CHECKPOINTS:
        return
    session, method = Session(device="cpu", show=True), parse(run.method, "methods")
    outcomes = sequence((case.make() for case in cases), method, suite("loss"), session=session)
    for checkpoint, outcome in enumerate(outcomes, 1):
        if checkpoint not in written:
            with (OUT / "requests.jsonl").open("a") as file:
                file.write(json.dumps(line(run, checkpoint, outcome.record)) + "\n")
        print(*run, checkpoint, line(run, checkpoint, outcome.record)["values"], flush=True)


def table(model: str, forget: str) -> str:
    """The rows of one model and request: unlearned figures, those of the retrained model, and the time.

    The time is beside the last retraining that was timed before, on a machine that was as busy.
    """
    own = [row for row in rows() if (row["model"], row["forget"]) == (model, forget)]
    timed: dict[int, float | None] = {}
    for row in own:
        timed[row["checkpoint"]] = row["seconds"].get("retrained") or timed.get(row["checkpoint"])
        row["retraining"] = timed[row["checkpoint"]]
    head = ["method", "checkpoint", *FIGURES.values(), "time of retraining"]
    text = [f"## {model}, {forget}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    shown: set[int] = set()
    for row in sorted(own, key=lambda row: (row["method"], row["checkpoint"])):
        whole, took = row["retraining"], row["seconds"].get("unlearned")
        time = f"{took / whole:.2f}" if whole and took is not None else "-"
        cells = [number(row["values"][name][1]) for name in FIGURES]
        text.append("| " + " | ".join([f"`{row['method']}`", str(row["checkpoint"]), *cells, time]) + " |")
        shown.add(row["checkpoint"])
    for checkpoint in sorted(shown):
        row = next(row for row in own if row["checkpoint"] == checkpoint)
        cells = [number(row["values"][name][2]) for name in FIGURES]
        text.append("| " + " | ".join(["*retrained*", str(checkpoint), *cells, "1"]) + " |")
    first = next((row for row in own if row["checkpoint"] == 1), None)
    if first:
        cells = [number(first["values"][name][0]) for name in FIGURES]
        text.append("| " + " | ".join(["*original*", "before 1", *cells, "-"]) + " |")
    return "\n".join(text)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write() -> None:
    """README.md: what stands above the first table stays, the tables are made anew."""
    path = OUT / "README.md"
    above = path.read_text().partition("\n## ")[0].rstrip() if path.exists() else "# MovieLens"
    cases = dict.fromkeys((row["model"], row["forget"]) for row in rows())
    path.write_text("\n\n".join([above, *(table(*case) for case in cases)]) + "\n")


def main(data: str, *chosen: str) -> None:
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for run in [asked(*chosen)] if chosen else runs():
        run_one(run, data)
        write()


if __name__ == "__main__":
    main(*sys.argv[1:])
