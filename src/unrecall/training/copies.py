"""The copies of a model that an attacker trains, and whether such a copy is still of use."""

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from unrecall.data.examples import Selection, evenly
from unrecall.data.request import Request
from unrecall.disk.weights import HALF
from unrecall.errors import Diverged
from unrecall.models.low_rank import LowRank
from unrecall.models.observe import accuracy
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classifying, offers
from unrecall.training.loop import Phase, fit_by_step
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.session import Session


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


LOOKED_AT = 500
"""How many retain examples say whether a copy is still of use."""
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
    """Trains an attacker's copy of the model, and yields (steps, copy) after each step; the copy changes with the next.

    `change`: what is trained beside the weights in place of them. Nothing is yielded before a weight has moved, for the
    copy is still the model as given; where there is nothing left to learn (losses up to `LEARNED`) it is yielded once,
    at the end. Training ends where the copy diverges. The session says what stopped it.
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
        for step in fit_by_step(student, task, phase, generator, session.quiet()):
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


def usefulness(model: nn.Module, request: Request, task: Task, drop: float) -> Callable[[nn.Module], bool]:
    """Tells of a copy of a classifier whether it gets as much of retain right as the model, but for a share `drop`.

    For a classifier that is ruined may answer one class whatever it is shown, which is right on all of that class. Of
    other models' copies all are of use, since no single answer is right on many examples.
    """
    if not offers(task, Classifying):
        return lambda _: True
    guard = Selection(request.retain, evenly(len(request.retain), LOOKED_AT))
    least = (1 - drop) * float(accuracy(model, task, guard).mean()) - 1e-9
    return lambda attacked: float(accuracy(attacked, task, guard).mean()) >= least
