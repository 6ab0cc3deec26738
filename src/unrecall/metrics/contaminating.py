"""Which classes paid and which gained when something was forgotten, for every model, on examples never trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrecall.data.examples import Absent
from unrecall.data.request import Request, Split
from unrecall.data.signals import Evidence
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.harness.findings import Models, lay_out
from unrecall.metrics.contamination import confusion, gained, paid, worst_drop
from unrecall.models.observe import unseen
from unrecall.record.schema import Estimate, Matrix, Measurement
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed, Paired

MOST = 20
"""Classes that a table shows at most."""
FEWEST = 10
"""Examples of a class below which its accuracy is not looked at alone."""


class Contamination(NamedTuple):
    """The largest drop of a class that stays, and the tables behind it."""

    measurements: list[Measurement]
    matrices: list[Matrix]


class Answers(NamedTuple):
    """True class and prediction of each example, `[n]` both."""

    target: np.ndarray
    prediction: np.ndarray


def contamination(models: Models, seen: Mapping[str, Evidence], request: Request, task: Task) -> Contamination:
    """Every model's predictions on test and holdout, class by class; a row with a reason where there are no classes."""
    try:
        answers = answered(models, seen, request, task)
    except (NotSupported, MissingReference, BadInput) as reason:
        none = Estimate(value=None, note=str(reason))
        return Contamination([_row(dict.fromkeys(("original", "unlearned", "null"), none))], [])
    target = answers["original"].target
    known = sorted({int(c) for one in answers.values() for both in one for c in np.unique(both)})
    names = _names(task, known)
    gone = _gone(request, task)
    kept = [c for c in known if c not in gone]
    drops = {
        role: worst_drop(target, answers["original"].prediction, one.prediction, kept, FEWEST)
        for role, one in answers.items()
    }
    values = {role: drop.model_copy(update={"note": names.get(c, drop.note)}) for role, (c, drop) in drops.items()}
    if values["original"].value is not None:
        values["original"] = Estimate(value=0.0, n=len(target), note="by definition")
    tables = {role: confusion(target, one.prediction, known) for role, one in answers.items()}
    rare = sum((target == c).sum() < FEWEST for c in kept)
    note = (
        f"without {rare} of {len(kept)} classes, which have fewer than {FEWEST} examples"
        if 0 < rare < len(kept)
        else ""
    )
    return Contamination([_row(values, note)], [_matrix(tables, known, names, request, gone, target)])


def _gone(request: Request, task: Task) -> set[int]:
    """The classes that are forgotten whole, be it as classes or as a concept."""
    if request.kind != "concept" or not isinstance(task, Paired):
        return set(request.masked)
    mine, kept = (set(task.labels(request[split]).tolist()) for split in ("forget", "retain"))
    return mine - kept


def answered(models: Models, seen: Mapping[str, Evidence], request: Request, task: Task) -> dict[str, Answers]:
    """What each model answers on test and holdout, one class an example, by role; from the pass that all share.

    NotSupported for a task without classes, MissingReference where there is neither test nor holdout.
    """
    if not isinstance(task, Classed):
        raise NotSupported("the examples of this task have no classes")
    own = task.classified()
    splits = [split for split in unseen(request) if len(request[split])]
    if not splits:
        raise MissingReference("; ".join(one.reason for s in unseen(request) if isinstance(one := request[s], Absent)))
    if isinstance(task, Paired):
        return _by_prompts(models, seen, torch.cat([task.labels(request[split]) for split in splits]), splits, task)
    if own is not task:
        raise NotSupported(f"expected a task that classifies its own examples, got {type(task).__name__}")
    return {
        role: Answers(*(np.concatenate([getattr(one.signals[s], name) for s in splits]) for name in Answers._fields))
        for role, one in seen.items()
    }


def _by_prompts(
    models: Models, seen: Mapping[str, Evidence], labels: Tensor, splits: Sequence[Split], task: Paired
) -> dict[str, Answers]:
    """The class of a pair is the prompt that its first side is nearest to."""
    if bool(labels.lt(0).any()):
        raise NotSupported("some pairs have no class")
    found = {}
    for role, model in models.by_role().items():
        prompts = task.prompts(model)
        assert prompts is not None, "a task that classifies has prompts"
        features = np.concatenate([seen[role].signals[split].features for split in splits])
        first = task.sides(torch.from_numpy(features).to(prompts.device)).first
        found[role] = Answers(labels.numpy(), (first @ prompts.T).argmax(1).cpu().numpy())
    return found


def _names(task: Task, classes: Sequence[int]) -> dict[int, str]:
    """What people call each class."""
    known = task.classes if isinstance(task, Classed) else ()
    return {c: known[c] if 0 <= c < len(known) else f"class {c}" for c in classes}


def _row(values: Mapping[str, Estimate], note: str = "") -> Measurement:
    title = "Largest accuracy drop of a class that stays"
    return lay_out("contamination_worst", title, "utility", values, note=note)


def _matrix(
    tables: Mapping[str, np.ndarray],
    classes: Sequence[int],
    names: Mapping[int, str],
    request: Request,
    gone: set[int],
    target: np.ndarray,
) -> Matrix:
    """The tables of original, unlearned and, on average, retrained models, of the classes that changed most.

    What a class with few examples paid is left out, as it is in the row beside.
    """
    shown = {"original": tables["original"], "unlearned": tables["unlearned"]}
    references = [table for role, table in tables.items() if role.startswith("retrained")]
    if references:
        shown["retrained"] = np.mean(references, axis=0)
    change = np.abs(np.nan_to_num(shown["unlearned"] - shown["original"]))
    order = np.argsort(-(change.sum(0) + change.sum(1)), kind="stable")
    top = np.sort(order[:MOST])
    before = shown["original"]
    note = f"{len(target):,} examples of {' and '.join(unseen(request))}, on which no model was trained."
    if len(classes) > MOST:
        note += f" The {MOST} of {len(classes)} classes that changed most; a row need not sum to 1."
    if empty := [names[classes[i]] for i in top if np.isnan(before[i]).all()]:
        note += f" No examples: {', '.join(empty)}."
    few = np.array([(target == c).sum() < FEWEST for c in classes])
    later = {role: table for role, table in shown.items() if role != "original"}
    return Matrix(
        name="contamination",
        title="Who paid, who gained",
        labels=[names[classes[i]] for i in top],
        forgotten=[k for k, i in enumerate(top.tolist()) if classes[i] in gone],
        values={role: [_plain(row) for row in table[np.ix_(top, top)]] for role, table in shown.items()},
        paid={role: _plain(np.where(few, np.nan, paid(before, table))[top]) for role, table in later.items()},
        gained={role: _plain(gained(before, table)[top]) for role, table in later.items()},
        note=note,
    )


def _plain(values: np.ndarray) -> list[float | None]:
    """Six digits of each; None for nan."""
    return [None if np.isnan(v) else round(float(v), 6) for v in values]
