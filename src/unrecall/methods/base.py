"""What a method promises: a model in, another model out, the first one untouched. It never measures itself."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self, TypeVar, final

import torch
from torch import Tensor, nn

from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.spec.parameters import Parameters
from unrecall.tasks.base import Task
from unrecall.training.loop import Batches, Fit, Loss, Phase, fit
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

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

    @abstractmethod
    def unlearn(
        self,
        model: nn.Module,
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session | None = None,
    ) -> nn.Module:
        """A new model, in eval mode, that was made to forget `request.forget`; `model` is left as it was."""

    def moving(self) -> GradientMethod | None:
        """Whose passes move BatchNorm statistics even at learning rate 0; None where none do."""
        return None

    @final
    def core(self) -> Method:
        """The innermost method below all plug-ins: the one whose strength decides, and whose null there is."""
        base = self._base()
        return self if base is None else base.core()

    @final
    def scaled(self, factor: float) -> Self:
        """The same method `factor` times as strong. Raises NotSupported where nothing decides its strength."""
        base = self._base()
        if base is not None:
            return replace(self, **{"base": base.scaled(factor)})
        if self.strength is None:
            raise NotSupported(f"{type(self).__name__}: expected a method with a strength to tune, got none.")
        result = self
        for path in self.strength.parameters:
            result = _scale(result, path.split("."), 1 / factor if self.strength.inverse else factor)
        return result

    @final
    def _base(self) -> Method | None:
        base = getattr(self, "base", None)
        return base if isinstance(base, Method) else None


def _scale(owner: P, path: Sequence[str], factor: float) -> P:
    value = getattr(owner, path[0])
    changed = value * factor if len(path) == 1 else _scale(value, path[1:], factor)
    return replace(owner, **{path[0]: changed})


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method that runs the loop: a leaf says in `phases` what is minimised, over which data, and how."""

    has_null: ClassVar[bool] = True
    """Whether the same passes at learning rate 0 leave the weights alone (not so where weights are re-initialised)."""

    @abstractmethod
    def phases(
        self, student: nn.Module, original: nn.Module, request: Request, task: Task, generator: torch.Generator
    ) -> Sequence[Phase]:
        """The runs of the loop, in order. `student` will be trained in place; `original` is frozen, in eval mode.

        A phase may freeze parameters of `student`; they are freed again at the end.
        """

    def moving(self) -> GradientMethod | None:
        """Itself."""
        return self

    @final
    def unlearn(
        self,
        model: nn.Module,
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session | None = None,
    ) -> nn.Module:
        """Copies the model and runs each phase on the copy."""
        session = session or Session()
        student = copy.deepcopy(model).to(session.place())
        original = frozen_copy(student)
        trainable = [p.requires_grad for p in student.parameters()]
        for i, phase in enumerate(self.phases(student, original, request, task, generator)):
            fit(student, task, phase, generator, session, f"{type(self).__name__.lower()} {i + 1}".replace(" ", "-"))
        for parameter, was in zip(student.parameters(), trainable, strict=True):
            parameter.requires_grad_(was)
        return student.eval()


def beside_retain(forget: Loss, weight: float, request: Request, task: Task, fit: Fit) -> list[Phase]:
    """One phase over forget that minimises `forget` + `weight` CE(retain), with retain cycling beside it.

    At weight 0 retain is not read.
    """
    if weight == 0:
        return [Phase(forget, {"forget": request.forget}, fit)]

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        return forget(model, batches) + weight * task.rows(model, batches["retain"]).losses().mean()

    return [Phase(loss, {"forget": request.forget, "retain": request.retain}, fit)]


@dataclass(frozen=True)
class Null(GradientMethod):
    """The same passes as `base` at learning rate 0: whatever is forgotten here, statistics forgot and not weights."""

    base: GradientMethod
    title: ClassVar[str] = "Null"

    def phases(
        self, student: nn.Module, original: nn.Module, request: Request, task: Task, generator: torch.Generator
    ) -> Sequence[Phase]:
        """The phases of the base, with the learning rate set to 0."""
        phases = self.base.phases(student, original, request, task, generator)
        return [replace(phase, fit=replace(phase.fit, lr=0.0)) for phase in phases]


def reinitialise(modules: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Draws fresh weights, in place, for every layer below `modules` that knows how, or whose model knows it.

    A whole Transformers model knows how its layers start; what stands in none of them, as CLIP's scale, stays. Raises
    NotSupported for a layer that holds parameters and does not know how.
    """
    with own_randomness(draw_seed(generator)):
        for module in modules:
            start = getattr(module, "_init_weights", None)
            for layer in module.modules():
                # PyTorch's attention has it under another name.
                reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
                if callable(reset):
                    reset()
                elif type(layer).__name__.endswith("Norm"):
                    # Transformers' norms have no reset_parameters; all of them start at gain one.
                    for name, value in layer.named_parameters(recurse=False):
                        nn.init.constant_(value, float(name == "weight"))
                elif not callable(start) and any(True for _ in layer.parameters(recurse=False)):
                    raise NotSupported(
                        f"reinitialise: expected {type(layer).__name__} to have reset_parameters, got a layer without. "
                        "Give the module that method, or retrain through a Scenario with build."
                    )
            if callable(start):
                for value in module.parameters():
                    vars(value).pop("_is_hf_initialized", None)
                _start_from_within(module, start)


def _start_from_within(module: nn.Module, start: Callable[[nn.Module], None]) -> None:
    """Inner layers first, for an outer one may know better how its own start; each by the model closest around it."""
    for child in module.children():
        _start_from_within(child, getattr(child, "_init_weights", start))
    start(module)


__all__ = ["Fit", "GradientMethod", "Method", "Null", "Phase", "Strength", "beside_retain", "reinitialise"]
