"""What models are called that were trained anew without forget, but otherwise than the retrained models beside them.

labels: as these were, for comparison. answers: fresh weights, which learn on retain what the original answers there, in
place of labels. adam: labels, by another optimiser.

python recipes/retrained_otherwise.py OUT_FOLDER [SEEDS]

On the digits, where a quarter of all pictures must go, and where a class must; beside six retrained models, by the
suite `quick`, and beside pictures that were never trained on. Writes OUT_FOLDER/models.jsonl, a line a model, goes on
where an earlier call stopped, and prints a table in Markdown.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.signals import Rows
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.record.schema import Record
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.digits import Digits
from unrecall.training.loop import Fit, Phase, RowsLoss, cross_entropy, fit, loss_on
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import distance, frozen_copy, remembered

REQUESTS = ("share:0.25", "class:3")
KINDS = ("labels", "answers", "adam")
ADAM = Fit(optimizer="adam", lr=0.003, weight_decay=0.0, epochs=25, batch_size=64, schedule="cosine")
FIRST_SEED = 500
"""Of the models here, so that they share it with no retrained model."""


def trained(kind: str, scenario: Scenario, original: nn.Module, seed: int, session: Session) -> nn.Module:
    """A fresh model that learned retain, in one of the ways."""
    recipe, retain = scenario.recipe, scenario.request.retain
    assert recipe is not None
    of = imitating(scenario, original) if kind == "answers" else cross_entropy
    model = scenario.untrained_model(FIRST_SEED + seed, session)
    phase = Phase(loss_on("retain", scenario.task, of), {"retain": retain}, ADAM if kind == "adam" else recipe)
    fit(model, scenario.task, phase, seeded(FIRST_SEED + seed), Session(device="cpu"))
    return model.eval()


def imitating(scenario: Scenario, original: nn.Module) -> RowsLoss:
    """KL(p_0 || p), p_0 what the original answers on retain."""
    answers = remembered(frozen_copy(original), scenario.task, scenario.request.retain)

    def loss(rows: Rows, batch: Batch) -> Tensor:
        return distance(rows, answers(batch))

    return loss


def line(request: str, kind: str, seed: int, beside: Record, alone: Record) -> dict[str, object]:
    """What is kept of both audits of a model."""
    values = {m.name: m.unlearned.value for m in beside.measurements}
    named = ("retain_accuracy", "test_accuracy", "forget_accuracy", "loss_left", "loss_auc", "prototypical_mean")
    outside = [m.name for m in beside.measurements if m.judged and m.verdict in ("leaks", "over-forgets")]
    tested = alone.never_trained
    return {
        "request": request,
        "kind": kind,
        "seed": seed,
        "label": beside.verdict.label,
        "outside": outside,
        "alone": alone.verdict.label,
        "p": None if tested is None else tested.leak,
        **{name: values.get(name) for name in named},
    }


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A Markdown row for each request and kind: labels, rows outside, the largest and the least of some values."""
    named = ("test_accuracy", "loss_left", "prototypical_mean", "p")
    yield (
        "| must go | learned | labels | rows outside | " + " | ".join(named) + " |\n" + "|---" * (4 + len(named)) + "|"
    )
    for request in REQUESTS:
        for kind in KINDS:
            own = [row for row in rows if row["request"] == request and row["kind"] == kind]
            if not own:
                continue
            labels = Counter(str(row["label"]) for row in own)
            outside = Counter(name for row in own for name in row["outside"])
            cells = [request, kind, *(", ".join(f"{k} {n}" for k, n in of.items()) for of in (labels, outside))]
            for name in named:
                values = sorted(float(str(row[name])) for row in own if row[name] is not None)
                cells.append(f"{values[0]:.2f} to {values[-1]:.2f}" if values else "")
            yield f"| {' | '.join(cells)} |"


def main(out: str, seeds: str = "3") -> None:
    torch.set_num_threads(1)
    path, session = Path(out) / "models.jsonl", Session(folder=Path(out) / "parts", device="cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    done = {(row["request"], row["kind"], row["seed"]) for row in rows}
    for request in REQUESTS:
        scenario = Digits(forget=request).make()
        scenario = replace(scenario, request=scenario.request.with_own(control="random split"))
        retrained = [scenario.train_retrained(i, session).model for i in range(scenario.references)]
        for kind, seed in ((kind, seed) for seed in range(int(seeds)) for kind in KINDS):
            if (request, kind, seed) in done:
                continue
            original = scenario.train_original(seed, session).model
            model = trained(kind, scenario, original, seed, session)
            audited = partial(
                audit,
                original=original,
                unlearned=model,
                request=scenario.request,
                task=scenario.task,
                seed=seed,
                session=session,
            )
            beside = audited(retrained=retrained, attacks=suite("quick"))
            alone = audited(attacks=suite("loss"))
            rows.append(line(request, kind, seed, beside, alone))
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
