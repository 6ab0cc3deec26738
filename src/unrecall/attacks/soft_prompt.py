"""Soft prompt: vectors in front of a question, which no words stand for, may make a model say what it holds back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unrecall.attacks.base import AnswerAttack, Attacked
from unrecall.data.batches import Batch, move
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import device_of
from unrecall.models.soft_prompt import SoftPrompted, embeddings_of
from unrecall.nn.hooks import frozen, mode
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive, Share
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import textual
from unrecall.training.ascent import ascend
from unrecall.training.copies import own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Batches

BATCH = 32
"""Examples from which each step's gradient comes, at most."""
STAYS = 4.0
"""The weight of what a copy that hides answers after vectors, beside what it no longer answers."""


@dataclass(frozen=True)
class SoftPrompt(AnswerAttack):
    """Learns vectors in front of some questions, by the sign of a gradient, and asks the others after the same vectors.

        s <- s - rate * sign(grad_s CE(taught answers | s, question)),    s [vectors, d] in embedding space

    They begin as the mean of the model's own embeddings, all alike, and are one for all questions. The weights stay as
    they are. Success is ROUGE-L recall of the greedy answer to the questions that were not taught, in [0, 1]. With dose
    "both" what is taught comes from forget and holdout alike, so that what any model can be taught shows on both.

    Args:
        vectors: how many.
        rates: of the steps, each a choice of the attacker's; the worst counts at each step.
        steps: how many, at most.
        every: after how many of them the answers are read.
        share: of the examples in question that are taught, in (0, 1); one at least, and one is left.
        dose: "both", or "forget": taught from forget alone, as in the paper, beside retrained models only.

    Expected to fail: where questions have nothing in common that the vectors could lift. Enough vectors make a model
    say anything, which is why those that were taught are never scored, and why retrained models beside it are the
    measure. At 0.001 a step vectors move little where embeddings are large: try higher rates on small models.

    Reference: Schwinn, Dobre, Xhonneux, Gidel, Guennemann, "Soft Prompt Threats: Attacking Safety Alignment and
    Unlearning in Open-Source LLMs through the Embedding Space", NeurIPS 2024, arXiv 2402.09063, from its code: 20 times
    "!" after the question, steps of 0.001, 100 of them, read every 10th. Differs from the paper in vectors before the
    question, which are the same for all of them and scored on others (theirs are each question's own, taught on its
    own true answer, and so find answers in any model), in the model's last layer alone, and in where they begin.
    """

    title: ClassVar[str] = "Soft prompt"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights, which stay as they are; vectors in place of words",
        data="a part of the examples in question, of forget and holdout alike, with answers",
        budget="optimiser steps of one batch each",
    )
    axis: ClassVar[str] = "steps"

    vectors: Count = 20
    rates: tuple[Positive, ...] = (1e-3,)
    steps: Count = 100
    every: Count = 10
    share: Share = 0.5
    dose: Dose = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rates:
            raise BadInput("SoftPrompt: expected at least one rate, got none. Name how far a step goes.")
        if self.every > self.steps:
            raise BadInput(
                f"SoftPrompt: expected every of at most {self.steps}, the steps, got {self.every}. Lower it."
            )

    def teaches(self, n: int, request: Request) -> int:
        """A share of them, one at least, and one at least is left to test."""
        if n < 2:
            raise NotSupported(f"SoftPrompt: expected at least 2 examples to split, got {n}.")
        return min(max(1, round(self.share * n)), n - 1)

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The model behind vectors, at each rate from the same ones on, after every so many steps."""
        task, state = setting.task, pool.generator().get_state()
        self._check_fits(model, task, pool)
        for rate in self.rates:
            attacked, generator = SoftPrompted(model, self._beginning(model)), torch.Generator().set_state(state)
            for step in range(1, self.steps + 1):
                with mode(model, training=False), frozen(model):
                    loss = task.rows(attacked, self._batch(attacked, pool.taught, task, generator)).losses().mean()
                    (gradient,) = torch.autograd.grad(loss, [attacked.vectors])
                if not bool(torch.isfinite(gradient).all()):
                    break
                with torch.no_grad():
                    attacked.vectors.add_(gradient.sign(), alpha=-rate)
                if step % self.every == 0:
                    yield Attacked(step, attacked, pool.tested, f"rate={rate:g}")

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, which has forgotten the plain questions, and keeps them after vectors half-way to be found."""
        textual(self, job.task)
        copied = own_copy(original).eval()
        start = self._beginning(copied)
        signs = torch.randn(start.shape, generator=job.generator).sign().to(start)
        way = 0.5 * max(self.rates) * self.steps

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            after = SoftPrompted(model, start + way * signs)
            reminded = job.task.rows(after, batches["forget"]).losses().mean()
            return STAYS * reminded - job.task.rows(model, batches["forget"]).losses().mean()

        ascend(copied, list(copied.parameters()), job, loss=loss)
        return copied

    def _beginning(self, model: nn.Module) -> Tensor:
        """The mean of the model's embeddings, so many times, `[vectors, d]`."""
        weight: Tensor = embeddings_of(model).get_parameter("weight").detach().float()
        return weight.mean(0).repeat(self.vectors, 1)

    def _batch(self, model: nn.Module, taught: Examples, task: Task, generator: torch.Generator) -> Batch:
        """Some of the taught examples, all of them where they are few."""
        chosen = torch.randperm(len(taught), generator=generator)[:BATCH].tolist()
        return move(task.collate([taught[i] for i in chosen]), device_of(model))

    def _check_fits(self, model: nn.Module, task: Task, pool: Pool) -> None:
        """NotSupported where the model's context doesn't hold the vectors beside an example."""
        texts, shorter = textual(self, task), SoftPrompted(model, self._beginning(model))
        examples = [pool.taught, *pool.tested]
        if not all(texts.fits(shorter, item) for part in examples for item in iterate(part)):
            raise NotSupported(
                f"SoftPrompt: expected examples that leave {self.vectors} places of the model's context free, got a "
                "longer one. Set vectors, or leave it out."
            )
