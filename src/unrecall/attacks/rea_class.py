"""Reminiscence attack, class form: does a forgotten class come back sooner than a class that never was?"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, RecoveryAttack, Success, ascend
from unrecall.data.examples import Batch, Examples, Part
from unrecall.data.request import Request
from unrecall.errors import BadInput, Diverged, NotSupported
from unrecall.models.observe import accuracy, batches, device_of
from unrecall.models.perturb import perturbable
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive, Share
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Perturbable
from unrecall.training.loop import Batches, Fit, Phase, training
from unrecall.training.randomness import draw_seed, seeded
from unrecall.training.session import Effort, Session

SEED = 0
"""Of the one permutation that makes a class which never was: the same for every model, probe and audit."""


@dataclass(frozen=True)
class ReaClass(RecoveryAttack):
    """Reminds a copy of a few forgotten examples, one a step, and counts the steps until it knows them all again.

        theta <- theta - lr * grad CE(one probe example and 14 of retain),    SGD with momentum
        index = the first step after which accuracy on the whole probe is at least 0.9; the last step where none is
        statistic = index(control) - index(probe),    above 0: the class comes back sooner than a new one is learned

    The probe is the very examples trained on: this measures how fast memory returns, and by no means whether other
    examples come back with it. They come round in a fixed order. Each learning rate starts from the model as it was
    given; one that diverges ends there.

    The control is a class that the model can't have met: the probe's own inputs, all values of each moved to other
    places by one permutation, under the probe's labels. It replaces the paper's class left out of training, which a
    request doesn't hold; `statistic` takes real examples of such a class where there are some. A retrained model,
    which a user of the paper's attack doesn't have, is the better control, and stands beside it.

    Args:
        share: the part of forget that is the probe; the paper: 0.03 on CIFAR-10 and CIFAR-20, 0.2 on CIFAR-100.
        steps: fine-tuning steps at which the attacker stops.
        threshold: accuracy on the probe that counts as known.
        learning_rates: tried one after another; the paper's for CIFAR-100 are 0.001, 0.005 and 0.01.
        on: "forget", or "shuffled" for the control.
        fit: SGD, momentum 0.9, no weight decay; its batch is that of retain at each step (4 on CIFAR-100). lr, epochs
            and steps come from above.

    Expected to fail: where the probe is one or two examples, which any model learns in a few steps; where a class that
    was never met is much like one that is kept. Shuffled inputs lie further from all training data than another class
    would, and a network may find them easier or harder to learn: read the statistic beside that of retrained models.

    Reference: Xiao, Ye, Hu, Zheng, Hu, Liang, Li, Jiao, "Reminiscence Attack on Residuals: Exploiting Approximate
    Machine Unlearning for Privacy", ICCV 2025, arXiv 2507.20573, from its code. Differs from the code in the control
    class, and in counting steps from 1.
    """

    title: ClassVar[str] = "Reminiscence attack, class form"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: trains a copy",
        data="a part of the forget examples with labels, and retain examples",
        budget="fine-tuning steps of one forget example and a few of retain, 75 at most",
    )
    axis: ClassVar[str] = "fine-tuning steps"
    needs_class: ClassVar[bool] = True
    named_by: ClassVar[tuple[str, ...]] = ("share",)

    share: Share = 0.03
    steps: Count = 75
    threshold: Share = 0.9
    learning_rates: tuple[Positive, ...] = (0.001, 0.005, 0.006, 0.01, 0.012)
    on: Literal["forget", "shuffled"] = "forget"
    fit: Fit = Fit(weight_decay=0.0, batch_size=14)

    def probe(self, request: Request, generator: torch.Generator) -> Part:
        """A random share of forget, one example at least."""
        order = torch.randperm(len(request.forget), generator=generator).tolist()
        return Part(request.forget, order[: max(1, round(self.share * len(order)))])

    def success(self, model: nn.Module, task: Task, probe: Examples) -> Success:
        """Accuracy on the probe; on its shuffled inputs where this is the control."""
        return Success(accuracy(model, task, self._met(task, probe)))

    def recover(
        self,
        model: nn.Module,
        original: nn.Module,
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session,
    ) -> Iterator[Attacked]:
        """One copy per learning rate, given after every step."""
        probe = self.probe(request, generator)
        met, seed = self._met(task, probe), draw_seed(generator)
        for rate in self.learning_rates:
            for done, student in enumerate(self._reminded(model, met, request, task, rate, seed, session), 1):
                yield Attacked(done, student, probe, f"lr={rate:g}")

    def statistic(
        self,
        model: nn.Module,
        request: Request,
        task: Task,
        generator: torch.Generator,
        session: Session | None = None,
        unseen: Examples | None = None,
    ) -> dict[float, int]:
        """index(control) - index(probe), in steps, at each learning rate.

        `unseen`: examples of a class that the model was never trained on, at least as many as the probe has, in place
        of its shuffled inputs; they get the probe's labels.
        """
        session, probe, seed = session or Session(), self.probe(request, generator), draw_seed(generator)
        control = shuffled(task, probe) if unseen is None else relabelled(task, unseen, probe)

        def index(examples: Examples, rate: float) -> int:
            reminded = self._reminded(model, examples, request, task, rate, seed, session)
            known = (float(accuracy(student, task, examples).mean()) for student in reminded)
            return first(known, self.threshold, self.steps)

        return {rate: index(control, rate) - index(probe, rate) for rate in self.learning_rates}

    def disguise(
        self, original: nn.Module, request: Request, task: Task, generator: torch.Generator, session: Session
    ) -> nn.Module | None:
        """The original whose head, and nothing else, has forgotten half of forget by gradient ascent on it."""
        copied = copy.deepcopy(original).eval()
        head = task.head(copied, next(batches(request.forget, task, 1, device_of(copied))))
        ascend(copied, list(head.parameters()), request.forget, task, generator, session)
        return copied

    def control(self, request: Request) -> tuple[str, RecoveryAttack] | None:
        """The same on shuffled inputs, which come back too: what counts is how much later."""
        return ("shuffled inputs", replace(self, on="shuffled")) if self.on == "forget" else None

    def _met(self, task: Task, probe: Examples) -> Examples:
        """What the model is reminded of."""
        _labelled(task)
        return shuffled(task, probe) if self.on == "shuffled" else probe

    def _reminded(
        self,
        model: nn.Module,
        examples: Examples,
        request: Request,
        task: Task,
        rate: float,
        seed: int,
        session: Session,
    ) -> Iterator[nn.Module]:
        """A copy of the model after each step; it changes once the next is asked for."""
        student, once = copy.deepcopy(model), replace(session, folder=None)
        singles = itertools.cycle(list(batches(examples, task, 1, session.place())))

        def loss(trained: nn.Module, drawn: Batches) -> Tensor:
            return task.rows(trained, joined(next(singles), drawn["retain"])).losses().mean()

        recipe = replace(self.fit, lr=rate, epochs=self.steps, steps=self.steps)
        phase = Phase(loss, {"retain": request.retain}, recipe)
        name = f"rea-class-{self.on}-{rate:g}"
        try:
            for _ in training(student, task, phase, seeded(seed), once, name, Effort()):
                yield student
        except Diverged:
            session.say(f"{name}: stopped being finite; the smaller learning rates stand.")


def first(accuracies: Iterable[float], threshold: float, never: int) -> int:
    """After how many steps the accuracy is at least `threshold` for the first time; `never` where it isn't."""
    return next((step for step, reached in enumerate(accuracies, 1) if reached >= threshold), never)


def joined(one: Batch, more: Batch) -> Batch:
    """Both batches as one."""
    return {name: torch.cat([value.to(more[name].device), more[name]]) for name, value in one.items()}


def shuffled(task: Task, examples: Examples) -> list[Any]:
    """The same examples, each input's values all moved to other places: one permutation for all."""

    def move(inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return flat[:, torch.randperm(flat.shape[1], generator=seeded(SEED))].view_as(inputs)

    return _with_inputs(task, examples, move)


def relabelled(task: Task, unseen: Examples, examples: Examples) -> list[Any]:
    """The first of the unseen inputs under the labels of the examples."""
    if len(unseen) < len(examples):
        raise BadInput(
            f"ReaClass: expected at least {len(examples)} unseen examples, as many as the probe has, got "
            f"{len(unseen)}. Give more, or lower share."
        )
    inputs = _labelled(task).inputs(task.collate([unseen[i] for i in range(len(examples))]))
    return _with_inputs(task, examples, lambda _: inputs)


def _with_inputs(task: Task, examples: Examples, change: Callable[[Tensor], Tensor]) -> list[Any]:
    """The examples with other inputs."""
    able = _labelled(task)
    batch = task.collate([examples[i] for i in range(len(examples))])
    return able.items(able.with_inputs(batch, change(able.inputs(batch))))


def _labelled(task: Task) -> Perturbable:
    """The task, if an example is a continuous input and what it is called; NotSupported otherwise."""
    if task.mixes:
        raise NotSupported(
            f"ReaClass: expected a task whose rows depend on their own example alone, got {type(task).__name__}, whose "
            "rows depend on its batch. Leave this attack out."
        )
    return perturbable(task)
