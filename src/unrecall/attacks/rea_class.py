"""Reminiscence attack, class form: does a forgotten class come back sooner than a class that never was?"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, RecoveryAttack, Success
from unrecall.data.batches import concatenated
from unrecall.data.examples import Examples, split_off
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import accuracy, batches
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive, Share
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Perturbable, perturbable
from unrecall.training.ascent import ascend, head_of
from unrecall.training.copies import copies, own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase
from unrecall.training.randomness import draw_seed, seeded

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
        dose: "forget", or "both": the attacker's examples come from forget and holdout alike.

    Expected to fail: where the probe is one or two examples, which any model learns in a few steps; where a class that
    was never met is much like one that is kept. Shuffled inputs lie further from all training data than another class
    would, and a network may find them easier or harder to learn: read the statistic beside that of retrained models.

    Reference: Xiao, Ye, Hu, Zheng, Hu, Liang, Li, Jiao, "Reminiscence Attack on Residuals: Exploiting Approximate
    Machine Unlearning for Privacy", ICCV 2025, arXiv 2507.20573, from its code. Differs from the code in the control
    class, in counting steps from 1, and in going round a probe of fewer examples than `steps` (one pass over it there).
    """

    title: ClassVar[str] = "Reminiscence attack, class form"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: trains a copy",
        data="a part of the forget examples with labels, and retain examples",
        budget="fine-tuning steps of one forget example and a few of retain, 75 at most",
    )
    axis: ClassVar[str] = "fine-tuning steps"
    needs: ClassVar[tuple[type, ...]] = (Perturbable,)
    needs_class: ClassVar[bool] = True
    retested: ClassVar[bool] = True
    named_by: ClassVar[tuple[str, ...]] = ("share",)

    share: Share = 0.03
    steps: Count = 75
    threshold: Share = 0.9
    learning_rates: tuple[Positive, ...] = (0.001, 0.005, 0.006, 0.01, 0.012)
    on: Literal["forget", "shuffled"] = "forget"
    fit: Fit = Fit(weight_decay=0.0, batch_size=14)
    dose: Dose = "forget"

    def teaches(self, n: int, request: Request) -> int:
        """A share of them, one at least."""
        return max(1, round(self.share * n))

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """Accuracy on the examples; on their shuffled inputs where this is the control."""
        return Success(accuracy(model, task, self._reminder(task, examples)))

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One copy per learning rate, given after every step."""
        examples, job = self._reminder(setting.task, pool.taught), setting.job().seeded(draw_seed(pool.generator()))
        for rate in self.learning_rates:
            for step, student in enumerate(self._reminded(model, examples, job, rate), 1):
                yield Attacked(step, student, pool.tested, f"lr={rate:g}")

    def statistic(self, model: nn.Module, job: Job, unseen: Examples | None = None) -> dict[float, int]:
        """index(control) - index(probe), in steps, at each learning rate.

        `unseen`: examples of a class that the model was never trained on, at least as many as the probe has, in place
        of its shuffled inputs; they get the probe's labels.
        """
        forget, task = job.request.forget, job.task
        probe, _ = split_off(forget, self.teaches(len(forget), job.request), job.generator)
        control = shuffled(task, probe) if unseen is None else relabelled(task, unseen, probe)
        trial = job.seeded(draw_seed(job.generator))

        def index(examples: Examples, rate: float) -> int:
            reminded = self._reminded(model, examples, trial, rate)
            accuracies = (float(accuracy(student, task, examples).mean()) for student in reminded)
            return first(accuracies, self.threshold, self.steps)

        return {rate: index(control, rate) - index(probe, rate) for rate in self.learning_rates}

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original whose head, and nothing else, has forgotten half of forget by gradient ascent on it."""
        copied = own_copy(original).eval()
        ascend(copied, list(head_of(copied, job).parameters()), job)
        return copied

    def contrast(self) -> tuple[str, RecoveryAttack] | None:
        """The same on shuffled inputs, which come back too: what counts is how much later."""
        return ("shuffled inputs", replace(self, on="shuffled")) if self.on == "forget" else None

    def _reminder(self, task: Task, probe: Examples) -> Examples:
        """What the model is reminded of: the probe, or its shuffled inputs where this is the control."""
        _labelled(task)
        return shuffled(task, probe) if self.on == "shuffled" else probe

    def _reminded(self, model: nn.Module, examples: Examples, job: Job, rate: float) -> Iterator[nn.Module]:
        """A copy of the model after each step; it changes once the next is asked for."""
        task = job.task
        singles = itertools.cycle(list(batches(examples, task, 1, job.session.torch_device())))

        def loss(trained: nn.Module, drawn: Batches) -> Tensor:
            return task.rows(trained, concatenated([next(singles), drawn["retain"]])).losses().mean()

        recipe = replace(self.fit, lr=rate, epochs=self.steps, steps=self.steps)
        phase = Phase(loss, {"retain": job.request.retain}, recipe)
        session, generator = job.session.named(f"rea_class on {self.on}, lr={rate:g}"), torch.Generator()
        generator.set_state(job.generator.get_state())
        return (student for _, student in copies(model, task, phase, generator, session))


def first(accuracies: Iterable[float], threshold: float, never: int) -> int:
    """After how many steps the accuracy is at least `threshold` for the first time; `never` where it isn't."""
    return next((step for step, accuracy in enumerate(accuracies, 1) if accuracy >= threshold), never)


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
    labelled = _labelled(task)
    batch = task.collate([examples[i] for i in range(len(examples))])
    return labelled.items(labelled.with_inputs(batch, change(labelled.inputs(batch))))


def _labelled(task: Task) -> Perturbable:
    """The task, if an example is a continuous input and what it is called; NotSupported otherwise."""
    if task.rows_depend_on_batch:
        raise NotSupported(
            f"ReaClass: expected a task whose rows depend on their own example alone, got {type(task).__name__}, whose "
            "rows depend on its batch. Leave this attack out."
        )
    return perturbable(task)
