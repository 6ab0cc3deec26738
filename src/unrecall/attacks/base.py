"""What an attack promises: scores, or an attacked model. It never judges itself: the harness measures all models alike.

Every attack is run in the same way, with the same draws, on the original, the unlearned and each retrained model.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Examples, move
from unrecall.data.request import Request, Split
from unrecall.data.signals import Evidence
from unrecall.errors import Diverged, NotSupported
from unrecall.models.observe import accuracy, device_of, observe
from unrecall.nn.hooks import frozen
from unrecall.record.schema import Estimate, Side, ThreatModel
from unrecall.spec.parameters import Parameters
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import unmixed
from unrecall.training.loop import Batches, Fit, Phase, Step, fit, plain_step
from unrecall.training.session import Session


@dataclass(frozen=True)
class Attack(Parameters, ABC):
    """Base of all attacks; a leaf is a frozen dataclass whose defaults are the paper's.

    `named_by`: the parameters that stand in its name where they differ from their defaults, so that an audit can hold
    it more than once; its choices (texts) always do. `unmixed`: whether it copies, perturbs or sorts examples by
    class, which tells something only where their rows depend on no other example.
    """

    title: ClassVar[str]
    threat: ClassVar[ThreatModel]
    named_by: ClassVar[tuple[str, ...]] = ()
    unmixed: ClassVar[bool] = False

    def seen(self, task: Task) -> Task:
        """The task in the form that this attack needs; NotSupported where there is none."""
        return unmixed(task) if self.unmixed else task


@dataclass(frozen=True)
class MembershipAttack(Attack):
    """Tells examples that were trained on from examples that were not, by what one model said about them."""

    inflation: ClassVar[float] = 1.0
    """By how much the variance of its AUC exceeds DeLong's, which takes scores to be independent."""

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
    attacker's choice (a learning rate, say); the harness reports the worst over variants at each budget. In place of a
    model that is no longer `useful` the attacker keeps what the same variant had before.
    """

    budget: float
    model: nn.Module
    probe: Examples
    variant: str = ""
    useful: bool = True


class Success(NamedTuple):
    """What an attacked model shows of a probe: `shown` in [0, 1] for each example, and its mean loss in nats.

    The loss is nan where nothing asks for it: what a model writes is read without a pass over the true answers.
    """

    shown: np.ndarray
    loss: float = math.nan


@dataclass(frozen=True)
class RecoveryAttack(Attack):
    """Tries to bring the forgotten back; yields what it has at each budget, smallest first within a variant.

    `axis`: what the budget counts. `measure`: what `success` is called. `needs_class`: works on class requests only.
    `cumulative`: whether the attacker who spends more keeps what less brought, where that was better.
    """

    axis: ClassVar[str]
    measure: ClassVar[str] = "accuracy"
    needs_class: ClassVar[bool] = False
    cumulative: ClassVar[bool] = False

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

    def disguise(
        self, original: nn.Module, request: Request, task: Task, generator: torch.Generator, session: Session
    ) -> nn.Module | None:
        """A copy of the original that only looks forgetful, in a way that this attack must be able to undo.

        What it knows is all there behind one part that is wrong: each row of its head has moved on to the next class;
        where the last block is no such head alone (that of language models has a norm, and may be the embeddings too;
        dual encoders have none), gradient ascent on forget has moved that block.
        None where there is nothing to undo: the original itself must then show what it knows when it is attacked.
        """
        copied = copy.deepcopy(original).eval()
        last, head = task.blocks(copied)[-1][1], None
        with suppress(NotSupported):
            head = task.head(copied, move(task.collate([request.forget[0]]), device_of(copied)))
        if head is None or last != [head]:
            ascend(copied, [p for part in last for p in part.parameters()], request.forget, task, generator, session)
            return copied
        with torch.no_grad():
            for p in head.parameters():
                p.copy_(p.roll(1, 0))
        return copied

    def control(self, request: Request) -> tuple[str, RecoveryAttack] | None:
        """A split on which this attack must bring back nothing, and the attack on it, drawn beside the others."""
        return None


def ascend(
    model: nn.Module,
    moved: Sequence[nn.Parameter],
    forget: Examples,
    task: Task,
    generator: torch.Generator,
    session: Session,
    step: Step = plain_step,
) -> None:
    """Gradient ascent on forget, in place, by these weights alone, until half of what was predicted right is wrong.

    AdamW at 1 % of the weights' root mean square, at most 200 steps of 32 examples; looks every 5 of them.
    """
    squares = sum(float(p.detach().float().square().sum()) for p in moved)
    recipe = Fit(
        optimizer="adamw",
        lr=0.01 * (squares / sum(p.numel() for p in moved)) ** 0.5,
        weight_decay=0.0,
        batch_size=32,
        epochs=200,
        steps=200,
        until=0.5 * float(accuracy(model, task, forget).mean()),
        check_every=5,
    )

    def loss(moving: nn.Module, drawn: Batches) -> Tensor:
        return -task.rows(moving, drawn["forget"]).losses().mean()

    with frozen(model), suppress(Diverged):
        for p in moved:
            p.requires_grad_(True)
        phase = Phase(loss, {"forget": forget}, recipe, step)
        fit(model, task, phase, generator, replace(session, folder=None, show=False), "disguise")


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

    unmixed: ClassVar[bool] = True

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
    """What lies inside one model: lines over `x` by name, and the one number that sums them up.

    A model with nothing to draw has an empty `x`, and its value says why.
    """

    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]
    value: Estimate


@dataclass(frozen=True)
class InspectionAttack(Attack):
    """Opens a model and looks for what its outputs no longer show.

    `shows`: what its value is. `axis` and `unit`: what x and y of its lines are.
    """

    shows: ClassVar[str]
    axis: ClassVar[str]
    unit: ClassVar[str]

    @property
    def leak(self) -> Side | None:
        """The side of a retrained model's value on which the forgotten shows."""
        return "above"

    @abstractmethod
    def inspect(self, model: nn.Module, original: nn.Module, request: Request, task: Task) -> Inspection:
        """Looks into `model`; `original` is there for what changed. NotSupported where the model has no such parts."""

    def inspect_all(
        self,
        subjects: Mapping[str, nn.Module],
        original: nn.Module,
        retrained: Sequence[nn.Module],
        request: Request,
        task: Task,
    ) -> dict[str, Inspection]:
        """Looks into each subject, by role, and into a model with several roles once.

        For attacks that hold models against the `retrained` ones, or against what they saw in one once for all.
        """
        found = {one: self.inspect(one, original, request, task) for one in dict.fromkeys(subjects.values())}
        return {role: found[one] for role, one in subjects.items()}

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
    "ascend",
]
