"""What an attack promises: scores. It never judges itself: the harness lays all models side by side.

Every attack is run in the same way, with the same draws, on the original, the unlearned and each retrained model.
There are three kinds: scored attacks say how much a model shows of each example; inspections (attacks/inspection.py)
look inside a model; deletion attacks (attacks/deletion.py) ask the method itself for deletions.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Absent, Examples, Selection, evenly, iterate, move
from unrecall.data.request import Request, Split
from unrecall.data.signals import Signals
from unrecall.disk.weights import HALF
from unrecall.errors import BadInput, Diverged, MissingReference, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.scores import Point, Scores
from unrecall.evidence.setting import Setting, Subject
from unrecall.models.layers import weight_of
from unrecall.models.low_rank import LowRank
from unrecall.models.observe import accuracy, device_of, in_order, observe
from unrecall.nn.hooks import frozen, mode, unfrozen
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Parameters
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classifying, Textual, check_offers, offers, textual, with_own_rows
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Loss, Phase, Step, StepState, fit, plain_step, training
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.session import Session

AttackKind: TypeAlias = Literal["scored", "inspection", "deletion"]
ScoreReading: TypeAlias = Literal["membership", "recovery", "time", "recognition"]
"""How scores become figures: both arms apart, shown over the budget, budget until shown, or beside retrained models."""
Cell: TypeAlias = tuple[Tensor, Tensor]
"""How low and how high each weight may go."""
ARMS: tuple[Split, ...] = ("forget", "holdout")
"""The splits that a membership attack scores: members and non-members."""


@dataclass(frozen=True)
class Attack(Parameters, ABC):
    """Base of all attacks; a leaf is a frozen dataclass whose defaults are the paper's.

    `needs`: the protocols that a task must offer. `needs_own_rows`: whether the attack copies, perturbs or sorts
    examples by class, which tells something only where their rows depend on no other example. `judged`: which of its
    measurements a verdict rests on, by the end of the name, while all its named parameters are at their defaults.
    `named_by`: the parameters that stand in its name where they differ from their defaults, so that an audit can hold
    it more than once; its choices (texts) always do.
    """

    title: ClassVar[str]
    threat: ClassVar[ThreatModel]
    kind: ClassVar[AttackKind]
    needs: ClassVar[tuple[type, ...]] = ()
    needs_own_rows: ClassVar[bool] = False
    judged: ClassVar[str] = ""
    named_by: ClassVar[tuple[str, ...]] = ()

    @final
    def adapted(self, task: Task) -> Task:
        """The task in the form that this attack needs; NotSupported where there is none."""
        check_offers(self, task, *self.needs)
        return with_own_rows(task) if self.needs_own_rows else task


@dataclass(frozen=True)
class ScoredAttack(Attack):
    """Says of each example in question how much a model still shows of it, after each budget.

    `reading`: how the harness makes figures of the scores. `needs_class`: whether it works on class requests only.
    `compares`: whether scores depend on retrained models. `blind`: whether no score depends on which arm, forget or
    holdout, an example is of; a verdict rests on blind attacks only. `retested`: whether the attack is scored on the
    very examples that it was taught with. `paired`: whether no more of holdout is scored than of forget, as only the
    negative control reads it. `dose`: from which arm it is taught.
    """

    kind: ClassVar[AttackKind] = "scored"
    reading: ClassVar[ScoreReading]
    needs_class: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    blind: ClassVar[bool] = True
    retested: ClassVar[bool] = False
    paired: ClassVar[bool] = False

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
        """A copy of the original that still knows what is to be forgotten, and no longer shows it, for the control.

        The attack must bring back what the copy hides. This one hides it in a single part: the rows of the head have
        moved on, so that each class answers as its neighbour. Where the last block is no such head alone (a language
        model's has a norm, and may share its weights with the embeddings; dual encoders have none), gradient ascent on
        forget has changed that block. An attack that can't undo this overrides it with a copy that it can, or gives
        None where there is none; the original itself is the control then.
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
        """A form of the attack to draw beside it, with the name of its curve: one that brings back less; None for most.

        It is made on the unlearned model alone, and decides nothing.
        """
        return None


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


def usefulness(model: nn.Module, setting: Setting, drop: float, most: int = 500) -> Callable[[nn.Module], bool]:
    """Tells of a copy of a classifier whether it gets as much of retain right as the model, but for a share `drop`.

    For a classifier that is ruined may answer one class whatever it is shown, which is right on all of that class. Of
    other models' copies all are of use, since no single answer is right on many examples.
    """
    if not offers(setting.task, Classifying):
        return lambda _: True
    retain, task = setting.request.retain, setting.task
    guard = Selection(retain, evenly(len(retain), most))
    least = (1 - drop) * float(accuracy(model, task, guard).mean()) - 1e-9
    return lambda attacked: float(accuracy(attacked, task, guard).mean()) >= least


def own_copy(model: nn.Module) -> nn.Module:
    """The attacker's copy: all weights can be trained, whichever a method or the user froze.

    One with weights of 16 bits is float32: there small steps would be lost, or overflow.
    """
    copied = copy.deepcopy(model)
    if any(p.dtype in HALF for p in copied.parameters()):
        copied = copied.float()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied


LEARNED = 1e-4
"""The loss, in nats, up to which examples are known so well that their gradients may round to no step at all."""


def copies(
    model: nn.Module,
    task: Task,
    phase: Phase,
    generator: torch.Generator,
    session: Session,
    change: LowRank | None = None,
) -> Iterator[tuple[int, nn.Module]]:
    """Trains a copy of the model, and gives it after each step, with the number of steps; it changes with the next.

    `change`: what is trained beside the weights in place of them. Where the copy diverges that is the end. It isn't
    given before a weight has moved, for it shows nothing that the model as given doesn't, unless there is nothing left
    to learn (losses up to `LEARNED`): then it is given at the end. The session says what stopped it.
    """
    if change is None:
        student = own_copy(model)
        before = [p.detach() for p in model.parameters() if p.is_floating_point()]
    else:
        lesson = next(iter(phase.streams.values()))
        with own_randomness(draw_seed(generator)):
            student = change.beside(model, task, lesson).model
        before = [p.detach().clone() for p in student.parameters() if p.requires_grad]
    trained = [p for p in student.parameters() if p.requires_grad]
    moved = False
    try:
        for step in training(student, task, phase, generator, session.quiet()):
            moved = moved or any(not torch.equal(p, q.to(p)) for p, q in zip(trained, before, strict=True))
            if not moved:
                continue
            if not bool(nn.utils.get_total_norm(trained, math.inf).isfinite()):
                raise Diverged(session.name, step, "")
            yield step, student
    except Diverged:
        session.say(f"{session.name}: stopped being finite; what the attacker had before stands.")
        return
    if not moved and max(session.efforts[-1].losses, default=math.inf) <= LEARNED:
        yield step, student
    elif not moved:
        session.say(f"{session.name}: no weight moved; the rate is too small, or gradients vanish.")


@dataclass(frozen=True)
class AnswerAttack(RecoveryAttack):
    """A recovery attack whose success is ROUGE-L recall of the model's greedy answers."""

    needs: ClassVar[tuple[type, ...]] = (Textual,)
    measure: ClassVar[str] = "ROUGE-L recall"

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """ROUGE-L recall of what the model answers against each true answer."""
        items, texts = list(iterate(examples)), textual(self, task)
        return Success(rouge_l_recall([texts.answer(item) for item in items], texts.generate(model, items)))


def head_of(model: nn.Module, job: Job) -> nn.Linear:
    """The linear layer that turns features into logits; NotSupported where there is none."""
    some = job.request.retain or job.request.forget  # any example passes through it
    return job.task.head(model, move(job.task.collate([some[0]]), device_of(model)))


def last_used(model: nn.Module, job: Job) -> list[nn.Parameter]:
    """The weights of the last block that decide what the model answers; a head that isn't asked has none."""
    batch = next(in_order(model, job.task, job.request.forget))
    no_cudnn = torch.backends.cudnn.flags(enabled=False)  # in eval mode its recurrent layers have no backward pass
    with mode(model, training=False), unfrozen(model), torch.enable_grad(), no_cudnn:
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = job.task.rows(model, batch).losses().mean()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True) if loss.requires_grad else ()
    used = {p for p, gradient in zip(weights, gradients, strict=False) if gradient is not None}
    blocks = reversed(job.task.blocks(model))
    of_blocks = ([p for part in modules for p in part.parameters() if p in used] for _, modules in blocks)
    return next(filter(None, of_blocks), [])


def ascend_within(model: nn.Module, layers: Sequence[Any], bounds: Callable[[Tensor], Cell], job: Job) -> None:
    """Gradient ascent on forget, in place, by the weights of these layers, none of which leaves its bounds.

    `bounds`: how low and how high each weight `[out, in, ...]` of a layer may go.
    """
    cells = [(weight, *bounds(weight)) for weight in map(weight_of, layers)]

    def step(current: StepState) -> Tensor:
        loss = plain_step(current)
        for weight, low, high in cells:
            weight.clamp_(low, high)
        return loss

    ascend(model, [layer.weight for layer in layers], job, step)


def ascend(
    model: nn.Module,
    moved: Sequence[nn.Parameter],
    job: Job,
    step: Step = plain_step,
    streams: Mapping[str, Examples] | None = None,
    loss: Loss | None = None,
) -> None:
    """Gradient ascent on forget, in place, by these weights alone, until half of what was predicted right is wrong.

    AdamW at 1 % of the weights' root mean square, at most 200 steps of 32 examples; looks every 5 of them.
    `streams`: what to ascend on in place of forget ("forget"), and what to descend on meanwhile ("kept"), if anything.
    `loss`: what to descend on in place of both.
    """
    task, streams = job.task, streams or {"forget": job.request.forget}
    squares = sum(float(p.detach().float().square().sum()) for p in moved)
    recipe = Fit(
        optimizer="adamw",
        lr=0.01 * (squares / sum(p.numel() for p in moved)) ** 0.5,
        weight_decay=0.0,
        batch_size=32,
        epochs=200,
        steps=200,
        until=0.5 * float(accuracy(model, task, streams["forget"]).mean()),
        check_every=5,
    )

    def climb(moving: nn.Module, drawn: Batches) -> Tensor:
        climbed = -task.rows(moving, drawn["forget"]).losses().mean()
        return climbed + task.rows(moving, drawn["kept"]).losses().mean() if "kept" in drawn else climbed

    with frozen(model), suppress(Diverged):
        for p in moved:
            p.requires_grad_(True)
        fit(
            model,
            task,
            Phase(loss or climb, streams, recipe, step),
            job.generator,
            job.session.quiet().named("disguise"),
        )
