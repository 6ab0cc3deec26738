"""What a task may offer beyond the least, one protocol each; a method, attack or metric says which of them it needs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.covariates import Covariates
from unrecall.data.examples import Examples, Selection, evenly
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.tasks.base import Task

SAMPLE = 16
"""Examples of forget on which it is seen whether a folder's model reads them as the task does."""


@runtime_checkable
class Perturbable(Protocol):
    """A task whose inputs are continuous tensors, so that they can be perturbed and differentiated."""

    bounds: tuple[float, float]

    def inputs(self, batch: Batch) -> Tensor:
        """The continuous inputs [examples, ...]."""

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same batch with other inputs."""

    def items(self, batch: Batch) -> list[Any]:
        """The examples of a batch as a data set has them: what `collate` undoes."""


@runtime_checkable
class Classed(Protocol):
    """A task whose examples have a class each, so that it shows which class pays when another is forgotten."""

    classes: tuple[str, ...]

    def classified(self) -> Task:
        """The same models and examples, seen as one row an example: a logit for each class, the class as target.

        The task itself where that is what it does; NotSupported where it knows no classes.
        """


@runtime_checkable
class Classifying(Classed, Protocol):
    """A task whose examples have one class each, which is all that its models are asked for."""

    def label(self, item: Any) -> int:
        """The class of an example."""

    def with_labels(self, batch: Batch, labels: Tensor) -> Batch:
        """The same batch with other classes `[examples]`."""


@runtime_checkable
class InGroups(Classifying, Protocol):
    """A task whose examples fall into groups, in some of which a model may do worse than in others."""

    def group(self, item: Any) -> str:
        """The name of the group of an example."""


class Embedded(NamedTuple):
    """Unit vectors of both sides of some pairs, `[n, d]` each."""

    first: Tensor
    second: Tensor


@runtime_checkable
class Paired(Protocol):
    """A task whose examples are two things that belong together, each of which can be looked for by the other."""

    def sides(self, features: Tensor) -> Embedded:
        """Both sides of examples from their features `[n, ...]`, which are what a view gives."""

    def prompts(self, model: nn.Module) -> Tensor | None:
        """Unit vectors of what stands for the classes on the second side, `[classes, d]`; None without classes."""

    def labels(self, examples: Examples) -> Tensor:
        """The class of each example `[n]`, -1 where it has none."""


@runtime_checkable
class Composed(Paired, Protocol):
    """A task of pairs whose second sides are made of parts, each of which can be left out."""

    def embedded(self, model: nn.Module, examples: Examples) -> Embedded:
        """Both sides of all examples, in eval mode, without gradients."""

    def cosines(self, model: nn.Module, batch: Batch) -> Tensor:
        """How alike the two sides of each pair are, `[examples]`, with gradients, in the mode that the model is in."""

    def parts(self, batch: Batch) -> Tensor:
        """Which places of the second sides hold such a part, `[examples, places]`, boolean."""

    def only(self, batch: Batch, parts: Tensor) -> Batch:
        """The pairs with those parts alone that `parts` `[examples, places]` names; what is no part stays."""

    def items(self, batch: Batch) -> list[Any]:
        """The examples of a batch as a data set has them: what `collate` undoes."""


@runtime_checkable
class Prompted(Protocol):
    """A task of prompts and answers, whose rows are those of answers, and may be those of prompts too."""

    def with_prompts(self) -> Task:
        """The same task, for the same batches, in which each token but the first is a row, whatever it is part of."""

    def in_answer(self, batch: Batch) -> Tensor:
        """Which rows of the task `with_prompts` are those of answers, `[rows]`."""


class Sampling(NamedTuple):
    """How answers are drawn: the temperature of each word's distribution, and which share of it is drawn from."""

    temperature: float = 1.0
    top_p: float = 1.0


@runtime_checkable
class Textual(Protocol):
    """A task whose examples are a prompt and an answer, both text, and whose models can write one."""

    def read(self, path: Path) -> Sequence[Any]:
        """Examples from a file; BadInput names the line of one that is none."""

    def prompt(self, item: Any) -> str:
        """What the model is shown."""

    def answer(self, item: Any) -> str:
        """What it should write."""

    def answered(self, item: Any, answer: str) -> Any:
        """The same example with another answer."""

    def asked(self, item: Any, prompt: str) -> Any:
        """The same example with another prompt."""

    def reworded(self, item: Any) -> list[Any]:
        """The same example asked in other words, once for each wording that it brings along."""

    def anonymised(self, item: Any) -> list[Any]:
        """The same example asked without the names in it, once for each such wording that it brings along."""

    def after(self, item: Any, examples: Sequence[Any]) -> Any:
        """The same example, before which these were asked and answered; each has a prompt."""

    def continued(self, item: Any, said: str, prompt: str) -> Any:
        """The same answer to another prompt, in the conversation in which the model has said so to the example's."""

    def fits(self, model: nn.Module, item: Any) -> bool:
        """Whether the example has an answer, and the model's context holds it."""

    def left(self, item: Any, shown: float) -> str:
        """What is left of the answer after the first `shown` share of its tokens, rounded down."""

    def pieces(self, item: Any) -> list[str]:
        """The answer as the model reads it, one string a row."""

    def generate(
        self, model: nn.Module, items: Sequence[Any], longest: int | None = None, shown: float = 0.0
    ) -> list[str]:
        """What the model writes after each prompt and the first `shown` share of its answer's tokens.

        Greedily, until it ends or has written `longest` tokens (None: half as many again as are left of its own
        answer, 4 at least), or the context is full. NotSupported for a model that can't write.
        """

    def draw(self, model: nn.Module, items: Sequence[Any], count: int, sampling: Sampling) -> list[list[str]]:
        """`count` answers drawn after each prompt, `[items][count]`, as long as those that `generate` gives.

        The draws come from torch's global generator, which the caller seeds. NotSupported as in `generate`.
        """

    def neighbours(self, model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
        """The `count` nearest other words of each word of the vocabulary, and how far they are (1 - cosine).

        Both `[vocabulary, count]`, by the model's own input embeddings, nearest first.
        """

    def swapped(
        self, batch: Batch, near: tuple[Tensor, Tensor], share: float, generator: torch.Generator
    ) -> tuple[Batch, Tensor]:
        """The batch with a `share` of what it predicts swapped for neighbours, and how far each example moved.

        The distance `[examples]` is the mean over an example's rows. What was swapped is predicted in its new form.
        """


@runtime_checkable
class Ranked(Protocol):
    """A task whose models rank the items of a catalogue for a user.

    `items`: how many there are.
    """

    items: int

    def user(self, example: Any) -> int:
        """Whose interaction an example is."""


@runtime_checkable
class Recommending(Ranked, Protocol):
    """A ranked task that says what a user is recommended now.

    `sensitive`: items that nobody may be recommended any more; empty where each user has their own, those of forget.
    """

    sensitive: tuple[int, ...]

    def item(self, example: Any) -> int:
        """The item of an interaction."""

    def latest(self, request: Request) -> dict[int, Any]:
        """For each user of the request an example that asks what comes after all that is retained of theirs."""


@runtime_checkable
class Unfinished(Textual, Protocol):
    """A task of texts that also takes the beginning of a text without a prompt."""

    def unfinished(self, text: str) -> Any:
        """A text without a prompt that goes on: nothing ends it."""


@runtime_checkable
class WithDifficulty(Protocol):
    """A task that says how hard an example is, without any model that an audit looks at (`tasks/difficulty.py`)."""

    def difficulty(self, retain: Examples, pool: Examples, seed: int) -> Covariates:
        """What retain and each example of the pool alone say of that example, a row each, in the pool's order.

        No row depends on the order of the pool, and nothing on a model that an audit looks at.
        """


@runtime_checkable
class Exportable(Protocol):
    """A task whose models have a home of their own outside unrecall, and can be left there ready for use."""

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes the model and all that is needed to use it, whole or not at all; an older `folder` gives way."""


@runtime_checkable
class OfFolders(Protocol):
    """A task whose models come in folders that also say how a model is shown examples: by which tokenizer, say."""

    def check_folder(self, folder: Path, examples: Examples) -> None:
        """BadInput where a folder's model is shown examples otherwise than by this task; what it lacks isn't asked.

        `examples`: a few on which that is tried.
        """


def offers(task: Task, *protocols: type) -> bool:
    """Whether the task offers all of these protocols; no inputs are perturbed that its models don't differentiate."""
    if Perturbable in protocols and getattr(task, "continuous", None) is False:
        return False
    return all(isinstance(task, protocol) for protocol in protocols)


EXPECTED: Mapping[type, str] = {
    Perturbable: "a task with continuous inputs",
    Textual: "a task of texts",
    Unfinished: "a task of texts that may break off",
    Classed: "examples that have one class each",
    Classifying: "examples that have one class each and nothing else",
    InGroups: "examples that fall into groups",
    Paired: "a task whose examples are pairs",
    Composed: "pairs whose second sides have parts",
    Ranked: "a task of recommendations",
    Recommending: "a task of recommendations that says what a user is asked now",
}
"""What each protocol asks of a task, in words."""


def check_offers(owner: object, task: Task, *protocols: type, advice: str = "Leave it out.") -> None:
    """NotSupported, said by `owner` (an object or a name), where the task lacks one of these protocols."""
    for protocol in protocols:
        if not offers(task, protocol):
            name = owner if isinstance(owner, str) else type(owner).__name__
            raise NotSupported(f"{name}: expected {EXPECTED[protocol]}, got {type(task).__name__}. {advice}")


def perturbable(task: Task) -> Perturbable:
    """The task, if its inputs can be perturbed; NotSupported otherwise."""
    if offers(task, Perturbable):
        return cast(Perturbable, task)
    raise NotSupported(
        f"{type(task).__name__}: expected a task with continuous inputs, got one without. Take what perturbs no inputs."
    )


def textual(owner: object, task: Task, advice: str = "Leave this attack out.") -> Textual:
    """The task, if its examples are texts; NotSupported otherwise. `owner`: who needs that, or its name."""
    check_offers(owner, task, Textual, advice=advice)
    return cast(Textual, task)


def fitting(texts: Textual, model: nn.Module, changed: Any, item: Any) -> Any:
    """The changed example, or the example as it is where the model's context doesn't hold the other."""
    return changed if texts.fits(model, changed) else item


def unfinished(owner: object, task: Task) -> Unfinished:
    """The task, if it takes texts that break off; NotSupported otherwise."""
    check_offers(owner, task, Unfinished)
    return cast(Unfinished, task)


def classed(owner: object, task: Task, advice: str = "Leave it out.") -> Classed:
    """The task, if its examples have a class each; NotSupported otherwise."""
    check_offers(owner, task, Classed, advice=advice)
    return cast(Classed, task)


def paired(owner: object, task: Task) -> Paired:
    """The task, if its examples are pairs; NotSupported otherwise."""
    check_offers(owner, task, Paired)
    return cast(Paired, task)


def recommending(owner: object, task: Task) -> Recommending:
    """The task, if it is one of recommendations; NotSupported otherwise."""
    check_offers(owner, task, Recommending)
    return cast(Recommending, task)


def composed(owner: object, task: Task, advice: str = "Choose another method.") -> Composed:
    """The task, if its examples are pairs whose second sides have parts; NotSupported otherwise."""
    check_offers(owner, task, Composed, advice=advice)
    return cast(Composed, task)


def check_own_rows(owner: object, task: Task, advice: str) -> None:
    """NotSupported, said by `owner`, where an example's rows depend on the others of its batch."""
    if task.rows_depend_on_batch:
        name, task_name = owner if isinstance(owner, str) else type(owner).__name__, type(task).__name__
        raise NotSupported(f"{name}: expected rows that depend on their own example alone, got {task_name}'s. {advice}")


def class_names(task: Task) -> tuple[str, ...]:
    """What people call the task's classes; empty where it has none, or nobody named them."""
    return task.classes if isinstance(task, Classed) else ()


def with_own_rows(task: Task) -> Task:
    """The task, or a form of it in which an example's rows depend on that example alone; NotSupported without one."""
    if not task.rows_depend_on_batch:
        return task
    if isinstance(task, Classed):
        return task.classified()
    raise NotSupported(f"{type(task).__name__}: expected rows that depend on one example each, got a task that mixes.")


def export(task: Task, model: nn.Module, folder: Path) -> None:
    """Writes the model in the form that it has outside unrecall, where the task knows one; nothing otherwise."""
    if isinstance(task, Exportable):
        task.export(model, folder)


def check_folders(task: Task, request: Request, *checkpoints: Path) -> None:
    """BadInput where the folder of a model says that it is shown examples otherwise than by this task."""
    examples = Selection(request.forget, evenly(len(request.forget), SAMPLE))
    for folder in filter(Path.is_dir, checkpoints):
        if isinstance(task, OfFolders):
            task.check_folder(folder, examples)
