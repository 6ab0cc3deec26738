"""A small world of users and items: matrix factorisation, or a mean over a history; and what is worked out by hand."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.worlds import CPU, World
from unrecall.data.batches import Batch
from unrecall.data.request import Request
from unrecall.data.signals import Rows, View
from unrecall.models.importance import Losses
from unrecall.record.schema import Exhibit
from unrecall.tasks.base import Task
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded

Interaction = dict[str, Any]


class Factors(nn.Module):
    """Scores of all items: the user's vector, or the mean of the vectors of a history, times each item's."""

    def __init__(self, users: int, items: int, width: int = 4) -> None:
        super().__init__()
        self.users, self.past = nn.Embedding(users, width), nn.Embedding(items + 1, width, padding_idx=items)
        self.items = nn.Linear(width, items, bias=False)

    def side(self, batch: Batch) -> Tensor:
        """What stands for who is asked about `[examples, width]`."""
        if "history" not in batch:
            vectors: Tensor = self.users(batch["user"])
            return vectors
        counts = batch["history"].ne(self.past.padding_idx).sum(1, keepdim=True).clamp_min(1)
        return self.past(batch["history"]).sum(1) / counts  # type: ignore[no-any-return]


class Interactions(Task):
    """One row an example, a logit for each item."""

    def __init__(self, items: int) -> None:
        self.items = items

    def __repr__(self) -> str:
        return f"Interactions({self.items})"

    def user(self, example: Interaction) -> int:
        return int(example["user"])

    def collate(self, items: Sequence[Interaction]) -> Batch:
        batch = {name: torch.tensor([int(example[name]) for example in items]) for name in ("user", "item")}
        if "history" in items[0]:
            longest = max(len(example["history"]) for example in items)
            padded = [[*example["history"], *[self.items] * (longest - len(example["history"]))] for example in items]
            batch["history"] = torch.tensor(padded)
        return batch

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        return self.view(model, batch).rows

    def view(self, model: Any, batch: Batch) -> View:
        features = model.side(batch)
        n = len(features)
        return View(Rows(model.items(features), batch["item"], torch.arange(n), n), features)

    def head(self, model: Any, batch: Batch) -> nn.Linear:
        return model.items  # type: ignore[no-any-return]

    def blocks(self, model: Any) -> list[tuple[str, list[nn.Module]]]:
        return [("users", [model.users, model.past]), ("items", [model.items])]

    def check(self, model: nn.Module, request: Request) -> None:
        pass

    def exhibit(self, item: Interaction, caption: str) -> Exhibit:
        raise NotImplementedError

    def raw(self, item: Interaction) -> bytes:
        return repr(item).encode()


def pairs_of(*pairs: tuple[int, int]) -> list[Interaction]:
    return [{"user": user, "item": item} for user, item in pairs]


def factors(users: int, items: int, seed: int = 0) -> Factors:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Factors(users, items)


def make_interactions_world() -> World:
    """24 users in two camps, who each know 5 of their camp's 8 items: 4 users forget 2 each."""
    chosen = {user: torch.randperm(8, generator=seeded(user))[:7] + 8 * (user % 2) for user in range(24)}
    known = [(user, int(item)) for user, items in chosen.items() for item in items[:5]]
    forget = [pair for pair in known if pair[0] < 4][::2][:8]
    request = Request(
        pairs_of(*forget),
        pairs_of(*(pair for pair in known if pair not in forget)),
        pairs_of(*((user, int(items[5])) for user, items in chosen.items())),
        pairs_of(*((user, int(items[6])) for user, items in chosen.items())),
    )
    task = Interactions(16)

    def learn(examples: list[Interaction], seed: int) -> nn.Module:
        model = factors(24, 16, seed)
        recipe = Fit(optimizer="adam", lr=0.02, weight_decay=0.0, epochs=60, batch_size=16)
        phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": examples}, recipe)
        fit(model, task, phase, seeded(seed), CPU)
        return model

    kept = list(request.retain)  # type: ignore[call-overload]
    return World(request, task, learn(pairs_of(*forget) + kept, 0), (learn(kept, 11),))


def by_user() -> Request:
    """Three users and four items: user 0 forgets item 0, and has 1 and 2 left; the others have two each."""
    return Request(pairs_of((0, 0)), pairs_of((0, 1), (0, 2), (1, 0), (1, 3), (2, 2), (2, 3)))


def dense(model: nn.Module, task: Task, examples: Sequence[Interaction]) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss of some examples in all weights, and its Hessian, as whole as they are."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    batch = task.collate(examples)

    def loss(vector: Tensor) -> Tensor:
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        weights = {f"model.{n}": part.view(shape) for n, part, shape in zip(names, parts, shapes, strict=True)}
        value: Tensor = torch.func.functional_call(Losses(model, task), weights, (batch,))
        return value.sum()

    vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    hessian: Tensor = torch.func.hessian(loss)(vector)
    return torch.func.grad(loss)(vector), hessian


def vector_of(model: nn.Module) -> Tensor:
    """All weights as one vector."""
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()
