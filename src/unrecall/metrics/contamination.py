"""Knowledge contamination: which classes lost accuracy when another was forgotten, and which gained.

Arrays over n examples hold numbers of classes: `target`, the true ones; `prediction`, those that a model predicts;
`before` and `after`, those that the original and another model predict. `classes` says which classes there are, in the
order of rows and columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from unrecall.data.examples import Absent
from unrecall.data.request import Request, Split
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.scores import mean_of_defined
from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric
from unrecall.models.observe import unseen
from unrecall.nn.waiting import ask_for
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Matrix
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed, Paired, class_names, offers, paired

WORST = Row("contamination_worst", "Largest accuracy drop of a class that stays", "utility")
MOST = 20
"""Classes that a table shows at most."""
FEWEST = 10
"""Examples of a class below which its accuracy is not looked at alone."""


class Predictions(NamedTuple):
    """True class and prediction of each example, `[n]` both."""

    target: np.ndarray
    prediction: np.ndarray


def measure(setting: Setting) -> Measured:
    """Which class that stays lost most accuracy, and every model's predictions on test and holdout, class by class.

    A row with a reason where there are no classes.

    Reference: Shin, Tapia, Diaz, Jeon, Ferreira, Daneshyari, "ROKA: Robust Knowledge Unlearning against Adversaries",
    2026, arXiv 2603.00436, from notes: the harm that unlearning does to classes that share weights with the forgotten
    one. The formulas are ours.
    """
    request, task = setting.request, setting.task
    try:
        by_role = predictions(setting)
    except (NotSupported, MissingReference, BadInput) as reason:
        return Measured([WORST.absent(str(reason))])
    target, before = by_role["original"]
    classes = sorted({int(c) for pair in by_role.values() for column in pair for c in np.unique(column)})
    names, forgotten = class_names(task), _forgotten(request, task)
    table = Table(
        classes,
        {c: names[c] if 0 <= c < len(names) else f"class {c}" for c in classes},
        forgotten,
        target,
        " and ".join(unseen(request)),
    )
    staying = [c for c in classes if c not in forgotten]
    values: dict[str, Estimate] = {}
    for role, pair in by_role.items():
        worst, drop = worst_drop(target, before, pair.prediction, staying, FEWEST)
        values[role] = drop.model_copy(update={"note": table.names.get(worst, drop.note)})
    if values["original"].value is not None:
        values["original"] = Estimate(value=0.0, n=len(target), note="by definition")
    rare = sum((target == c).sum() < FEWEST for c in staying)
    note = f"without {rare} of {len(staying)} classes, which have fewer than {FEWEST} examples"
    tables = {role: confusion(target, pair.prediction, classes) for role, pair in by_role.items()}
    return Measured([WORST.measured(values, note if 0 < rare < len(staying) else "")], matrices=[table.matrix(tables)])


def _forgotten(request: Request, task: Task) -> set[int]:
    """The classes that are forgotten whole, be it as classes or as a concept."""
    if request.kind != "concept" or not offers(task, Paired):
        return set(request.masked)
    pairs = paired("contamination", task)
    forget, retain = (set(pairs.labels(request[split]).tolist()) for split in ("forget", "retain"))
    return forget - retain


def predictions(setting: Setting) -> dict[str, Predictions]:
    """The class that each model predicts for each example of test and holdout, by role; from the pass that all share.

    The class of a pair is the prompt that its first side is nearest to. NotSupported for a task without classes,
    MissingReference where there is neither test nor holdout.
    """
    request, task = setting.request, setting.task
    if not isinstance(task, Classed):
        raise NotSupported("the examples of this task have no classes")
    classified, outside = task.classified(), unseen(request)
    splits = [split for split in outside if len(request[split])]
    if not splits:
        raise MissingReference("; ".join(part.reason for s in outside if isinstance(part := request[s], Absent)))
    if offers(task, Paired):
        return _nearest_prompts(setting, splits)
    if classified is not task:
        raise NotSupported(f"expected a task that classifies its own examples, got {type(task).__name__}")
    return {
        role: Predictions(*(_joined(evidence, splits, n) for n in Predictions._fields))
        for role, evidence in setting.evidence.items()
    }


def _nearest_prompts(setting: Setting, splits: Sequence[Split]) -> dict[str, Predictions]:
    """The class of each pair's nearest prompt, by role."""
    task = paired("contamination", setting.task)
    labels = torch.cat([task.labels(setting.observed[split]) for split in splits])
    if bool(labels.lt(0).any()):
        raise NotSupported("some pairs have no class")
    by_role = {}
    for role, model in setting.subjects:
        prompts = task.prompts(ask_for(model))
        assert prompts is not None, "a task that classifies has prompts"
        features = _joined(setting.evidence[role], splits, "features")
        first = task.sides(torch.from_numpy(features).to(prompts.device)).first
        by_role[role] = Predictions(labels.numpy(), (first @ prompts.T).argmax(1).cpu().numpy())
    return by_role


def _joined(evidence: Evidence, splits: Sequence[Split], name: str) -> np.ndarray:
    """One of the signals on several splits, one after another."""
    return np.concatenate([getattr(evidence.signals[split], name) for split in splits])


@dataclass(frozen=True)
class Table:
    """What the tables of all models share.

    `classes`: the numbers of rows and columns; `names` of them; `forgotten`: those forgotten whole; `target` [n]: the
    true class of each example; `splits`: where the examples are from.
    """

    classes: Sequence[int]
    names: Mapping[int, str]
    forgotten: set[int]
    target: np.ndarray
    splits: str

    def matrix(self, by_role: Mapping[str, np.ndarray]) -> Matrix:
        """The tables of original, unlearned and, on average, retrained models, of the classes that changed most.

        What a class with few examples paid is left out, as it is in the row beside.
        """
        shown = {"original": by_role["original"], "unlearned": by_role["unlearned"]}
        references = [table for role, table in by_role.items() if role.startswith("retrained")]
        if references:
            shown["retrained"] = np.mean(references, axis=0)
        change = np.abs(np.nan_to_num(shown["unlearned"] - shown["original"]))
        order = np.argsort(-(change.sum(0) + change.sum(1)), kind="stable")
        top, before = np.sort(order[:MOST]), shown["original"]
        few = np.array([(self.target == c).sum() < FEWEST for c in self.classes])
        later = {role: table for role, table in shown.items() if role != "original"}
        return Matrix(
            name="contamination",
            title="Changes class by class",
            labels=[self.names[self.classes[i]] for i in top],
            forgotten=[k for k, i in enumerate(top.tolist()) if self.classes[i] in self.forgotten],
            values={role: [_plain(row) for row in table[np.ix_(top, top)]] for role, table in shown.items()},
            paid={role: _plain(np.where(few, np.nan, paid(before, table))[top]) for role, table in later.items()},
            gained={role: _plain(gained(before, table)[top]) for role, table in later.items()},
            note=self._note(top, before),
        )

    def _note(self, top: np.ndarray, before: np.ndarray) -> str:
        note = f"{len(self.target):,} examples of {self.splits}, on which no model was trained."
        if len(self.classes) > MOST:
            note += f" The {MOST} of {len(self.classes)} classes that changed most; a row need not sum to 1."
        if empty := [self.names[self.classes[i]] for i in top if np.isnan(before[i]).all()]:
            note += f" No examples: {', '.join(empty)}."
        return note


def _plain(values: np.ndarray) -> list[float | None]:
    """The values rounded to six digits, for JSON; None for nan."""
    return [None if np.isnan(v) else round(float(v), 6) for v in values]


def confusion(target: np.ndarray, prediction: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Share of the examples of class i that are predicted as j, `[classes, classes]`; nan where i has no examples.

    `classes` are in rising order, and all that occur are among them.
    """
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (np.searchsorted(classes, target), np.searchsorted(classes, prediction)), 1)
    total = counts.sum(1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0))


def paid(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far the accuracy of each class fell, `[classes]`, from two tables of `confusion`; nan without examples."""
    return np.asarray(before.diagonal() - after.diagonal())


def gained(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much more of the others is predicted as each class, `[classes]`: the mean over other classes with examples.

    From two tables of `confusion`; nan where no other class has examples.
    """
    change = after - before
    np.fill_diagonal(change, np.nan)
    return mean_of_defined(change, axis=0)


def worst_drop(
    target: np.ndarray, before: np.ndarray, after: np.ndarray, classes: Iterable[int], fewest: int = 10
) -> tuple[int, Estimate]:
    """The class among `classes` whose accuracy fell most, and by what share of its examples.

    Classes with fewer than `fewest` examples are left out; class -1 and no value where none is left. The interval is
    Student's over the class's examples, each right or wrong before and after; it takes the choice of class as given.
    """
    drops = {c: np.subtract(before[target == c] == c, after[target == c] == c, dtype=np.float64) for c in classes}
    drops = {c: drop for c, drop in drops.items() if len(drop) >= fewest}
    if not drops:
        return -1, Estimate(value=None, note=f"no class that stays has {fewest} examples of test and holdout")
    worst = max(drops, key=lambda c: float(drops[c].mean()))
    return worst, stats.difference(drops[worst])


CONTAMINATION = Metric("contamination", (WORST,), measure)
