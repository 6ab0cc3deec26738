"""ARM, automatic recall machines: inputs made from forget take the place of retain in a method that reads it."""

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import Batch, batch_size
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.methods.base import Around, Batches, GradientMethod, Job, Phase, Plugin
from unrecall.methods.npo import NPO
from unrecall.models.perturb import unit, width
from unrecall.nn.functional import kl
from unrecall.nn.hooks import frozen, mode
from unrecall.spec.parameters import Index, NonNegative
from unrecall.tasks.protocols import Classifying, Perturbable, check_offers, perturbable
from unrecall.training.loop import epoch_steps, total_steps
from unrecall.training.teacher import distance

TINY = 1e-16
"""A mean probability below which its logarithm doesn't fall further."""


@dataclass(frozen=True)
class ARM(Plugin):
    """Puts replays in the place of retain: inputs made from the current forget batch, on which both models disagree.

        x^   <- clamp(x^ - rate dL_x/dx^),    `steps` times, from the examples of the step's forget batch
        L_x  =  disagreement (1 - mean[KL(m || p_0) + KL(m || p)] / 2),    m = (p_0(x^) + p(x^)) / 2
              + diversity sum_c P_c log P_c,    P = mean over x^ of p_0(x^)
              - avoid_old mean_c CE(p_0(x^), c) - avoid_new mean_c CE(p(x^), c),    c the classes in the forget batch
              + sharpness CE(p_0(x^), argmax p_0(x^)) + variation TV(x^) + length mean ||x^|| / d
        L    =  L_base(forget, retain := (x^, argmax p_0(x^))) + distill KL(p_0(x^) || p(x^))

    p is the student's softmax and p_0 the original's, both in eval mode while x^ is made. Classes that are forgotten
    whole are left out of p_0 in L. TV is 2 sum over the last two dimensions of the mean squared difference of
    neighbours. There are as many x^ as the base's batch of retain would hold. A phase takes as many steps as it would
    with retain, an epoch is a pass over forget, and statistics of norms stay, for those of replays are not those of
    data. Retain is counted, and never read.

    Args:
        base: the method whose batches of retain are replaced; NPO by default. It must read them while it trains.
        start: what replays are made from: the "forget" batch, as in the paper, or uniform "noise" within the bounds.
            With steps=0 it is noise alone, labelled by the original: the control that replays must beat.
        steps: how many steps a replay takes.
        rate: length of a step, for a loss that is a mean over replays.
        disagreement, diversity, avoid_old, avoid_new, sharpness, variation, length: weights of the parts of L_x.
        distill: weight of the soft answers; the base has the hard ones. On digits, with 10, a model that forgot a class
            kept as much as with retain itself; one that should forget half of a class forgot little of it.

    Expected to fail: where forget looks like nothing that stays: replays lie near what they were made from, and what is
    far from it is held by luck. Where all classes are in a forget batch, avoiding them leaves no place to go to. A step
    takes about four passes for each of `steps`. NotSupported for tasks without continuous inputs or one class an
    example (texts: tokens are not continuous, and no task offers their embeddings), and for bases that read retain
    beforehand (scrub, grad_diff with hold=kl).

    Reference: Ji, Henriques, Tuytelaars, Vedaldi, "Automatic Recall Machines: Internal Replay, Continual Learning and
    the Brain", NeurIPS 2020 workshop, arXiv 2006.12323, from its code, with its weights for CIFAR-10. Differs from the
    paper in what it is for: there the batch is what must be learnt, the old model a copy from some steps ago, and the
    new one is held to it on that batch too. Here the batch must go, so that last term is left out, and the old model is
    the original. Both models are in eval mode while x^ is made (there in train mode); replays are trained on in the
    base's own step (there in one of their own), and stay within the task's bounds, for without them a long step leads
    to where both models say anything. Inputs count as normalised by a quarter of the bounds' width.
    """

    title = "ARM"
    wanted = "reads retain"
    advice = "Choose one that does, such as npo or neggrad_plus."

    base: GradientMethod = NPO()
    start: Literal["forget", "noise"] = "forget"
    steps: Index = 10
    rate: NonNegative = 10.0
    disagreement: NonNegative = 1.0
    diversity: NonNegative = 16.0
    avoid_old: NonNegative = 1.0
    avoid_new: NonNegative = 0.1
    sharpness: NonNegative = 0.1
    variation: NonNegative = 1.0
    length: NonNegative = 1.0
    distill: NonNegative = 1.0

    def job_of_base(self, job: Job) -> Job:
        """Hides retain, so that nothing of it is read beforehand."""
        return job.on(with_sealed_retain(job.request))

    def touches(self, phase: Phase) -> bool:
        """Says that phases that read retain are changed, and no others."""
        return "retain" in phase.streams

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Puts replays in the place of a phase's batches of retain."""
        for protocol in (Perturbable, Classifying):
            check_offers(self, job.task, protocol, advice="Use the base with retain data.")

        def replayed(phase: Phase) -> Phase:
            memory = Memory(self, original, job, phase.fit.batch_size)

            def loss(model: nn.Module, batches: Batches) -> Tensor:
                recalled = memory.recall(model, batches["forget"])
                total = phase.loss(model, {**batches, "retain": recalled.batch})
                if self.distill > 0:
                    total = total + self.distill * distance(job.task.rows(model, recalled.batch), recalled.answers)
                return total

            others = {name: data for name, data in phase.streams.items() if name != "retain"}
            changed = replace(phase, loss=loss, streams={"forget": job.request.forget, **others})
            steps = total_steps(phase)
            epochs = math.ceil(steps / epoch_steps(changed))
            return replace(changed, fit=replace(phase.fit, epochs=epochs, steps=steps, batchnorm="frozen"))

        return replayed


class SealedRetain:
    """Retain as a base sees it: it may be counted; NotSupported for a base that reads an example."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> NoReturn:
        raise NotSupported(
            "ARM: expected a base that reads retain batch by batch while it trains, got one that reads it otherwise. "
            f"{ARM.advice}"
        )


def with_sealed_retain(request: Request) -> Request:
    """Gives the request of a base: forget, and retain that can't be read."""
    sealed = copy(request.only("forget"))
    object.__setattr__(sealed, "retain", SealedRetain(len(request.retain)))
    return sealed


class Recalled(NamedTuple):
    """Replays as a batch, under the classes that the original takes them for, and its logits `[examples, classes]`."""

    batch: Batch
    answers: Tensor


class Memory(NamedTuple):
    """What makes `most` replays of each forget batch."""

    method: ARM
    original: nn.Module
    job: Job
    most: int

    def recall(self, model: nn.Module, forget: Batch) -> Recalled:
        """Makes replays where the original and `model` part, and lets the original say what they are."""
        task, able, method = self.job.task, perturbable(self.job.task), self.method
        batch, scale = self._start(forget), unit(able)
        with torch.no_grad():
            present = torch.unique(task.rows(self.original, forget).targets)
        with mode(model, training=False), frozen(model), torch.enable_grad():
            for _ in range(method.steps):
                inputs = able.inputs(batch).detach().requires_grad_(True)
                moving = able.with_inputs(batch, inputs)
                old, new = (task.rows(speaker, moving).logits for speaker in (self.original, model))
                loss = replay_loss(method, inputs / scale, (old, new), present)
                (gradient,) = torch.autograd.grad(loss, inputs)
                further = (inputs - method.rate * scale**2 * gradient).detach()
                batch = able.with_inputs(batch, further.clamp(*able.bounds))
        with torch.no_grad():
            answers = task.rows(self.original, batch).logits
        answers[:, list(self.job.request.masked)] = float("-inf")
        return Recalled(cast(Classifying, task).with_labels(batch, answers.argmax(1)), answers)

    def _start(self, forget: Batch) -> Batch:
        """Draws what replays are made from: forget examples, each once where there are enough, or noise."""
        n, able, generator = batch_size(forget), perturbable(self.job.task), self.job.generator
        drawn = torch.randperm(n, generator=generator)[: self.most]
        if self.most > n:
            drawn = torch.randint(n, (self.most,), generator=generator)
        batch = {name: value[drawn.to(value.device)] for name, value in forget.items() if name != "index"}
        if self.method.start == "forget":
            return batch
        clean = able.inputs(batch)
        noise = torch.rand(clean.shape, generator=generator).to(clean)
        return able.with_inputs(batch, able.bounds[0] + width(able) * noise)


def replay_loss(weights: ARM, inputs: Tensor, logits: tuple[Tensor, Tensor], present: Tensor) -> Tensor:
    """Computes L_x of replays `[n, ...]`, in units of normalised inputs.

    `logits` `[n, classes]`: the original's and the student's. `present`: the classes of the forget batch.
    """
    log_old, log_new = (F.log_softmax(own, 1) for own in logits)
    log_mean = torch.logaddexp(log_old, log_new) - math.log(2)
    average = log_old.exp().mean(0)
    parts = (
        weights.disagreement * (1 - (kl(log_mean, log_old) + kl(log_mean, log_new)).mean() / 2),
        weights.diversity * (average * average.clamp_min(TINY).log()).sum(),
        weights.avoid_old * log_old[:, present].mean(),
        weights.avoid_new * log_new[:, present].mean(),
        -weights.sharpness * log_old.amax(1).mean(),
        weights.variation * total_variation(inputs),
        weights.length * inputs.flatten(1).norm(dim=1).mean() / inputs[0].numel(),
    )
    return torch.stack(parts).sum()


def total_variation(inputs: Tensor) -> Tensor:
    """Computes 2 sum over the last two dimensions of the mean squared difference of neighbours; 0 without any.

    `inputs` `[n, ..., height, width]`, or `[n, length]`.
    """
    steps = [inputs.diff(dim=dim).square() for dim in range(max(1, inputs.ndim - 2), inputs.ndim)]
    return 2 * torch.stack([step.mean() for step in steps if step.numel()] or [inputs.sum() * 0]).sum()
