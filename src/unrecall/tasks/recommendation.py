"""Recommendation: any module that gives a logit for every item of a catalogue, for a user or for a history."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, Fields, NotSupported, check_fields, kind_of
from unrecall.nn.hooks import mode, uncompiled
from unrecall.nn.usable import check_finite
from unrecall.record.schema import Exhibit
from unrecall.tasks.base import Task, down_to_layers, parts_of
from unrecall.tasks.interactions import check_interaction, check_outputs, is_index

FIELDS: Fields = {
    "items": (lambda value: is_index(value) and value != 0, "the number of items in the catalogue, 1 or more"),
    "longest": (is_index, "a whole number from 0 on"),
    "sensitive": (
        lambda value: isinstance(value, tuple | list) and all(map(is_index, value)),
        "a tuple of items, by number",
    ),
    "titles": (lambda value: isinstance(value, tuple | list) and all(map(kind_of(str), value)), "a tuple of names"),
}
"""What each setting of the task must be."""


class Ending(NamedTuple):
    """The module that gives the logits, what enters it `[n, d]`, and the logits `[n, items]`."""

    module: nn.Module
    entered: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Recommendation(Task):
    """Examples are interactions, mappings with `user` and `item`, and in sessions also `history`, the items before it.

    A model maps users `[n]` to logits over all items `[n, items]`; where `longest` is not 0 it maps histories
    `[n, longest]` instead, padded on the right with the number of items. An example is one row, whose target is the
    item; the loss is the cross-entropy over the catalogue.

    `items`: how many items there are, numbered from 0. `longest`: so many of a history's last items are read; 0 for
    collaborative filtering, which knows users alone. `sensitive`: items that nobody may be recommended any more (a
    spammer's, or a category of those who asked); empty where each user's own forgotten items are meant. `titles`: names
    of the items, for people.
    """

    items: int
    longest: int = 0
    sensitive: tuple[int, ...] = ()
    titles: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Settings of a wrong kind are refused; lists become tuples."""
        check_fields("Recommendation", FIELDS, vars(self))
        for name in ("sensitive", "titles"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if outside := [item for item in self.sensitive if item >= self.items]:
            raise BadInput(
                f"Recommendation: expected sensitive items in 0..{self.items - 1}, got {outside[0]}. Number the items "
                "from 0."
            )

    def user(self, example: Any) -> int:
        """Whose interaction an example is."""
        return int(example["user"])

    def item(self, example: Any) -> int:
        """The item of an interaction."""
        return int(example["item"])

    def collate(self, items: Sequence[Any]) -> Batch:
        """`users` and `targets` [examples], and with histories `histories` [examples, longest]."""
        batch = {
            "users": torch.tensor([self.user(example) for example in items]),
            "targets": torch.tensor([self.item(example) for example in items]),
        }
        if self.longest:
            batch["histories"] = torch.tensor([self._padded(example["history"]) for example in items])
        return batch

    def _padded(self, history: Sequence[int]) -> list[int]:
        last = list(map(int, history[-self.longest :]))
        return last + [self.items] * (self.longest - len(last))

    def cut_off(self, item: Any) -> float:
        """The share of a history that is not read."""
        length = len(item.get("history", ())) if self.longest else 0
        return max(0.0, 1 - self.longest / length) if length else 0.0

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """A logit for each item `[examples, items]`."""
        logits: Tensor = model(batch["histories" if self.longest else "users"])
        return logits

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One row an example."""
        return _rows(self.logits(model, batch), batch)

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are what enters the module that gives the logits."""
        ending = self._ending(model, batch)
        return View(_rows(ending.logits, batch), ending.entered)

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """The linear layer that gives the logits; NotSupported where another module does, as in LightGCN."""
        with mode(model, training=False), torch.no_grad():
            module = self._ending(model, batch).module
        if isinstance(module, nn.Linear):
            return module
        raise NotSupported(
            f"Recommendation: expected a model with a linear head, got one that ends in {type(module).__name__}."
        )

    def endings(self, model: nn.Module, batch: Batch) -> list[nn.Module]:
        """The module that gives the logits."""
        with mode(model, training=False), torch.no_grad():
            return [self._ending(model, batch).module]

    def _ending(self, model: nn.Module, batch: Batch) -> Ending:
        """Watches which module's output is the model's."""
        model = uncompiled(model)
        passed: list[Ending] = []

        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] == self.items:
                passed.append(Ending(module, inputs[0], output))

        with ExitStack() as stack:
            for module in model.modules():
                if module is not model and (isinstance(module, nn.Linear) or not list(module.children())):
                    stack.enter_context(module.register_forward_hook(note))
            logits = self.logits(model, batch)
        for ending in passed:
            if ending.logits is logits:
                return ending
        raise NotSupported(
            "Recommendation: expected the model's logits to be the output of one of its modules, got none. Let it end "
            "in nn.Linear, or in a module of its own that gives the products."
        )

    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """The parts in order, without those that have no weights but an earlier part's, as a tied head has."""
        held: set[int] = set()
        blocks = []
        for name, module in down_to_layers(parts_of("", model)):
            own = {id(p) for p in module.parameters()}
            if own - held:
                blocks.append((name, [module]))
            held |= own
        return blocks

    def without_data_of(self, model: nn.Module, forget: Examples) -> nn.Module:
        """The model; where it holds a graph of interactions (it has `withdraw`), a copy whose graph lacks these."""
        if not callable(getattr(getattr(model, "module", model), "withdraw", None)):
            return model
        pairs = torch.tensor([(self.user(example), self.item(example)) for example in iterate(forget)]).T
        clean: Any = copy.deepcopy(model)
        getattr(clean, "module", clean).withdraw(pairs.to(next(model.parameters()).device))
        return clean  # type: ignore[no-any-return]

    def latest(self, request: Request) -> dict[int, Any]:
        """Each user with what is retained of theirs as the history; only those whom forget, retain or test has."""
        longest: dict[int, list[int]] = {}
        for split in (request.forget, request.retain, request.test):
            for example in iterate(split):
                longest.setdefault(self.user(example), [])
        for example in iterate(request.retain):
            history = [*example.get("history", ()), self.item(example)]
            if len(history) >= len(longest[self.user(example)]):
                longest[self.user(example)] = history
        return {user: {"user": user, "item": 0, "history": history} for user, history in sorted(longest.items())}

    def check(self, model: nn.Module, request: Request) -> None:
        """Items must be the catalogue's, users the model's, and outputs logits `[n, items]`; nothing may be NaN."""
        check_finite(model)
        if (looked_for := repr(self)) not in request.checked:
            for split in request.sets:
                for i, example in request.to_check(split):
                    check_interaction(example, f"{split}[{i}]", self.items, sequential=self.longest > 0)
            request.checked.add(looked_for)
        last = [max(iterate(examples), key=self.user) for examples in request.sets.values() if len(examples)]
        batch = move(self.collate(last), next(model.parameters()).device)
        with mode(model, training=False), torch.no_grad():
            check_outputs(lambda: self.logits(model, batch), int(batch["users"].max()), (len(last), self.items))

    def title(self, item: int) -> str:
        """What people call an item."""
        return self.titles[item] if item < len(self.titles) else f"item {item}"

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """Who took what, and after what."""
        before = [self.title(i) for i in item["history"][-3:]] if self.longest else []
        after = f" after {', '.join(before)}" if before else ""
        text = f"user {self.user(item)}: {self.title(self.item(item))}{after}"
        return Exhibit(kind="text", content=text, caption=caption)

    def raw(self, item: Any) -> bytes:
        """The numbers of user, history and item."""
        history = item["history"][-self.longest :] if self.longest else []
        return " ".join(map(str, [self.user(item), *history, self.item(item)])).encode()


def _rows(logits: Tensor, batch: Batch) -> Rows:
    n = len(logits)
    return Rows(logits, batch["targets"], torch.arange(n, device=logits.device), n)
