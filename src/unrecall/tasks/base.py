"""What the rest of unrecall may ask about a modality: nothing else knows one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from unrecall.errors import BadInput, NotSupported
from unrecall.records import Exhibit
from unrecall.types import Batch, Examples, Request, Rows, View

Modality: TypeAlias = Literal["classification", "language", "contrastive"]


class Task(ABC):
    """How one modality is trained and observed; an adapter between a model, its data and everything else.

    `modality`: which attacks an audit runs unless told otherwise. `at_once`: examples in a forward pass without
    gradients. `mixes`: whether an example's rows depend on the other examples of its batch.
    """

    modality: ClassVar[Modality]
    at_once: ClassVar[int] = 256
    mixes: ClassVar[bool] = False

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """Named tensors from a list of examples, one entry an example."""

    @abstractmethod
    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One forward pass: logits and target of each predicted unit. Nearly every loss is a function of rows."""

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of each example, `[examples]`, in nats; `vmap` can follow it where it must."""
        return self.rows(model, batch).losses()

    def positions(self, batch: Batch) -> Tensor | None:
        """Which positions of an activation `[examples, positions, d]` hold input; None where all of them do."""
        return None

    @abstractmethod
    def view(self, model: nn.Module, batch: Batch) -> View:
        """One forward pass: the rows, and the features [examples, d] that enter the head."""

    @abstractmethod
    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """The linear layer that turns features into logits; NotSupported where there is none."""

    def endings(self, model: nn.Module, batch: Batch) -> list[nn.Module]:
        """The modules that the model's last representation enters: the head, or the last of each tower."""
        return [self.head(model, batch)]

    @abstractmethod
    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """The parts of the model in order, input to output, by name; together they hold every parameter once.

        A parameter that stands beside the layers, in no module of its own, is in none of them.
        """

    @abstractmethod
    def check(self, model: nn.Module, request: Request) -> None:
        """Raises BadInput where model and data do not fit, before any compute: shapes, labels, NaN, probabilities."""

    @abstractmethod
    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """An example as a person would look at it."""

    @abstractmethod
    def raw(self, item: Any) -> bytes:
        """What an example is made of, for compression."""


@runtime_checkable
class Perturbable(Protocol):
    """A task whose inputs are continuous tensors, so that they can be perturbed and differentiated."""

    bounds: tuple[float, float]

    def inputs(self, batch: Batch) -> Tensor:
        """The continuous inputs [examples, ...]."""
        ...

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same batch with other inputs."""
        ...

    def items(self, batch: Batch) -> list[Any]:
        """The examples of a batch as a data set has them: what `collate` undoes."""
        ...


@runtime_checkable
class Classed(Protocol):
    """A task whose examples have a class each, so that it shows which class pays when another is forgotten."""

    classes: tuple[str, ...]

    def classified(self) -> Task:
        """The same models and examples, seen as one row an example: a logit for each class, the class as target.

        The task itself where that is what it does; NotSupported where it knows no classes.
        """
        ...


def unmixed(task: Task) -> Task:
    """The task itself, or a form of it in which an example's rows depend on that example alone; else NotSupported."""
    if not task.mixes:
        return task
    if not isinstance(task, Classed):
        raise NotSupported(
            f"{type(task).__name__}: expected rows that depend on one example each, got a task that mixes."
        )
    return task.classified()


class Embedded(NamedTuple):
    """Unit vectors of both sides of some pairs, `[n, d]` each."""

    first: Tensor
    second: Tensor


@runtime_checkable
class Paired(Protocol):
    """A task whose examples are two things that belong together, each of which can be looked for by the other."""

    def sides(self, features: Tensor) -> Embedded:
        """Both sides of examples from their features `[n, ...]`, which are what a view gives."""
        ...

    def prompts(self, model: nn.Module) -> Tensor | None:
        """Unit vectors of what stands for the classes on the second side, `[classes, d]`; None without classes."""
        ...

    def labels(self, examples: Examples) -> Tensor:
        """The class of each example `[n]`, -1 where it has none."""
        ...


@runtime_checkable
class Composed(Paired, Protocol):
    """A task of pairs whose second sides are made of parts, each of which can be left out."""

    def embedded(self, model: nn.Module, examples: Examples) -> Embedded:
        """Both sides of all examples, in eval mode, without gradients."""
        ...

    def cosines(self, model: nn.Module, batch: Batch) -> Tensor:
        """How alike the two sides of each pair are, `[examples]`, with gradients, in the mode that the model is in."""
        ...

    def parts(self, batch: Batch) -> Tensor:
        """Which places of the second sides hold such a part, `[examples, places]`, boolean."""
        ...

    def only(self, batch: Batch, kept: Tensor) -> Batch:
        """The pairs without the parts that `kept` `[examples, places]` leaves out; what is no part stays."""
        ...

    def items(self, batch: Batch) -> list[Any]:
        """The examples of a batch as a data set has them: what `collate` undoes."""
        ...


@runtime_checkable
class Textual(Protocol):
    """A task whose examples are a prompt and an answer, both text, and whose models can write one."""

    def read(self, path: Path) -> Sequence[Any]:
        """Examples from a file; BadInput names the line of one that is none."""
        ...

    def prompt(self, item: Any) -> str:
        """What the model is shown."""
        ...

    def answer(self, item: Any) -> str:
        """What it should write."""
        ...

    def answered(self, item: Any, answer: str) -> Any:
        """The same example with another answer."""
        ...

    def asked(self, item: Any, prompt: str) -> Any:
        """The same example with another prompt."""
        ...

    def reworded(self, item: Any) -> list[Any]:
        """The same example asked in other words, once for each wording that it brings along."""
        ...

    def fits(self, model: nn.Module, item: Any) -> bool:
        """Whether the example has an answer, and the model's context holds it."""
        ...

    def with_answers(self, batch: Batch, answers: Sequence[str]) -> Batch:
        """The same prompts with other answers, one an example."""
        ...

    def left(self, item: Any, shown: float) -> str:
        """What is left of the answer after the first `shown` share of its tokens, rounded down."""
        ...

    def pieces(self, item: Any) -> list[str]:
        """The answer as the model reads it, one string a row."""
        ...

    def generate(
        self, model: nn.Module, items: Sequence[Any], longest: int | None = None, shown: float = 0.0
    ) -> list[str]:
        """What the model writes after each prompt and the first `shown` share of its answer's tokens.

        Greedily, until it ends or has written `longest` tokens (None: half as many again as are left).
        """
        ...

    def neighbours(self, model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
        """The `count` nearest other words of each word of the vocabulary, and how far they are (1 - cosine).

        Both `[vocabulary, count]`, by the model's own input embeddings, nearest first.
        """
        ...

    def swapped(
        self, batch: Batch, near: tuple[Tensor, Tensor], share: float, generator: torch.Generator
    ) -> tuple[Batch, Tensor]:
        """The batch with a `share` of what it predicts swapped for neighbours, and how far each example moved.

        The distance `[examples]` is the mean over an example's rows. What was swapped is predicted in its new form.
        """
        ...


@runtime_checkable
class Exportable(Protocol):
    """A task whose models have a home of their own outside unrecall, and can be left there ready for use."""

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes the model and all that is needed to use it, whole or not at all; an older `folder` gives way."""
        ...


def check_finite(model: nn.Module) -> None:
    """BadInput where a weight is NaN or infinite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(f"model: expected finite weights, got NaN or infinity in '{name}'. Load a sound checkpoint.")


def check_class_request(request: Request, forgotten: set[int], kept: set[int]) -> None:
    """BadInput unless a class that is forgotten whole is all of forget and nothing of retain, by their labels."""
    if forgotten != set(request.masked) or kept & forgotten:
        raise BadInput(
            f"Request: expected forget to hold all of classes {sorted(request.masked)} and retain none, got classes "
            f"{sorted(forgotten)} in forget and {sorted(kept & set(request.masked))} of them in retain."
        )


def parts_of(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a module that hold weights, by dotted name, sequences among them opened."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        path = f"{prefix}.{name}".lstrip(".")
        if isinstance(child, nn.Sequential | nn.ModuleList):
            parts += parts_of(path, child)
        elif any(True for _ in child.parameters()):
            parts.append((path, child))
    return parts if parts or not any(True for _ in module.parameters()) else [(prefix, module)]


def opened(parts: Sequence[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Parts that hold layers replaced by their own parts, until two of them are numbered or nothing is left to open."""
    found = list(parts)
    while len(numbered(found)) < 2:
        deeper = [one for name, part in found for one in (parts_of(name, part) if _layered(part) else [(name, part)])]
        if deeper == found:
            break
        found = deeper
    return found


def _layered(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Sequential | nn.ModuleList) for module in part.modules())


def numbered(parts: Sequence[tuple[str, nn.Module]]) -> list[str]:
    """The names of the parts that are numbered: a model's layers."""
    return [name for name, _ in parts if name.rsplit(".", 1)[-1].isdecimal()]
