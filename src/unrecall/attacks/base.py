"""What an attack promises: scores, or an attacked model. It never judges itself: the harness measures all models alike.

Every attack is run in the same way, with the same draws, on the original, the unlearned and each retrained model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from unrecall.observe import observe
from unrecall.parameters import Parameters
from unrecall.records import Estimate, Side, ThreatModel
from unrecall.session import Session
from unrecall.tasks.base import Task
from unrecall.types import Evidence, Examples, Request, Split


@dataclass(frozen=True)
class Attack(Parameters, ABC):
    """Base of all attacks; a leaf is a frozen dataclass whose defaults are the paper's.

    `named_by`: the parameters that stand in its name where they differ from their defaults, so that an audit can hold
    it more than once; its choices (texts) always do.
    """

    title: ClassVar[str]
    threat: ClassVar[ThreatModel]
    named_by: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class MembershipAttack(Attack):
    """Tells examples that were trained on from examples that were not, by what one model said about them."""

    def look(
        self, model: nn.Module, request: Request, task: Task, generator: torch.Generator
    ) -> Mapping[Split, np.ndarray]:
        """What the attack needs beyond the one forward pass that all share: an array `[n, ...]` a split.

        `score` finds it in `evidence.looked`. `generator` starts from the same seed for every model.
        """
        return {}

    @abstractmethod
    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """One score per example of `split` `[n]`; higher means "was trained on".

        Raises MissingReference where it needs more retrained models than the evidence holds.
        """


class Attacked(NamedTuple):
    """What the attacker has after spending `budget`: a model, and the examples on which success is measured.

    `probe` shares nothing with what the attacker used, unless the attack's docstring says so. `variant` names the
    attacker's choice (a learning rate, say); the harness reports the worst over variants at each budget.
    """

    budget: float
    model: nn.Module
    probe: Examples
    variant: str = ""


class Success(NamedTuple):
    """What an attacked model shows of a probe: `shown` in [0, 1] for each example, and its mean loss in nats."""

    shown: np.ndarray
    loss: float


@dataclass(frozen=True)
class RecoveryAttack(Attack):
    """Tries to bring the forgotten back; yields what it has at each budget, smallest first within a variant.

    `axis`: what the budget counts. `needs_class`: works on class requests only.
    """

    axis: ClassVar[str]
    needs_class: ClassVar[bool] = False

    @abstractmethod
    def probe(self, request: Request, generator: torch.Generator) -> Examples:
        """The examples on which success will be measured; the harness also measures them before the attack."""

    def success(self, model: nn.Module, task: Task, probe: Examples) -> Success:
        """How much of the probe the model shows: the share of rows predicted right, unless an attack says otherwise."""
        seen = observe(model, task, probe)
        return Success(seen.correct, float(seen.loss.mean()))

    @abstractmethod
    def recover(
        self,
        model: nn.Module,
        original: nn.Module,
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session,
    ) -> Iterator[Attacked]:
        """Attacks a copy of `model`, which is left as it was. A yielded model may change once the next is asked for.

        `generator` starts from the same seed for `probe` and for every model. `original` is there for attacks whose
        goal is the original model's behaviour. Raises NotSupported where the model or task lacks what it attacks.
        """


class Recognition(NamedTuple):
    """How often models recognised perturbed forget examples: counts out of `draws`.

    `subject` [radii, examples]; `references` [references, radii, examples], on the very same perturbed inputs.
    """

    radii: tuple[float, ...]
    draws: int
    subject: np.ndarray
    references: np.ndarray


@dataclass(frozen=True)
class RecognitionAttack(Attack):
    """Perturbs forget examples and counts how often each model still recognises them."""

    @abstractmethod
    def recognise(
        self,
        subjects: Mapping[str, nn.Module],
        references: Mapping[str, nn.Module],
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session,
    ) -> dict[str, Recognition]:
        """Counts for each subject by role, against all references but the one of the same role."""


class Inspection(NamedTuple):
    """What lies inside one model: lines over `x` by name, and the one number that sums them up."""

    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]
    value: Estimate


@dataclass(frozen=True)
class InspectionAttack(Attack):
    """Opens a model and looks for what its outputs no longer show.

    `axis` and `unit`: what x and y of its lines are. `leak`: the side of a retrained model's value on which the
    forgotten shows.
    """

    axis: ClassVar[str]
    unit: ClassVar[str]
    leak: ClassVar[Side | None] = "above"

    @abstractmethod
    def inspect(self, model: nn.Module, original: nn.Module, request: Request, task: Task) -> Inspection:
        """Looks into `model`; `original` is there for what changed. NotSupported where the model has no such parts."""

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """One plain sentence about the unlearned model, for people; empty where there is nothing to say."""
        return ""


__all__ = [
    "Attack",
    "Attacked",
    "Inspection",
    "InspectionAttack",
    "MembershipAttack",
    "Recognition",
    "RecognitionAttack",
    "RecoveryAttack",
    "Success",
]
