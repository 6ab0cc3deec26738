"""The one training loop: what every method, every reference and every relearning attack runs on."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch, batch_size, in_parts, move
from unrecall.data.examples import Examples
from unrecall.data.identity import key_of
from unrecall.data.loading import BatchIndices, batches_of
from unrecall.data.signals import Average, Rows
from unrecall.disk.cache import environment
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.disk.weights import digest_of
from unrecall.errors import FREEZE_BATCHNORM, ONE_EXAMPLE, UNFREEZE, BadInput, Diverged, NotSupported
from unrecall.models.low_rank import has_adapters
from unrecall.models.observe import accuracy
from unrecall.nn.functional import nll
from unrecall.nn.hooks import batchnorms
from unrecall.nn.seeds import reseed
from unrecall.spec.parameters import Count, Index, NonNegative, Parameters, Positive, Share
from unrecall.tasks.base import Task
from unrecall.training.randomness import draw_seed, own_randomness, seeded
from unrecall.training.resume import Progress, Saved
from unrecall.training.session import Effort, Session

Batches: TypeAlias = Mapping[str, Batch]
Loss: TypeAlias = Callable[[nn.Module, Batches], Tensor]
RowsLoss: TypeAlias = Callable[[Rows, Batch], Tensor]
"""A loss of what a model said about a batch, and of that batch."""


@runtime_checkable
class Summed(Protocol):
    """A loss that is a sum of terms, each of which reads the stream that it is named after."""

    @property
    def terms(self) -> Mapping[str, Loss]:
        """The terms by stream, or under a name that is no stream's, where one reads several."""


@dataclass(frozen=True)
class Fit(Parameters):
    """A training recipe.

    `epochs`: passes over the leading stream. `steps`: cap on optimiser steps, None for no cap. `schedule`: of the
    learning rate, by step; cosine falls to 0 over `period` steps (None: the whole run) and, as PyTorch's does, rises
    again beyond; exponential falls to `final` of the rate over the run. `warmup`: over so many first steps the rate
    rises linearly from 0, whatever the schedule. `accumulate`: in how many parts a batch passes through the model, so
    that less memory is needed; a loss that is a mean over examples gives the same step, but BatchNorm, which sees a
    part at a time, another. Where one loss reads several batches, these must be divided evenly, and into fewer parts
    if need be. `clip`: largest gradient norm. `batchnorm`: "train" updates statistics from each batch,
    "frozen" leaves them as they are while the affine weights train. `until`: stop once forget accuracy is at most this,
    checked after each epoch and every `check_every` steps. `lr` 0 is allowed: it is the null that checks need.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: NonNegative = 0.01
    momentum: Share = 0.9
    weight_decay: NonNegative = 5e-4
    epochs: Count = 1
    steps: Count | None = None
    batch_size: Count = 128
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    period: Count | None = None
    final: Positive = 0.01
    clip: Positive | None = None
    batchnorm: Literal["train", "frozen"] = "train"
    until: Share | None = None
    check_every: Count = 50
    accumulate: Count = 1
    warmup: Index = 0


def clip_gradients(model: nn.Module, most: float) -> None:
    """Scales a model's gradients so that their norm is at most `most`.

    They become NaN where the norm is too large for a number: divided by infinity they would be 0, and a training that
    moves nothing would go on to its end.
    """
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    nn.utils.clip_grads_with_norm_(model.parameters(), most, norm.where(norm.isfinite(), torch.nan))


@dataclass
class StepState:
    """Everything that one optimisation step may touch.

    `notes`: where it may note figures of itself, by name. `on_gradients`: called when the gradients are there, before
    they are clipped. `accumulate`: in how many parts the batches are differentiated. `number`: how many steps of the
    run came before.
    """

    model: nn.Module
    batches: Batches
    loss: Loss
    optimizer: torch.optim.Optimizer
    clip: float | None
    notes: dict[str, list[float]] = field(default_factory=dict)
    on_gradients: Callable[[], None] | None = None
    accumulate: int = 1
    number: int = 0

    def differentiate(self) -> Tensor:
        """Computes the loss and its gradients, part by part, clips them, and gives the detached loss."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for loss in self._losses():
            if not getattr(loss, "requires_grad", False):
                raise BadInput(
                    "training: expected a loss that depends on a trainable weight, got one without a gradient. "
                    "Unfreeze a layer that the model uses, or name it as target; compute a loss from the weights."
                )
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        if self.on_gradients is not None:
            self.on_gradients()
        if self.clip is not None:
            clip_gradients(self.model, self.clip)
        return sum(losses[1:], losses[0])

    def evaluate(self) -> Tensor:
        """Computes the detached loss part by part, and no gradients; BatchNorm sees all that it sees otherwise."""
        return torch.stack([loss.detach() for loss in self._losses()]).sum()

    def _losses(self) -> Iterator[Tensor]:
        """The losses of the batches' parts, which add up to that of the whole if it is a mean over each one's examples.

        A sum of terms is taken term by term, each stream in parts of its own; where one loss reads several streams,
        in as many parts as all of them can be divided into evenly.
        """
        if self.accumulate == 1:
            yield self.loss(self.model, self.batches)
            return
        terms: Mapping[str, Loss] = self.loss.terms if isinstance(self.loss, Summed) else {}
        if terms.keys() <= self.batches.keys() and terms:
            for name, term in terms.items():
                yield from self._in_parts(term, {name: self.batches[name]})
        else:
            yield from self._in_parts(self.loss, self.batches)

    def _in_parts(self, loss: Loss, batches: Batches) -> Iterator[Tensor]:
        """A loss of each part of some batches, times the part's share of their examples."""
        sizes = [batch_size(batch) for batch in batches.values()]
        count = min(self.accumulate, *sizes)
        if len(sizes) > 1:  # a part must be the same share of each
            count = next(n for n in range(count, 0, -1) if not any(size % n for size in sizes))
        split = {name: in_parts(batch, count) for name, batch in batches.items()}
        for i in range(count):
            part = {name: parts[i] for name, parts in split.items()}
            yield batch_size(next(iter(part.values()))) / sizes[0] * loss(self.model, part)


Step: TypeAlias = Callable[[StepState], Tensor]


def plain_step(current: StepState) -> Tensor:
    """Differentiate, then let the optimiser move. Wrappers put their own step around this one."""
    loss = current.differentiate()
    current.optimizer.step()
    return loss


def idle_step(current: StepState) -> Tensor:
    """The passes of a plain step at learning rate 0: no weight moves, so nothing is differentiated."""
    loss = current.evaluate()
    current.optimizer.zero_grad(set_to_none=True)
    current.optimizer.step()  # of nothing, so that the schedule finds it done
    return loss


@dataclass(frozen=True)
class Phase:
    """One run of the loop: what is minimised, over which data, and how.

    `streams`: data sets by name; one epoch is one pass over the first, the others cycle beside it, each shuffled anew
    every time round. `loss(model, batches)` sees one batch of each. `ends(current)`: whether a rule of the method's own
    ends it, asked whenever `until` is; what that rule remembers goes into `current.optimizer.state`, to survive a kill.
    `whole`: whether the loss is no mean over a batch's examples (it compares them, picks some, or adds up), so that
    parts of a batch would have another one; BadInput where the recipe asks for parts.
    """

    loss: Loss
    streams: Mapping[str, Examples]
    fit: Fit
    step: Step = plain_step
    ends: Callable[[StepState], bool] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.whole and self.fit.accumulate > 1:
            raise BadInput(
                f"fit.accumulate: expected 1 where a loss looks at a batch as a whole, got {self.fit.accumulate}: it "
                "would be another loss of each part. Lower batch_size."
            )


def cross_entropy(rows: Rows, _: Batch) -> Tensor:
    """Computes CE: the mean over an example's rows, then over the examples of a batch."""
    return rows.losses().mean()


def averaged(over: Average) -> RowsLoss:
    """Makes CE as the mean over an example's rows, then over examples; or over all rows of a batch alike."""
    return lambda rows, _: rows.mean(nll(rows.logits, rows.targets), over)


def loss_on(stream: str, task: Task, of: RowsLoss = cross_entropy) -> Loss:
    """Makes the loss that `of` computes from a pass over a batch of one stream; CE by default."""
    return lambda model, batches: of(task.rows(model, batches[stream]), batches[stream])


def shuffled_indices(name: str, length: int, fit: Fit, seed: int, steps: range) -> Iterator[list[int]]:
    """The indices of each batch of the stream `name`: a fresh shuffle each time round, the same for the same seed.

    A last batch of one example is left out (BatchNorm can't train on it) unless it is the only one.
    """
    starts = list(range(0, length, fit.batch_size))
    if len(starts) > 1 and length - starts[-1] == 1 < fit.batch_size:
        starts.pop()
    epoch, order = -1, torch.empty(0)
    for step in steps:
        if step // len(starts) != epoch:
            epoch = step // len(starts)
            mixed = int(hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).hexdigest()[:15], 16)
            order = torch.randperm(length, generator=seeded(mixed))
        first = starts[step % len(starts)]
        yield order[first : first + fit.batch_size].tolist()


def epoch_steps(phase: Phase) -> int:
    """How many optimiser steps one pass over the first stream takes."""
    whole, rest = divmod(len(next(iter(phase.streams.values()))), phase.fit.batch_size)
    return max(1, whole + (rest > 1))


def total_steps(phase: Phase) -> int:
    """How many optimiser steps a phase takes if nothing stops it early."""
    total = epoch_steps(phase) * phase.fit.epochs
    return total if phase.fit.steps is None else min(total, phase.fit.steps)


def drawing(fit: Fit, count: int, examples: Examples) -> Fit:
    """The recipe, as long as it takes to draw `count` of the examples, `fit.epochs` times over; `fit.steps` caps it."""
    total, n = count * fit.epochs, len(examples)
    steps = total // n * math.ceil(n / fit.batch_size) + math.ceil(total % n / fit.batch_size)
    return replace(fit, epochs=math.ceil(total / n), steps=min(steps, fit.steps or steps))


def checked_steps(phase: Phase) -> set[int]:
    """After how many steps a phase is asked whether it ends: with each epoch, every `check_every`, and at last."""
    total = total_steps(phase)
    return {total, *(n for every in (epoch_steps(phase), phase.fit.check_every) for n in range(every, total, every))}


def fit(
    model: nn.Module, task: Task, phase: Phase, generator: torch.Generator, session: Session | None = None
) -> Effort:
    """Runs one phase on `model`, in place. The same model, phase and generator give the same result, killed or not.

    Raises Diverged at the first step whose loss is not finite, or with weights that are not where an epoch ends or
    `until` is checked.
    """
    session = session or Session()
    model.to(session.torch_device())  # before generators are looked after: a device's own are then there
    with own_randomness(0):
        for _ in _steps(model, task, phase, generator, session):
            pass
    return session.efforts[-1]


def fit_by_step(
    model: nn.Module, task: Task, phase: Phase, generator: torch.Generator, session: Session
) -> Iterator[int]:
    """Runs a phase as `fit` does, and yields the number of steps done after each step.

    The session gets the effort when the phase ends. A caller may stop early, and keep the model as it then is.
    """
    model.to(session.torch_device())
    steps = _steps(model, task, phase, generator, session)
    while True:
        with own_randomness(0):
            number = next(steps, None)
        if number is None:
            return
        yield number


def _steps(model: nn.Module, task: Task, phase: Phase, generator: torch.Generator, session: Session) -> Iterator[int]:
    """The loop itself. Each step seeds the global generators; the caller restores them.

    To restore them in every step would take a tenth of a short one.
    """
    recipe, total, started = phase.fit, total_steps(phase), time.perf_counter()
    seed = draw_seed(generator)
    parameters = _trainable(model, phase, session.name)
    device = session.torch_device()
    optimizer = _optimizer(recipe, parameters)
    progress = Progress(model, optimizer, _scheduler(recipe, optimizer, total), generator)
    saved = Saved(session, _key(model, task, phase, seed, session) if session.folder else "")
    steps, effort = range(saved.restore(progress), total), progress.effort
    streams, checked = _streams(phase, task, seed, steps), checked_steps(phase)
    set_training(model, recipe)
    for step in session.track(steps, session.name, len(steps)):
        batches = {key: move(next(stream), device) for key, stream in streams.items()}
        reseed(seed + step)  # whatever was drawn to make them, here or elsewhere
        current = StepState(
            model, batches, phase.loss, optimizer, recipe.clip, effort.notes, None, recipe.accumulate, step
        )
        loss = float(_stepped(phase, current))
        progress.scheduler.step()
        checks = step + 1 in checked
        if not math.isfinite(loss) or (checks and not _finite(parameters)):
            raise Diverged(session.name, step, saved.last_good())
        effort.seconds, started = effort.seconds + time.perf_counter() - started, time.perf_counter()
        effort.steps += 1
        effort.passes += sum(batch_size(batch) for batch in batches.values())
        effort.losses.append(loss)
        yield step + 1
        if checks and (_reached(model, task, phase) or (phase.ends is not None and phase.ends(current))):
            break
        if (step + 1) % epoch_steps(phase) == 0 and step + 1 < total:
            saved.keep(progress)
    saved.end()
    model.eval()
    effort.seconds += time.perf_counter() - started
    session.efforts.append(effort)


def _stepped(phase: Phase, current: StepState) -> Tensor:
    """A step's loss; NotSupported where BatchNorm can't train on the one example that a batch holds."""
    try:
        return phase.step(current)
    except ValueError as error:
        if ONE_EXAMPLE in str(error):
            raise NotSupported(FREEZE_BATCHNORM) from error
        raise


def _key(model: nn.Module, task: Task, phase: Phase, seed: int, session: Session) -> str:
    """What decides how a run of the loop ends: model, task, data, loss, recipe, seed, and what the session knows."""
    data = [content_key(name, key_of(stream)) for name, stream in phase.streams.items()]
    code = code_key(phase.loss, phase.step, task, *((phase.ends,) if phase.ends else ()))
    recipe = (repr(task), repr(phase.fit), str(seed))
    return content_key(session.key, *recipe, digest_of(model), *data, code, *environment().values())


def _trainable(model: nn.Module, phase: Phase, name: str) -> list[nn.Parameter]:
    """The parameters that are trained; BadInput where there are none, or `until` has nothing to look at."""
    until = phase.fit.until
    if until is not None and "forget" not in phase.streams:
        raise BadInput(f"{name}: expected until only where forget is trained on, got {until}. Leave it out.")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise BadInput(f"{name}: expected at least one trainable parameter, got none. {UNFREEZE}")
    return parameters


def _streams(phase: Phase, task: Task, seed: int, steps: range) -> dict[str, Iterator[Batch]]:
    """The batches of each data set for these steps.

    They are whole in each of several processes: BatchNorm, dropout and many losses hang on all of a batch, so that the
    processes' shares of it would add up to another training.
    """

    def stream(name: str, data: Examples) -> Iterator[Batch]:
        chosen = zip(shuffled_indices(name, len(data), phase.fit, seed, steps), steps, strict=False)
        return batches_of(data, task.collate, (BatchIndices(indices, seed + i) for indices, i in chosen), len(steps))

    return {name: stream(name, data) for name, data in phase.streams.items()}


def _finite(parameters: list[nn.Parameter]) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in parameters)


def _reached(model: nn.Module, task: Task, phase: Phase) -> bool:
    if phase.fit.until is None:
        return False
    return float(accuracy(model, task, phase.streams["forget"]).mean()) <= phase.fit.until


def set_training(model: nn.Module, recipe: Fit) -> None:
    """Train mode, but for BatchNorm where the recipe freezes it, and for modules with no trainable parameter left.

    A BatchNorm that never had parameters goes with what stands before it; beside adapters it is held, for what trains
    there is a change of weights alone.
    """
    model.train()
    norms = set(batchnorms(model))
    held = False
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters:
            held = not any(p.requires_grad for p in parameters)
        if held and (parameters or module in norms):
            module.eval()
    adapted = has_adapters(model)
    for norm in norms:
        if recipe.batchnorm == "frozen" or (adapted and not any(p.requires_grad for p in norm.parameters())):
            norm.eval()


def _optimizer(recipe: Fit, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay)


def _scheduler(recipe: Fit, optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate of each step, as a share of the recipe's: what the schedule says, times what is reached of the rise."""

    def share(step: int) -> float:
        risen = min(1.0, (step + 1) / (recipe.warmup + 1))
        if recipe.schedule == "cosine":
            return risen * (1 + math.cos(math.pi * step / (recipe.period or total))) / 2
        return risen * recipe.final ** (step / total) if recipe.schedule == "exponential" else risen

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
