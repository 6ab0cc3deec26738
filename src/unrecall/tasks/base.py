"""What the rest of unrecall may ask about a modality: nothing else knows one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, evenly, iterate, several
from unrecall.data.request import SPLITS, Request
from unrecall.data.request_checks import check_same
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, out_of_memory
from unrecall.nn.hooks import mode
from unrecall.nn.usable import check_model
from unrecall.record.schema import Exhibit

Parts: TypeAlias = list[tuple[str, nn.Module]]


class Task(ABC):
    """How one modality is trained and observed; an adapter between a model, its data and everything else.

    `at_once`: examples in a forward pass without gradients. `rows_depend_on_batch`: whether an example's rows depend on
    the other examples of its batch.
    """

    at_once: ClassVar[int] = 256
    rows_depend_on_batch: ClassVar[bool] = False

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """Named tensors from a list of examples, one entry an example."""

    def content(self, item: Any) -> str:
        """sha256 of what the task reads of an example: examples that it can't tell apart have the same."""
        return digest({name: value + 0 for name, value in self.collate([item]).items()})  # -0.0 is 0.0

    def contents(self, items: Sequence[Any]) -> list[str]:
        """A text for each example, the same where two have the same content; many at once."""
        return [self.content(item) for item in items]

    def cut_off(self, item: Any) -> float:
        """The share of an example that the task never reads, since it cuts what is too long."""
        return 0.0

    @abstractmethod
    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One forward pass: logits and target of each predicted unit. Nearly every loss is a function of rows."""

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of each example `[examples]`, in float64; `vmap` can follow it where it must."""
        return self.rows(model, batch).exact_losses()

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

    def settled(self, model: nn.Module | None, request: Request) -> "Task":
        """The task with what it left open decided by looking at the model before unlearning; itself where nothing is.

        None: the model is still to be trained, by this task.
        """
        return self

    def settled_and_checked(self, model: nn.Module, request: Request) -> "Task":
        """The settled task, whose check the model and data have passed too: other tokens may be too many."""
        task = self.settled(model, request)
        if task is not self:
            task.check(model, request)
        return task

    def without_data_of(self, model: nn.Module, forget: Examples) -> nn.Module:
        """A model that holds nothing of `forget` as data, as a graph of interactions does; itself where it has none.

        What methods and retrained models start from; its weights are those of the model.
        """
        return model

    @property
    def remark(self) -> str:
        """What people must know of the rows beside numbers that are made of them; empty where there is nothing."""
        return ""

    @abstractmethod
    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """An example as a person would look at it."""

    @abstractmethod
    def raw(self, item: Any) -> bytes:
        """What an example is made of, for compression."""


def check_inputs(task: Task, model: nn.Module, request: Request) -> None:
    """BadInput where the model doesn't fit the data, examples change, or the task reads the same example in two sets.

    Everything that audits, unlearns, tunes or trains calls this first. The last two checks read all data, and so run
    once for each request and task.
    """
    check_model(model)
    check_data(task, model, request)


def check_data(task: Task, model: nn.Module, request: Request) -> None:
    """The part of `check_inputs` that follows `check_model`, for whoever has asked that already."""
    task.check(model, request)
    _check_answers(task, model, [request.forget[i] for i in range(min(4, len(request.forget)))])
    if not request.indexed and (looked_for := f"apart as {task!r}") not in request.checked:
        request.check_apart({name: list(_contents(task, request, name)) for name in request.sets})
        request.checked.add(looked_for)


def check_learnable(name: str, examples: Examples, first: Any, task: Task, model: nn.Module) -> None:
    """BadInput where a task makes no batch, or no loss, of a few examples, each beside the first one of forget."""
    device = next(model.parameters()).device
    for i in evenly(len(examples), 4):
        try:
            with mode(model, training=False), torch.no_grad():
                task.losses(model, move(task.collate([first, examples[i]]), device))
        except (AssertionError, AttributeError, BadInput, LookupError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"{name}[{i}]: expected an example that can be learned beside forget[0], got: {line[:300]}. Bring it "
                "into the same form."
            ) from error


def _check_answers(task: Task, model: nn.Module, items: Sequence[Any]) -> None:
    """BadInput where a task makes no batch or no rows of a few examples, or others the second time."""
    owner = type(task).__name__
    batch, other = task.collate(items), task.collate(items)
    if not isinstance(batch, dict) or not all(isinstance(value, Tensor) for value in batch.values()):
        kind = type(batch).__name__
        raise BadInput(f"{owner}: expected collate to give a dict of tensors, got {kind}. Name its tensors in a dict.")
    if digest(batch) != digest(other):
        raise BadInput(
            f"{owner}: expected collate to give the same batch of the same examples, got two different ones, as random "
            "augmentation gives. Leave it out: what is unlearned and measured must stay the same."
        )
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with mode(model, training=False), torch.no_grad(), torch.random.fork_rng(devices=devices):
        first, second = (task.rows(model, move(batch, device)) for _ in range(2))
    if not isinstance(first, Rows) or not isinstance(first.logits, Tensor) or first.logits.ndim != 2:
        kind = type(first.logits if isinstance(first, Rows) else first).__name__
        raise BadInput(
            f"{owner}: expected rows to give Rows with logits [rows, classes], got {kind}. Return "
            "Rows(logits, targets, example, examples)."
        )
    if not first.logits.is_floating_point():
        raise BadInput(f"{owner}: expected logits in floats, got {first.logits.dtype}. Let the model return floats.")
    differ = (first.logits.double() - second.logits.double()).abs().nan_to_num(0.0, 0.0)
    if differ.numel() and float(differ.max()) > 1e-4 * float(first.logits.double().abs().nan_to_num(0.0, 0.0).max()):
        raise BadInput(
            "model: expected the same outputs for the same inputs in eval mode, got two different ones. Let it draw "
            "nothing there: draw only if self.training, as nn.Dropout does."
        )


def _contents(task: Task, request: Request, name: str) -> Iterator[str]:
    """What each example of a set is to the task; BadInput where one isn't what it was when it was first read."""
    examples, digests = request.sets[name], request.identities[name].values
    for start in range(0, len(examples), task.at_once):
        places = range(start, min(start + task.at_once, len(examples)))
        items = several(examples, places)
        for i, item in zip(places, items, strict=True):
            check_same(digests[i], digest(item), f"{name}[{i}]")
        yield from task.contents(items)


def cuts(task: Task, request: Request) -> list[str]:
    """What each split loses by being cut, a sentence for each that loses something."""
    sentences: list[str] = []
    if type(task).cut_off is Task.cut_off:
        return sentences
    for split in SPLITS:
        shares = [task.cut_off(item) for item in iterate(request[split])]
        if lost := [share for share in shares if share > 0]:
            mean = 100 * sum(lost) / len(lost)
            sentences.append(f"{len(lost)} of {len(shares)} {split} examples lose {mean:.0f} % of their tokens")
    return sentences


def check_class_request(request: Request, forgotten: set[int], retained: set[int]) -> None:
    """BadInput unless a class that is forgotten whole is all of forget and nothing of retain, by their labels."""
    if forgotten != set(request.masked) or retained & forgotten:
        raise BadInput(
            f"Request: expected forget to hold all of classes {sorted(request.masked)} and retain none, got classes "
            f"{sorted(forgotten)} in forget and {sorted(retained & set(request.masked))} of them in retain."
        )


def check_class_holdout(request: Request, unseen: set[int]) -> None:
    """BadInput where holdout has none of the classes that are forgotten whole, which it is said to share."""
    if len(request.holdout) and not unseen & set(request.masked):
        raise BadInput(
            f"Request: expected holdout to have examples of classes {sorted(request.masked)}, which are forgotten, got "
            "none. Give such as were never trained on, or leave holdout out."
        )


def check_samples_request(forgotten: set[int], retained: set[int]) -> None:
    """BadInput where retain has no class of forget: whole classes go, which no model that stays will know."""
    if not forgotten & retained:
        classes = tuple(sorted(forgotten))
        raise BadInput(
            f"Request: expected retain to have examples of a class of forget, got none of {list(classes)}. Where whole "
            f"classes must go, say so: kind='class', masked={classes}."
        )


def parts_of(prefix: str, module: nn.Module) -> Parts:
    """The parts of a module that hold weights, by dotted name, sequences among them opened."""
    parts: Parts = []
    for name, child in module.named_children():
        path = f"{prefix}.{name}".lstrip(".")
        if isinstance(child, nn.Sequential | nn.ModuleList):
            parts += parts_of(path, child)
        elif any(True for _ in child.parameters()):
            parts.append((path, child))
    return parts if parts or not any(True for _ in module.parameters()) else [(prefix, module)]


def down_to_layers(parts: Parts) -> Parts:
    """Parts that hold layers replaced by their own parts, until two of them are numbered or nothing is left to open."""
    before, now = Parts(), list(parts)
    while len(numbered(now)) < 2 and now != before:
        before, now = now, [inner for part in now for inner in (parts_of(*part) if _holds_layers(part[1]) else [part])]
    return now


def _holds_layers(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Sequential | nn.ModuleList) for module in part.modules())


def split_after_layers(parts: Parts) -> tuple[Parts, Parts]:
    """The parts up to the last layer, and those after it; all and none where there are no layers."""
    layers = numbered(parts)
    end = next((i for i, (name, _) in enumerate(parts, 1) if layers and name == layers[-1]), len(parts))
    return parts[:end], parts[end:]


def numbered(parts: Parts) -> list[str]:
    """The names of the parts that are numbered: a model's layers."""
    return [name for name, _ in parts if name.rsplit(".", 1)[-1].isdecimal()]
