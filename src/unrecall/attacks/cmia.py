"""Class membership: does a model put a forgotten class among its neighbours as retrained models do?"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn

from unrecall.attacks.base import ARMS
from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import Absent, Examples, Selection, evenly
from unrecall.data.signals import Rows
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Setting
from unrecall.models.observe import in_order
from unrecall.nn.functional import nll
from unrecall.nn.hooks import mode
from unrecall.record import stats
from unrecall.record.schema import Estimate, ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.protocols import Classed, classed
from unrecall.training.ascent import ascend
from unrecall.training.loop import Batches

HALVINGS = 4
"""How often a copy that hides is trained until half as much of forget is right as before."""


class View(NamedTuple):
    """What a model says of some examples: log-probabilities `outputs` [n, K], among the K kept classes alone.

    `targets` [n]: the class of each; `classes` [K]: which classes are kept.
    """

    outputs: np.ndarray
    targets: np.ndarray
    classes: np.ndarray

    def of(self, c: int) -> np.ndarray:
        """The log-probabilities of the examples of a class."""
        return np.asarray(self.outputs[self.targets == c])


@dataclass(frozen=True)
class CMIA(InspectionAttack):
    """Asks on which side of classifiers between two kept classes, fitted on a model's outputs, forgotten ones fall.

        z(x) = log softmax of the logits of the kept classes alone
        a_i  = share of the forgotten class that a linear SVM between class n and class i, fitted on z(x) of
               test examples, gives to n
        gap  = mean over i of |a_i - the mean of a_i over retrained models|

    What lies in the margin of an SVM counts in part: (1 + its decision) / 2, between 0 and 1. n is the neighbour of a
    forgotten class: the kept class that retrained models, on average, find likeliest for it;
    i are the ones that follow. Each model has SVMs of its own. A retrained model never met the class, and puts it among
    its neighbours by likeness; a model that was made to forget it may give it to anyone. The value is the gap on
    forget, 0 for a model that is like retrained ones, with the jackknife's interval over examples; a retrained model's
    is that to the others. The lines are a_i on forget and on the holdout. It is no membership attack on single
    examples, in spite of its name: it tells how a model treats a class, and no arm from the other.

    Args:
        others: classes i, the likeliest first.
        c: the SVMs' penalty.
        most: examples of each class and set, evenly spread.

    Expected to fail: with few retrained models, whose own gaps are wide; with classes that are alike to all others.
    NotSupported where no class is forgotten whole, or fewer than three are kept.

    Reference: Ebrahimpour-Boroojeny, Wang, Sundaram, "Unlearning Isn't Forgetting: Revealing Hidden Leakage in Class
    Unlearning Evaluations", ICML 2026 (before: MIA-NN, arXiv 2506.20893). A reconstruction from its abstract and from
    public reviews of an earlier version, which say: a nearest neighbour by several retrained models, SVMs on logits for
    each class, accuracy on the forgotten class, the gap to retraining. What the SVMs are fitted on, their kernel, how
    the margin counts, and the mean of absolute differences are ours.
    """

    title: ClassVar[str] = "Class membership by neighbours"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the probabilities of all classes",
        data="examples of the forgotten class; test examples of the others with labels; two or more retrained models",
        budget="one query an example; an SVM for each pair of classes",
    )
    needs: ClassVar[tuple[type, ...]] = (Classed,)
    needs_own_rows: ClassVar[bool] = True
    shows: ClassVar[str] = "gap to retrained models beside its neighbours"
    axis: ClassVar[str] = "other class, likeliest first"
    unit: ClassVar[str] = "share given to the neighbour"

    others: Count = 20
    c: Positive = 1.0
    most: Count = 500

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """The gap of one model."""
        return self.inspect_all({"model": model}, setting)["model"]

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """The gap of each subject to retrained models other than itself; every model is asked once."""
        request, retrained = setting.request, setting.models.retrained
        self._check(setting)
        samples = {
            arm: Selection(request[arm], evenly(len(request[arm]), self.most)) for arm in ARMS if len(request[arm])
        }
        views: dict[nn.Module, dict[str, View]] = {}
        for model in dict.fromkeys((*subjects.values(), *retrained)):
            views[model] = {arm: self._view(model, setting, sample) for arm, sample in samples.items()}
            views[model]["test"] = self._view(model, setting, setting.observed.test)
        near = {c: neighbours([views[model]["forget"].of(c) for model in retrained]) for c in request.masked}
        shares = {model: self._shares(of_sets, near) for model, of_sets in views.items()}
        by_model = {}
        for model in dict.fromkeys(subjects.values()):
            peers = [shares[other]["forget"] for other in retrained if other is not model]
            lines = {arm: tuple(np.nanmean(of_arm, 1).tolist()) for arm, of_arm in shares[model].items()}
            x = tuple(float(i) for i in range(1, 1 + len(lines["forget"])))
            by_model[model] = Inspection(x, lines, gap(shares[model]["forget"], peers))
        return {role: by_model[model] for role, model in subjects.items()}

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How otherwise the unlearned model treats the class, beside retrained models."""
        if unlearned.value is None:
            return ""
        sentence = (
            f"Among its neighbours it puts the forgotten class {unlearned.value:.2f} from where retrained models do"
        )
        return beside(sentence, "each of these from the others", reference)

    def disguise(self, setting: Setting) -> nn.Module | None:
        """The original, which takes the forgotten class for the one that it finds least likely for it."""
        self._check(setting)
        copied, task = copy.deepcopy(setting.models.original).eval(), classed(self, setting.task).classified()
        view = self._view(copied, setting, setting.request.forget)
        far = {c: int(view.classes[neighbours([view.of(c)])[-1]]) for c in setting.request.masked}

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            rows = task.rows(model, batches["forget"])
            others = torch.tensor([far[c] for c in rows.targets.tolist()], device=rows.targets.device)
            return nll(rows.logits, others).mean() + task.rows(model, batches["kept"]).losses().mean()

        job, request = replace(setting.job(), task=task), setting.request
        streams = {"forget": request.forget, "kept": request.retain}
        for _ in range(HALVINGS):
            ascend(copied, list(copied.parameters()), job, streams=streams, loss=loss)
        return copied

    def _check(self, setting: Setting) -> None:
        """NotSupported or MissingReference where the request or the retrained models lack what it needs."""
        request = setting.request
        if not request.masked:
            raise NotSupported(f"CMIA: expected a class to forget, got kind='{request.kind}'. Leave it out.")
        if not setting.models.retrained:
            raise MissingReference("CMIA: expected a retrained model to compare with, got none.")
        if isinstance(request.test, Absent):
            raise MissingReference(request.test.reason)

    def _view(self, model: nn.Module, setting: Setting, examples: Examples) -> View:
        """What the model says of the kept classes."""
        task, parts = classed(self, setting.task).classified(), list[Rows]()
        with mode(model, training=False), torch.no_grad():
            parts += [task.rows(model, batch) for batch in in_order(model, task, examples)]
        logits, targets = torch.cat([rows.logits for rows in parts]), torch.cat([rows.targets for rows in parts])
        classes = [c for c in range(logits.shape[1]) if c not in setting.request.masked]
        if len(classes) < 3:
            raise NotSupported(f"CMIA: expected three classes or more besides the forgotten, got {len(classes)}.")
        outputs = torch.log_softmax(logits[:, classes].double(), 1)
        return View(outputs.cpu().numpy(), targets.cpu().numpy(), np.array(classes))

    def _some_of(self, view: View, c: int) -> np.ndarray:
        """Up to `most` of a class's outputs, evenly spread, `[examples, kept]`."""
        outputs = view.of(c)
        return outputs[list(evenly(len(outputs), self.most))]

    def _shares(self, views: Mapping[str, View], near: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        """For each arm, which of its examples each SVM gives to the neighbour, `[SVMs, examples]`."""
        test, shares = views["test"], {arm: list[np.ndarray]() for arm in views if arm != "test"}
        for c, order in near.items():
            members = self._some_of(test, test.classes[order[0]])
            for other in order[1 : 1 + self.others]:
                strangers = self._some_of(test, test.classes[other])
                if not len(members) or not len(strangers):
                    raise NotSupported("CMIA: expected test examples of every class that is kept, got none of one.")
                svm = SVC(C=self.c, kernel="linear", class_weight="balanced", random_state=0)
                svm.fit(np.concatenate([members, strangers]), np.repeat([1, 0], [len(members), len(strangers)]))
                for arm, of_arm in shares.items():
                    sides = np.clip((1 + svm.decision_function(views[arm].outputs)) / 2, 0, 1)
                    of_arm.append(np.where(views[arm].targets == c, sides, np.nan))
        return {arm: np.stack(parts) for arm, parts in shares.items()}


def neighbours(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The kept classes in the order in which models find them likely, `[kept]`: by the mean probability over all.

    `outputs`: log-probabilities `[examples, kept]`, of each model.
    """
    return np.argsort(-np.exp(np.stack(outputs)).mean((0, 1)), kind="stable")


def gap(own: np.ndarray, others: Sequence[np.ndarray]) -> Estimate:
    """How far the shares that SVMs give lie from those of other models, with the jackknife's interval over examples.

    `own` and each of `others` `[SVMs, examples]`, nan for examples that an SVM isn't asked about.
    """
    if not others:
        return Estimate(value=None, note="needs a retrained model other than itself")
    beyond = own - np.mean(others, axis=0)
    n, asked = beyond.shape[1], np.isfinite(beyond)
    totals, counts = np.nansum(beyond, 1, keepdims=True), asked.sum(1, keepdims=True)
    value = float(np.abs(totals / counts).mean())
    if n < 2 or bool((counts < 2).any()):
        return Estimate(value=value, n=n, note="too few examples for an interval")
    without = (totals - np.where(asked, beyond, 0)) / (counts - asked)
    estimate = stats.left_out(value, np.abs(without).mean(0))
    return estimate.model_copy(update={"low": max(0.0, estimate.low or 0.0), "high": min(1.0, estimate.high or 1.0)})
