"""What a method or an attack is given beside a model."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from unrecall.data.request import Request
from unrecall.errors import Fields, check_fields, kind_of
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

FIELDS: Fields = {
    "request": (kind_of(Request), "a Request"),
    "task": (kind_of(Task), "a Task, as ur.tasks.Classification() is"),
    "generator": (kind_of(torch.Generator), "a torch.Generator"),
    "session": (kind_of(Session), "a Session"),
}
"""What each part of a job must be."""


@dataclass(frozen=True)
class Job:
    """The request, the task, the randomness and the session of one piece of work.

    `generator`: seed 0 unless given; whoever draws from it changes what is drawn next. `enough`: says of a model
    whether it has forgotten enough; training on forget stops where it has, and None never stops it. `precision`: the
    number format, as float16, in which what comes of the work is written, and which it is judged in; None for the
    model's own.
    """

    request: Request
    task: Task
    generator: torch.Generator = field(default_factory=lambda: seeded(0))
    session: Session = field(default_factory=Session)
    enough: Callable[[nn.Module], bool] | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        """Whatever is no request, task, generator or session is refused."""
        check_fields("Job", FIELDS, {name: getattr(self, name) for name in FIELDS})

    def until(self, enough: Callable[[nn.Module], bool] | None) -> "Job":
        """The same work, which stops where a model has forgotten enough."""
        return replace(self, enough=enough)

    def on(self, request: Request) -> "Job":
        """The same work for another request."""
        return replace(self, request=request)

    def settled(self, model: nn.Module) -> "Job":
        """The same work, with what the task left open decided by looking at what `model` says of forget."""
        task = self.task.settled_and_checked(model, self.request.only("forget"))
        return self if task is self.task else replace(self, task=task)

    def seeded(self, seed: int) -> "Job":
        """The same work with a generator of its own, which starts from `seed`."""
        return replace(self, generator=seeded(seed))

    def quiet(self) -> "Job":
        """The same work, showing and keeping nothing on the way."""
        return replace(self, session=self.session.quiet())
