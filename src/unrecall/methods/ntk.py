"""NTK forgetting: the step that a linearised model would take if it were trained without forget."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples, Joined, split_off
from unrecall.disk import weights as on_disk
from unrecall.methods.base import Job, Method, Strength, Task, copy_of
from unrecall.models.importance import classes_of, trainable
from unrecall.models.jacobian import Bound, jacobian
from unrecall.models.observe import in_order
from unrecall.models.vector import flat, move
from unrecall.nn.gram import combined, kernel, solve
from unrecall.nn.hooks import mode
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.protocols import classed
from unrecall.training.fresh import reinitialise
from unrecall.training.session import Effort


def _no_file_or_one(path: str) -> str:
    if path and not Path(path).is_file():
        raise ValueError("the path of a safetensors file, or empty")
    return path


@dataclass(frozen=True)
class NTK(Method):
    """Moves the weights by the difference of two linearised trainings, without forget and with it.

        theta <- theta + scale s (w_ret - w_full),    w = -G^T (G G^T + n decay C^-1)^-1 (p - y)
        s      = (|D| + 2 |<D, theta - theta_0 - w_ret>| / |D|) / |D|,    D = w_ret - w_full

    G holds the gradient of each logit of each example of retain, or of both sets, p - y are the model's probabilities
    less the labels as ones and zeros, and n is how many examples there are; the model in eval mode. s brings D to the
    length that the weights are predicted to move: what the linearisation missed of the way from theta_0, where the
    training began, it is taken to miss again. Of large sets a random sample stands for all: C says for how many.

    Args:
        scale: how far to go beyond s; 1 in the paper.
        decay: weight decay of the linearised training; 0.1 in the authors' code, and a larger one makes smaller steps.
        examples: how many examples at most, half of them of forget at most; their gradients are held at once.
        start: a file of the weights that training began from (safetensors); empty: fresh ones, as the layers draw them.
        memory: the most that the gradients may take, in GB (float32); above, NotSupported says what to lower.

    Expected to fail: s rests on theta_0: where training began from a checkpoint that isn't given, it comes out far too
    large. Fresh weights that training did not begin from are about as orthogonal to D as those that it did.

    Reference: Golatkar, Achille, Soatto, "Forgetting Outside the Box: Scrubbing Deep Networks of Information Accessible
    from Input-Output Observations", ECCV 2020, arXiv 2003.02960. p - y and s are those of the authors' code, for
    cross-entropy. Differs from the paper in leaving the noise out that may follow, in the sample, and in theta_0 where
    `start` is empty.
    """

    title = "NTK forgetting"
    strength = Strength(("scale",), high=2**14)

    scale: Positive = 1.0
    decay: Positive = 0.1
    examples: Count = 256
    start: Annotated[str, AfterValidator(_no_file_or_one)] = ""
    memory: Positive = 4.0

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Solves both linearised trainings from one matrix of gradients, and moves a copy."""
        begun = time.perf_counter()
        task = classed(self, job.settled(model).task, "Choose another method, such as SSD.").classified()
        student = copy_of(model, job).eval()
        sample = self._sample(job)
        with_forget, without = linearised(student, task, sample, self.decay, Bound(type(self).__name__, self.memory))
        difference = without - with_forget
        way = flat(trainable(student)).double() - flat(trainable(self._start(student, job))).double() - without
        step = self.scale * predicted_length(difference, way) / difference.norm().clamp_min(1e-30)
        move(student, trainable(student), step * difference)
        passes = len(sample.examples) * classes_of(student, task, sample.examples)
        job.session.efforts.append(Effort(passes=passes, seconds=time.perf_counter() - begun))
        return student

    def _sample(self, job: Job) -> "Sample":
        """Forget takes up to half of the places, and more where retain leaves them free."""
        forget, retain = job.request.forget, job.request.retain
        places = max(1, self.examples // 2, self.examples - len(retain))
        forgotten, _ = split_off(forget, min(places, len(forget)), job.generator)
        retained, _ = split_off(retain, min(max(1, self.examples - len(forgotten)), len(retain)), job.generator)
        return Sample(retained, forgotten, len(retain), len(forget))

    def _start(self, model: nn.Module, job: Job) -> nn.Module:
        """Where training began, or might have."""
        beginning = copy_of(model, job)
        if self.start:
            return on_disk.load(beginning, Path(self.start))
        reinitialise(beginning, job.generator)
        return beginning


class Sample(NamedTuple):
    """Examples of retain and of forget, and how many of each they stand for."""

    retain: Examples
    forget: Examples
    retained: int
    forgotten: int

    @property
    def examples(self) -> Joined:
        """Those of retain, then those of forget."""
        return Joined([self.retain, self.forget])

    @property
    def counts(self) -> Tensor:
        """How many examples each stands for `[examples]`, in float64."""
        shares = (self.retained / len(self.retain), self.forgotten / len(self.forget))
        return torch.tensor(shares).double().repeat_interleave(torch.tensor([len(self.retain), len(self.forget)]))


def linearised(model: nn.Module, task: Task, sample: Sample, decay: float, bound: Bound) -> tuple[Tensor, Tensor]:
    """Computes w_full and w_ret, `[d]` each in float64, for a task of one row an example."""
    classes = classes_of(model, task, sample.examples)
    gradients = jacobian(model, task, sample.examples, bound, [partial(_logit, task, k) for k in range(classes)])
    surplus, inner = _surplus(model, task, sample.examples).T.flatten(), kernel(gradients)
    counts = sample.counts.to(inner.device).repeat(classes)
    stays = (torch.arange(len(sample.examples), device=inner.device) < len(sample.retain)).repeat(classes)

    def solution(of: Tensor, examples: int) -> Tensor:
        coefficients = torch.zeros_like(surplus)
        ridge = torch.diag(examples * decay / counts[of])
        coefficients[of] = solve(inner[of][:, of] + ridge, surplus[of])
        return -combined(gradients, coefficients)

    return solution(torch.ones_like(stays), sample.retained + sample.forgotten), solution(stays, sample.retained)


def predicted_length(difference: Tensor, way: Tensor) -> float:
    """How far the weights are expected to move: |D| + 2 |<D, way>| / |D|, the trapezium rule of the authors' code.

    `way`: what the linearisation missed of the way that the weights have come.
    """
    length = float(difference.norm())
    return length + 2 * abs(float(difference @ way)) / max(length, 1e-30)


def _logit(task: Task, label: int, model: nn.Module, batch: Batch) -> Tensor:
    return task.rows(model, batch).logits[:, label]


@torch.no_grad()
def _surplus(model: nn.Module, task: Task, examples: Examples) -> Tensor:
    """The probabilities less the labels, as ones and zeros, `[examples, classes]` in float64."""
    parts = []
    with mode(model, training=False):
        for batch in in_order(model, task, examples):
            rows = task.rows(model, batch)
            parts.append(rows.logits.double().softmax(1) - F.one_hot(rows.targets, rows.logits.shape[1]))
    return torch.cat(parts)
