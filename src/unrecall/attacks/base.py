"""What an attack promises: scores. It never judges itself: the harness lays all models side by side.

Every attack is run in the same way, with the same draws, on the original, the unlearned and each retrained model.
There are three kinds: scored attacks say how much a model shows of each example; inspections (attacks/inspection.py)
look inside a model; deletion attacks (attacks/deletion.py) ask the method itself for deletions.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Absent, Examples, iterate
from unrecall.data.request import Request, Split
from unrecall.data.signals import Signals
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.scores import Point, Scores
from unrecall.evidence.setting import Setting, Subject
from unrecall.models.observe import observe
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Parameters
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Textual, check_offers, textual, with_own_rows
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.ascent import ascend, head_of, last_used
from unrecall.training.copies import own_copy
from unrecall.training.job import Job

AttackKind: TypeAlias = Literal["scored", "inspection", "deletion"]
ScoreReading: TypeAlias = Literal["membership", "recovery", "time", "recognition"]
"""How scores become figures: both arms apart, shown over the budget, budget until shown, or beside retrained models."""
ARMS: tuple[Split, ...] = ("forget", "holdout")
"""The splits that a membership attack scores: members and non-members."""


@dataclass(frozen=True)
class Attack(Parameters, ABC):
    """Base of all attacks; a leaf is a frozen dataclass whose defaults are the paper's."""

    title: ClassVar[str]
    threat: ClassVar[ThreatModel]
    kind: ClassVar[AttackKind]
    needs: ClassVar[tuple[type, ...]] = ()
    """The protocols that a task must offer."""
    needs_own_rows: ClassVar[bool] = False
    """Whether it copies, perturbs or sorts examples, and so needs rows that depend on one example each."""
    judged: ClassVar[str] = ""
    """How the name of the measurement that a verdict rests on ends, while named parameters are at their defaults."""
    named_by: ClassVar[tuple[str, ...]] = ()
    """The parameters that its name shows where they differ from their defaults, so that an audit can hold it more than
    once; its choices (texts) always do."""

    @final
    def adapted(self, task: Task) -> Task:
        """The task in the form that this attack needs; NotSupported where there is none."""
        check_offers(self, task, *self.needs)
        return with_own_rows(task) if self.needs_own_rows else task


@dataclass(frozen=True)
class ScoredAttack(Attack):
    """Says of each example in question how much a model still shows of it, after each budget."""

    kind: ClassVar[AttackKind] = "scored"
    reading: ClassVar[ScoreReading]
    """How the harness makes figures of the scores."""
    needs_class: ClassVar[bool] = False
    """Whether it works on class requests only."""
    compares: ClassVar[bool] = False
    """Whether scores depend on retrained models."""
    blind: ClassVar[bool] = True
    """Whether scores ignore which examples are of forget and which of holdout; a verdict rests on such attacks only."""
    retested: ClassVar[bool] = False
    """Whether it is scored on the very examples that it was taught with."""
    paired: ClassVar[bool] = False
    """Whether it scores only as many holdout examples as forget has; holdout then serves the negative control alone."""

    @property
    def dose(self) -> Dose:
        """From which arm the attack is taught; what teaches nothing is the same either way."""
        return "forget"

    def teaches(self, n: int, request: Request) -> int:
        """With how many of `n` examples in question the attack is taught; NotSupported where there are too few."""
        return 0

    @abstractmethod
    def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:
        """How much the subject shows of each tested example of the pool; the subject's model is left as it was.

        Raises NotSupported where the model or the task lacks what is attacked, MissingReference where the attack needs
        retrained models or a split that the setting doesn't have.
        """


@dataclass(frozen=True)
class MembershipAttack(ScoredAttack):
    """Tells examples that were trained on from examples that were not, by what one model said about them."""

    reading: ClassVar[ScoreReading] = "membership"
    compares: ClassVar[bool] = True
    inflation: ClassVar[float] = 1.0
    """By how much the variance of its AUC exceeds DeLong's, which takes scores to be independent."""
    learns_arms: ClassVar[bool] = False
    """Whether it is fitted to tell forget from holdout, so that an AUC below one half is chance and tells nothing."""

    def extra_signals(self, model: nn.Module, job: Job) -> Mapping[Split, np.ndarray]:
        """What the attack needs beyond the one forward pass that all share: an array `[n, ...]` a split.

        `score` finds it in `evidence.extra`. The job's generator starts from the same seed for every model.
        """
        return {}

    @abstractmethod
    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """One score per example of `split` `[n]`; higher means "was trained on".

        Raises MissingReference where it needs more retrained models than the evidence holds.
        """

    @final
    def score_each(self, evidence: Evidence, split: Split) -> np.ndarray:
        """What `score` gives, as an array; NotSupported unless that is a number for each example of the split."""
        return score_array(self, self.score(evidence, split), len(evidence.signals[split].loss), f"{split} example")

    @final
    def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:
        """One point: the scores of forget, then those of holdout."""
        evidence = self.evidence(subject, setting)
        shown = tuple(self.score_each(evidence, arm) for arm in ARMS)
        return Scores.of([Point(0.0, "", shown, (math.nan, math.nan))])

    @final
    def evidence(self, subject: Subject, setting: Setting) -> Evidence:
        """What the subject showed, with what this attack looked at beyond that."""
        return setting.with_extra(subject, self.extra_signals, (repr(self), str(setting.seed)))

    def extra_of(self, evidence: Evidence, split: Split) -> np.ndarray:
        """What `extra_signals` gave for forget or holdout; NotSupported for a split that it gave nothing for."""
        if split not in ARMS or split not in evidence.extra:
            name = type(self).__name__
            raise NotSupported(f"{name}: expected forget or holdout, looked at before, got {split!r}. Score those.")
        return evidence.extra[split]

    def outsiders(self, evidence: Evidence, split: Split, least: int = 1) -> tuple[Mapping[Split, Signals], ...]:
        """What models said that never saw the split; NotSupported for retain, MissingReference below `least` models."""
        name, k = type(self).__name__, len(evidence.references)
        if split == "retain":
            raise NotSupported(f"{name}: expected examples that no reference was trained on, got retain. Score others.")
        if k < least:
            wanted = "1 retrained model" if least == 1 else f"{least} retrained models"
            raise MissingReference(f"{name}: expected at least {wanted} besides the subject, got {k or 'none'}.")
        return evidence.references


def score_array(attack: Attack, scores: Any, count: int, what: str) -> np.ndarray:
    """The scores that an attack gave, as an array `[count]`; NotSupported unless that is one number for each `what`."""
    array = np.asarray(scores.detach().double().cpu()) if isinstance(scores, Tensor) else scores
    with suppress(ValueError):  # lists of unequal length
        array = np.asarray(array)
    numbers = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
    if numbers and array.shape == (count,):
        return np.asarray(array)
    got = f"shape {array.shape}" if numbers else type(scores).__name__
    raise NotSupported(
        f"{type(attack).__name__}: expected {count} scores, one number for each {what}, got {got}. Return an array of "
        f"shape ({count},)."
    )


def one_query(access: str) -> ThreatModel:
    """The attacker who asks the model once about each example, and holds nothing else."""
    return ThreatModel(access=access, data="the examples in question and their labels", budget="one query an example")


def both_arms(request: Request) -> dict[Split, Examples]:
    """Forget and holdout; MissingReference, with the reason, where there is no holdout."""
    if isinstance(request.holdout, Absent):
        raise MissingReference(request.holdout.reason)
    return {split: request[split] for split in ARMS}


class Attacked(NamedTuple):
    """What the attacker has after spending `budget`: a model, and the tested sets as that model is shown them.

    `variant` names the attacker's choice (a learning rate, say); the harness reports the worst over variants at each
    budget. In place of a model that is no longer `useful` the attacker keeps what the same variant had before.
    """

    budget: float
    model: nn.Module
    tested: tuple[Examples, ...]
    variant: str = ""
    useful: bool = True


class Success(NamedTuple):
    """What an attacked model shows of examples: `shown` in [0, 1] for each, and its mean loss in nats.

    The loss is nan where nothing asks for it: what a model writes is read without a pass over the true answers.
    """

    shown: np.ndarray
    loss: float = math.nan


@dataclass(frozen=True)
class RecoveryAttack(ScoredAttack):
    """Tries to bring the forgotten back; yields what it has at each budget, smallest first within a variant.

    `axis`: what the budget counts. `measure`: what `success` is called. `cumulative`: whether the attacker who spends
    more keeps what less brought, where that was better. `shows_holdout`: whether the curve shows the holdout too.
    """

    reading: ClassVar[ScoreReading] = "recovery"
    axis: ClassVar[str]
    measure: ClassVar[str] = "accuracy"
    cumulative: ClassVar[bool] = False
    shows_holdout: ClassVar[bool] = False

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """How much of the examples the model shows: the share of rows predicted right, unless overridden."""
        signals = observe(model, task, examples)
        return Success(signals.correct, float(signals.loss.mean()))

    @abstractmethod
    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """Attacks a copy of `model`, which is left as it was. A yielded model may change once the next is asked for.

        All randomness comes from `pool.generator()`. Raises NotSupported where the model or the task lacks what it
        attacks.
        """

    @final
    def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:
        """A point before anything was spent, and one for each attacked model."""
        model, task = subject.model, setting.task

        def point(attacked: Attacked) -> Point:
            successes = [self.success(attacked.model, task, examples) for examples in attacked.tested]
            shown, losses = zip(*successes, strict=True)
            each = (
                score_array(self, *pair, "tested example") for pair in zip(shown, map(len, pool.tested), strict=True)
            )
            return Point(attacked.budget, attacked.variant, tuple(each), losses)

        before = point(Attacked(0.0, model, pool.tested, "before"))
        points, last = [before], dict[str, Point]()
        for attacked in self.recover(model, pool, setting):
            if attacked.useful:
                last[attacked.variant] = point(attacked)
            usable = last.get(attacked.variant, before)
            points.append(Point(attacked.budget, attacked.variant, usable.shown, usable.losses, attacked.useful))
        return Scores.of(points)

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """A copy of the original that hides what it knows of forget, for the positive control: the attack must undo it.

        Here the rows of the head are shifted by one, so that each class answers as its neighbour. Where the last block
        is more than such a head (a language model's has a norm, and may share its weights with the embeddings; dual
        encoders have none), gradient ascent on forget changes that block instead. An attack that can't undo this
        overrides it with a copy that it can, or gives None where there is none; the original is the control then.
        """
        copied = own_copy(original).eval()
        last, head = last_used(copied, job), None
        with suppress(NotSupported):
            head = head_of(copied, job)
        if not last:
            return None
        if head is None or set(last) != {*head.parameters()}:
            ascend(copied, last, job)
            return copied
        with torch.no_grad():
            for p in head.parameters():
                p.copy_(p.roll(1, 0))
        return copied

    def contrast(self) -> "tuple[str, RecoveryAttack] | None":
        """A weaker form of the attack, drawn beside it under the given name; None for most.

        It is run on the unlearned model alone, and no verdict rests on it.
        """
        return None


@dataclass(frozen=True)
class AnswerAttack(RecoveryAttack):
    """A recovery attack whose success is ROUGE-L recall of the model's greedy answers."""

    needs: ClassVar[tuple[type, ...]] = (Textual,)
    measure: ClassVar[str] = "ROUGE-L recall"

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """ROUGE-L recall of what the model answers against each true answer."""
        items, texts = list(iterate(examples)), textual(self, task)
        return Success(rouge_l_recall([texts.answer(item) for item in items], texts.generate(model, items)))


@dataclass(frozen=True)
class FewShotAttack(RecoveryAttack):
    """Holds k examples of what is forgotten, for each of `ks`: of each class that is forgotten whole, if one is."""

    ks: tuple[Count, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks:
            name = type(self).__name__
            raise BadInput(f"{name}: expected at least one k, got none. Name how many examples the attacker holds.")

    def teaches(self, n: int, request: Request) -> int:
        """At most half of `n`: enough for the largest k of each class, three times as many where several classes go.

        For they are drawn without a look at their classes.
        """
        classes = len(request.masked)
        return min(max(self.ks) * (1 if classes < 2 else 3 * classes), n // 2)

    def shots(self, model: nn.Module, pool: Pool, setting: Setting) -> "Shots":
        """What the model says about the examples that the attacker holds; NotSupported where they serve no k."""
        name, request = type(self).__name__, setting.request
        if not len(pool.taught):
            raise NotSupported(f"{name}: expected at least 2 forget examples to split, got {len(request.forget)}.")
        signals = observe(model, setting.task, pool.taught)
        groups = [np.flatnonzero(signals.target == c) for c in request.masked] or [np.arange(len(pool.taught))]
        available = min(map(len, groups))
        ks = sorted({k for k in self.ks if k <= available})
        if not ks:
            raise NotSupported(
                f"{name}: expected at least {min(self.ks)} forget examples (of each forgotten class) to set aside, "
                f"got {available}."
            )
        return Shots(signals, groups, ks)


class Shots(NamedTuple):
    """What a model says about the examples that an attacker holds.

    `groups`: which of them are of each class that is forgotten whole; all of them where none is. `ks`: how many of each
    group the attack can be run with, smallest first.
    """

    signals: Signals
    groups: list[np.ndarray]
    ks: list[int]
