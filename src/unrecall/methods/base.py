"""What a method promises: a model in, another model out, the first one untouched. It never measures itself."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias, TypeVar, final

from torch import nn

from unrecall.data.batches import Batch
from unrecall.data.signals import Average, Rows
from unrecall.disk.weights import HALF, bare_name
from unrecall.errors import BadInput, Diverged, Fields, NotSupported, built_in, check_fields, kind_of, place_of
from unrecall.models.observe import device_of
from unrecall.nn.hooks import batchnorms
from unrecall.spec.lines import name_of, parse
from unrecall.spec.parameters import Index, Parameters
from unrecall.tasks.base import Task, check_inputs
from unrecall.training.job import Job
from unrecall.training.loop import (
    Batches,
    Fit,
    Phase,
    StepState,
    epoch_steps,
    fit,
    idle_step,
    loss_on,
    plain_step,
)
from unrecall.training.phases import (
    RetainTerm,
    classified,
    last_blocks,
    phase_over,
    repair,
    train_only,
    with_loss,
    with_retain,
)
from unrecall.training.session import Effort, Session
from unrecall.training.teacher import frozen_beside, frozen_copy

# Re-exported, so that a method's file needs one import.
__all__ = [
    "Average", "Batch", "Batches", "Fit", "Job", "Phase", "RetainTerm", "Rows", "Task", "classified",
    "last_blocks", "loss_on", "phase_over", "repair", "train_only", "with_loss", "with_retain",
]  # fmt: skip

PATIENCE = 100
"""Optimiser steps that a method which stops by itself may take where its recipe has fewer: few examples make epochs
short, and many gentle steps spare more than a few strong ones."""

OF_FORGET = {"forget", "mixed"}
"""The names of streams that hold forget, or what stands for it, alone or among others."""

P = TypeVar("P", bound=Parameters)


class Strength(NamedTuple):
    """Which hyper-parameters decide how much is forgotten; they are scaled together.

    `parameters`: names, dotted where nested ("fit.lr"). `inverse`: a larger value forgets less. `low` and `high`: the
    range of factors, on the defaults, that a search may try.
    """

    parameters: tuple[str, ...]
    inverse: bool = False
    low: float = 2**-8
    high: float = 2**6


@dataclass(frozen=True)
class Method(Parameters, ABC):
    """Base of all methods; a leaf is a frozen dataclass whose defaults are the paper's."""

    title: ClassVar[str]
    strength: ClassVar[Strength | None] = None
    has_null: ClassVar[bool] = False
    """Whether it trains only, so that the same passes at learning rate 0 leave the weights alone."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Puts the check of model and data before the `unlearn` of every class that has one of its own."""
        super().__init_subclass__(**arguments)
        if "unlearn" in vars(cls):
            cls.unlearn = _after_check(cls.unlearn)  # type: ignore[assignment, method-assign]

    @abstractmethod
    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Gives a new model, in eval mode, that was made to forget `job.request.forget`; `model` stays as it was.

        However a class implements it, BadInput comes first where model and data don't fit (`check_inputs`). A class
        outside of unrecall is handed a copy of the model, which it may change in place and give back.
        """

    def null_base(self) -> "GradientMethod | None":
        """Gives the method whose passes move BatchNorm statistics even at learning rate 0; None where none do."""
        return None

    def innermost(self) -> "Method":
        """Gives the innermost method below all wrappers: the one whose strength decides, and whose null there is."""
        return self

    def scaled(self, factor: float) -> Self:
        """Gives the same method, `factor` times as strong. Raises NotSupported where nothing decides its strength."""
        if self.strength is None:
            raise NotSupported(
                f"{type(self).__name__}: expected a method with a strength to tune, got none. Leave out --tune."
            )
        result = self
        for path in self.strength.parameters:
            result = _scale(result, path.split("."), 1 / factor if self.strength.inverse else factor)
        return result

    @classmethod
    def wrapper(cls) -> "type[Wrapper] | None":
        """Gives the class that a line with a base in brackets means; None where the method wraps no other."""
        return None


def method_of(method: Method | str) -> Method:
    """Gives the method itself, or the one that a line names, as "rurk:tau=0.05" does."""
    return parse(method, "methods") if isinstance(method, str) else method


Unlearn: TypeAlias = Callable[[Any, nn.Module, Job], nn.Module]


JOB: Fields = {"job": (kind_of(Job), "a Job, as ur.Job(request, task) is")}


def _after_check(unlearn: Unlearn) -> Unlearn:
    """Makes an `unlearn` that looks at the model and at what it may read of the data before it does anything.

    It starts from a model that holds nothing of forget as data (`Task.without_data_of`); one that isn't unrecall's own,
    from a copy of that, which it may change.
    """
    ours = built_in(unlearn)

    @wraps(unlearn)
    def checked(self: Any, model: nn.Module, job: Job) -> nn.Module:
        check_fields(type(self).__name__, JOB, {"job": job})
        check_inputs(job.task, model, job.request.only("forget", "retain"))
        start = job.task.without_data_of(model, job.request.forget)
        result = unlearn(self, start, job) if ours else _on_a_copy(self, unlearn, start, job)
        _rounded_like(model, result)
        if not all(bool(value.isfinite().all()) for value in result.parameters()):
            advice = "Take a smaller step, more damping, or a larger scale, whichever it has."
            raise Diverged(type(self).__name__, None, "", advice)
        return result

    return checked


def _on_a_copy(method: Any, unlearn: Unlearn, model: nn.Module, job: Job) -> nn.Module:
    """What a user's `unlearn` makes of a copy, in eval mode, without gradients, and as trainable as `model` is.

    BadInput, with the place of its code, where it gives no model.
    """
    result: Any = unlearn(method, copy.deepcopy(model), job)
    if not isinstance(result, nn.Module):
        advice = "Return the model that it changed: return model."
        if isinstance(result, Mapping):
            advice = "Load the weights, and return the model: model.load_state_dict(weights); return model."
        name, kind = type(method).__name__, "None" if result is None else type(result).__name__
        at = f" ({place})" if (place := place_of(unlearn)) else ""
        raise BadInput(f"{name}: expected unlearn{at} to give the unlearned torch.nn.Module, got {kind}. {advice}")
    trainable = {bare_name(name): parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in result.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(trainable.get(bare_name(name), parameter.requires_grad))
            parameter.grad = None
    return result.eval()


def _rounded_like(model: nn.Module, result: nn.Module) -> None:
    """Rounds weights that are of 16 bits in `model`, and were trained in float32, to that format, in place."""
    formats = {name: value.dtype for name, value in [*model.named_parameters(), *model.named_buffers()]}
    for name, value in [*result.named_parameters(), *result.named_buffers()]:
        if formats.get(name) in HALF:
            value.data = value.data.to(formats[name])


def _scale(owner: P, path: Sequence[str], factor: float) -> P:
    value = getattr(owner, path[0])
    changed = value * factor if len(path) == 1 else _scale(value, path[1:], factor)
    return replace(owner, **{path[0]: changed})


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another one, whose strength is the other's."""

    base: "GradientMethod"

    def __post_init__(self) -> None:
        """BadInput for a base that makes no phases."""
        if isinstance(self.base, Method) and not isinstance(self.base, GradientMethod):
            raise BadInput(
                f"{type(self).__name__}: expected base to be GradientMethod, got {type(self.base).__name__}, which has "
                "no phases of training. Choose another base."
            )
        super().__post_init__()

    @final
    def innermost(self) -> Method:
        """Gives the core of the base: the innermost method of all."""
        return self.base.innermost()

    @final
    def scaled(self, factor: float) -> Self:
        """Gives the same wrapper around a base that is `factor` times as strong."""
        return replace(self, base=self.base.scaled(factor))

    @classmethod
    def wrapper(cls) -> "type[Wrapper]":
        """Gives the class itself, for it takes a base already."""
        return cls


class Training(NamedTuple):
    """A model that will be trained in place, and the phases in which it will, in order."""

    student: nn.Module
    phases: Sequence[Phase]


@dataclass(frozen=True)
class LoopMethod(Method):
    """A method that trains a copy in phases of the loop, which can be told before they run."""

    @abstractmethod
    def training(self, model: nn.Module, job: Job) -> Training:
        """Gives the model and the phases that `unlearn` trains, as far as they are known before; `model` stays."""


@dataclass(frozen=True)
class GradientMethod(LoopMethod):
    """A method that runs the loop: a leaf says in `phases` what is minimised, over which data, and how."""

    has_null: ClassVar[bool] = True

    @abstractmethod
    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Makes the runs of the loop, in order. `student` will be trained in place; `original` is frozen, in eval mode.

        A phase may freeze parameters of `student`; they are freed again at the end.
        """

    def null_base(self) -> "GradientMethod | None":
        """Gives the method itself, whose passes go through the model in train mode."""
        return self

    @final
    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Copies the model and runs each phase on the copy."""
        job = job.settled(model)
        student, phases = self.training(model, job)
        train(student, phases, job, self)
        return restore_flags(student, model)

    @final
    def training(self, model: nn.Module, job: Job) -> Training:
        """Copies the model, and makes the phases of the copy's training."""
        student, job = copy_of(model, job), job.settled(model)
        original = frozen_beside(model, student) if _built_in(self) else frozen_copy(student)
        return Training(student, self.phases(student, original, job))


def _built_in(method: Method) -> bool:
    """Whether a method and all that it wraps are unrecall's own, which never change the frozen original."""
    if not built_in(type(method)):
        return False
    return not isinstance(method, Wrapper) or _built_in(method.base)


Around: TypeAlias = Callable[[Phase], Phase]
"""Makes a phase of the base into one of the plug-in's: another loss, or another step around the base's step."""


@dataclass(frozen=True)
class Plugin(Wrapper, GradientMethod):
    """A wrapper that trains by the base's phases, each of them changed; a leaf says in `around` how."""

    wanted: ClassVar[str] = "trains on forget"
    """What a base must do for one of its phases to be changed."""
    advice: ClassVar[str] = "Choose another base."
    """What to do about a base of which no phase can be changed."""

    @abstractmethod
    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Makes what changes a phase. Called once, before the base makes its phases and may freeze parameters."""

    def touches(self, phase: Phase) -> bool:
        """Says whether a phase is changed; the others stay the base's own."""
        return True

    def job_of_base(self, job: Job) -> Job:
        """Gives the job that the base makes its phases of: the plug-in's own, unless a leaf hides some of it."""
        return job

    @final
    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Makes the phases of the base, and changes those that are touched."""
        change = self.around(student, original, job)
        phases = self.base.phases(student, original, self.job_of_base(job))
        if phases and not any(map(self.touches, phases)):
            name, base = type(self).__name__, type(self.base).__name__
            raise NotSupported(f"{name}: expected a base that {self.wanted}, got {base}. {self.advice}")
        return [change(phase) if self.touches(phase) else phase for phase in phases]


def copy_of(model: nn.Module, job: Job) -> nn.Module:
    """Copies the model to where the session trains; one with weights of 16 bits is float32 there.

    In bfloat16 a step below 1/256 of a weight would be lost, each time; float16 overflows. The result of a method is
    rounded to what the model was in.
    """
    student = copy.deepcopy(model).to(job.session.torch_device())
    return student.float() if any(p.dtype in HALF for p in student.parameters()) else student


def train(student: nn.Module, phases: Iterable[Phase], job: Job, method: Method) -> None:
    """Runs the phases on `student`, in place; people are told whose they are, and which of how many.

    Those that train on forget stop, or don't begin, where the student has forgotten enough.
    """
    name, phases = short_line(method), list(phases)
    for i, phase in enumerate(phases, 1):
        place = f", phase {i} of {len(phases)}" if len(phases) > 1 else ""
        ending = until_forgotten(phase, job)
        if ending is not phase and i > 1 and job.enough and job.enough(student):
            job.session.efforts.append(Effort())
            continue
        fit(student, job.task, ending, job.generator, job.session.named(f"{name}{place}"))


def until_forgotten(phase: Phase, job: Job) -> Phase:
    """Gives the phase; one that trains on forget ends where the job says that the model has forgotten enough.

    Till then that one takes `PATIENCE` steps at least.
    """
    enough = job.enough
    if enough is None or OF_FORGET.isdisjoint(phase.streams):
        return phase

    def ends(current: StepState) -> bool:
        return (phase.ends is not None and phase.ends(current)) or enough(current.model)

    recipe = phase.fit
    epochs = max(recipe.epochs, math.ceil(PATIENCE / epoch_steps(phase)))
    steps = None if recipe.steps is None else max(recipe.steps, PATIENCE)
    return replace(phase, ends=ends, fit=replace(recipe, epochs=epochs, steps=steps))


def short_line(method: Method) -> str:
    """Gives the method's line without parameters: "scrub", or "spotter(scrub)" for one around another."""
    name = "null" if isinstance(method, Null) else name_of(method)
    return f"{name}({short_line(method.base)})" if isinstance(method, Wrapper) else name


def restore_flags(student: nn.Module, model: nn.Module) -> nn.Module:
    """Puts `student` into eval mode, without gradients, and makes each parameter as trainable as it is in `model`."""
    for parameter, before in zip(student.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(before.requires_grad)
        parameter.grad = None
    return student.eval()


def train_helper(model: nn.Module, phase: Phase, job: Job, name: str) -> None:
    """Trains a copy that is needed on the way, in place: on the device where it is, and without a trace."""
    session = Session(device="cpu" if device_of(model).type == "cpu" else None, name=name)
    fit(model, job.task, phase, job.generator, session)


def has_null(method: Method) -> bool:
    """Says whether a method and all that it wraps train only, so that there is a null."""
    return method.has_null and (not isinstance(method, Wrapper) or has_null(method.base))


def null_base(method: Method, model: nn.Module) -> GradientMethod | None:
    """Gives the method whose passes the null repeats; None where there is no null, or the original is the null."""
    return method.null_base() if has_null(method) and batchnorms(model) else None


@dataclass(frozen=True)
class Null(Wrapper, GradientMethod):
    """The same passes as `base` at learning rate 0: whatever is forgotten here, statistics forgot and not weights.

    `steps`: how many the loop took in each of its runs, of which those of the base's phases come last; empty where
    each phase took all of its own.
    """

    title: ClassVar[str] = "Null"

    steps: tuple[Index, ...] = ()

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        """Makes the phases of the base, at learning rate 0, as long as they were."""
        phases = [_idle(phase) for phase in self.base.phases(student, original, job)]
        if not self.steps:
            return phases
        lengths = self.steps[-len(phases) :]
        return [_as_long(phase, steps) for phase, steps in zip(phases, lengths, strict=True) if steps]


def _idle(phase: Phase) -> Phase:
    """The phase at learning rate 0; without gradients where neither its step nor its rule to end looks at them."""
    plain = phase.step is plain_step and phase.ends is None
    return replace(phase, fit=replace(phase.fit, lr=0.0), step=idle_step if plain else phase.step)


def _as_long(phase: Phase, steps: int) -> Phase:
    """The phase, which takes so many steps and has no rule that ends it."""
    recipe = replace(phase.fit, epochs=math.ceil(steps / epoch_steps(phase)), steps=steps, until=None)
    return replace(phase, fit=recipe, ends=None)
