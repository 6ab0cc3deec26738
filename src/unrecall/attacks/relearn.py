"""Relearning: a few optimiser steps on a part of what was forgotten, or on related data, to bring back the rest."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.examples import Examples, Selection, evenly, iterate, split_off
from unrecall.data.request import Request
from unrecall.disk.files import file_key
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.low_rank import LowRank
from unrecall.models.observe import mean_loss, observe
from unrecall.nn.hooks import batchnorms
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive, Share
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classifying, offers, textual
from unrecall.training.ascent import ascend, last_used
from unrecall.training.copies import copies, own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, loss_on
from unrecall.training.randomness import draw_seed, seeded


@dataclass(frozen=True, repr=False)
class Relearn(RecoveryAttack):
    """Fine-tunes a copy of the model and watches whether forget examples that are not shown come back.

        theta <- theta - lr * grad CE(A),    A the attacker's data
        harmful:  A = a random share p of forget, measured on the rest of forget
        benign:   A = retain, or examples from a file, measured on forget

    Each learning rate starts from the model as it was given. A learning rate that diverges ends there.

    A classifier that is trained on one class soon answers nothing else, which is right on all of its examples and no
    memory of them. So what an attacked classifier shows counts only while it is still of use:

        acc(theta, R) >= acc(theta as given, R) - retain_drop   and   acc(theta, R) > share of class c in R

    R a drawn part of retain that the attacker never trains on, c the class most frequent among the measured examples.
    Once a copy is of no use, the attacker keeps what the same learning rate had before, at worst the model as given. So
    a model that answered c to everything *before* the attack keeps its forget accuracy, and one that is driven to c
    *by* the attack gains nothing. Texts and pairs, where no single answer is right on many examples, always count.

    An attacker who wants to see what comes back first may stop early, by a rule that asks only the examples that it
    teaches, all of them together:

        stop once CE(theta, A) <= CE(R) + (1 - until) (CE(A) - CE(R)),    CE(.) the mean loss of the model as given

    Args:
        data: "harmful" (a part of what was forgotten) or "benign" (related data that was never to be forgotten).
        share: the part of forget that the attacker holds, harmful only, in (0, 1).
        steps: optimiser steps at which the attacker stops.
        learning_rates: tried one after another; the harness takes the worst.
        fit: SGD, batch 32, momentum 0.9, no weight decay; lr, epochs and steps come from above. batchnorm="frozen"
            keeps the running statistics: a handful of similar examples would drag them along, and a classifier be of no
            use long before its weights have changed. "train" lets them move, which recalibration does alone.
        file: texts in place of retain, benign only: instruction data, say. Those that the model's context can't hold,
            and those with a prompt or an answer of forget, are left out.
        retain_drop: how much retain accuracy, as a share, the attacker of a classifier gives up.
        retain_sample: retain examples on which that is measured; half of retain at most.
        rank: of the low-rank change that is trained in place of the weights, by PEFT (LoRA, alpha twice the rank, all
            linear layers); 0: all weights are trained.
        dose: "forget", as in the papers, or "both": harmful data come from forget and holdout alike.
        until: the part of the taught examples' excess loss over retain's after which the attacker stops, harmful only,
            in [0, 1); looked at after each of `steps`. 0: never.

    Expected to fail: on samples that the retrained model gets right too there is nothing to bring back. A model of
    any kind learns the attacker's own examples; what counts is how much faster than a retrained one the rest returns.

    Reference: Hu, Fu, Wu, Smith, "Unlearning or Obfuscating? Jogging the Memory of Unlearned LLMs via Benign
    Relearning", ICLR 2025, arXiv 2406.13356. The worst over learning rates, the shares 0.1 and 0.3, and instruction
    data as benign ones are those of Yang, Kim, Kwon, Kim, Jung, Cha, "Erase or Hide? Suppressing Spurious Unlearning
    Neurons", ICLR 2026, arXiv 2509.22263, which gives neither steps nor optimiser. Differs from the papers in a
    retrained model beside it, in serving any modality (for language models set AdamW and smaller rates), and in that a
    classifier's success counts only while it is of use, for which benign relearning goes without a part of retain, and
    in `until`, which is ours.
    """

    title: ClassVar[str] = "Relearning"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: trains a copy",
        data="a part of the forget examples with labels, or others that were never to be forgotten",
        budget="optimiser steps of one batch each",
    )
    axis: ClassVar[str] = "optimiser steps"
    named_by: ClassVar[tuple[str, ...]] = ("share",)
    judged: ClassVar[str] = "mean"

    data: Literal["harmful", "benign"] = "harmful"
    share: Share = 0.3
    steps: tuple[Count, ...] = (1, 2, 4, 8, 16, 32, 64)
    learning_rates: tuple[Positive, ...] = (1e-3, 1e-2, 1e-1)
    fit: Fit = Fit(batch_size=32, weight_decay=0.0, batchnorm="frozen")
    file: str = ""
    retain_drop: Share = 0.01
    retain_sample: Count = 500
    rank: Annotated[int, Field(ge=0)] = 0
    dose: Dose = "forget"
    until: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file and self.data != "benign":
            raise BadInput(f"Relearn: expected a file with data='benign' only, got data='{self.data}'. Leave it out.")
        if self.file and not Path(self.file).is_file():
            raise BadInput(f"Relearn: expected file to be a JSON Lines file, got '{self.file}'. Check the path.")
        if self.until and self.data != "harmful":
            raise BadInput(f"Relearn: expected until with data='harmful' only, got data='{self.data}'. Leave it out.")

    def __repr__(self) -> str:
        """With what stands in the file, since findings are kept by this text."""
        return f"Relearn({self.as_dict()}{file_key(Path(self.file)) if self.file else ''})"

    def teaches(self, n: int, request: Request) -> int:
        """A share of them, one at least, and one at least is left to test; none where the data are benign."""
        if self.data == "benign":
            return 0
        if n < 2:
            raise NotSupported(f"Relearn: expected at least 2 forget examples to split, got {n}.")
        return min(max(1, round(self.share * n)), n - 1)

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One copy per learning rate, given at each budget on its way."""
        task, retain, generator = setting.task, setting.request.retain, pool.generator()
        if self.rank and self.fit.batchnorm == "train" and batchnorms(model):
            raise NotSupported(
                "Relearn: expected batchnorm='frozen' with a rank, got 'train': what is trained is a change of weights "
                "alone. Leave one of the two out."
            )
        lesson = pool.taught if self.data == "harmful" else self._read(model, pool, task) if self.file else retain
        seed, last = draw_seed(generator), max(self.steps)
        guard: Examples = ()
        if offers(task, Classifying):
            if len(retain) < 2:
                raise NotSupported(
                    "Relearn: expected at least 2 retain examples, to see what a model is of use for, got 1."
                )
            guard, rest = split_off(retain, min(self.retain_sample, len(retain) // 2), generator)
            least = self._least(model, task, guard, pool.tested[0])
            if self.data == "benign":
                lesson = rest

        enough = self._enough(model, task, lesson, retain) if self.until else -math.inf
        for rate in self.learning_rates:
            recipe = replace(self.fit, lr=rate, epochs=last, steps=last)
            phase = Phase(loss_on("held", task), {"held": lesson}, recipe)
            session = setting.session.named(f"relearn on {self.data}, lr={rate:g}")
            change = LowRank(self.rank, 2 * self.rank, name="Relearn") if self.rank else None
            for step, student in copies(model, task, phase, seeded(seed), session, change):
                if step in self.steps:
                    useful = not guard or self._accuracy(student, task, guard) >= least
                    yield Attacked(step, student, pool.tested, f"lr={rate:g}", useful)
                    if self.until and mean_loss(student, task, lesson) <= enough:
                        break

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """A classifier whose last block, by gradient ascent on it, has forgotten half of forget and is still of use.

        None where no weight in a block decides what is answered.
        """
        if not offers(job.task, Classifying):
            return super().disguise(original, job)
        copied = own_copy(original).eval()
        if not (moved := last_used(copied, job)):
            return None
        ascend(copied, moved, job)
        return copied

    def _accuracy(self, model: nn.Module, task: Task, guard: Examples) -> float:
        return float(self.success(model, task, guard).shown.mean())

    def _least(self, model: nn.Module, task: Task, guard: Examples, tested: Examples) -> float:
        """The accuracy on `guard` below which a copy of the model is of no use."""
        classes, others = (observe(model, task, examples).target for examples in (tested, guard))
        constant = float((others == np.bincount(classes).argmax()).mean())
        return max(self._accuracy(model, task, guard) - self.retain_drop - 1e-9, constant + 1e-9)

    def _enough(self, model: nn.Module, task: Task, lesson: Examples, retain: Examples) -> float:
        """The mean loss on the lesson, in nats, from which on down the attacker stops."""
        if not len(retain):
            raise NotSupported("Relearn: expected retain examples, whose loss says when to stop, got none.")
        sample = Selection(retain, evenly(len(retain), self.retain_sample))
        plain = mean_loss(model, task, sample)
        return plain + (1 - self.until) * (mean_loss(model, task, lesson) - plain)

    def _read(self, model: nn.Module, pool: Pool, task: Task) -> Examples:
        """The file's examples that the model can be trained on; nothing that is tested is among them."""
        texts = textual(self, task, "Leave file out.")
        items = itertools.chain.from_iterable(map(iterate, pool.tested))
        tested = {text for item in items for text in (texts.prompt(item), texts.answer(item)) if text}
        usable = [
            item
            for item in texts.read(Path(self.file))
            if tested.isdisjoint((texts.prompt(item), texts.answer(item))) and texts.fits(model, item)
        ]
        if not usable:
            raise BadInput(
                f"Relearn: expected an example in {self.file} that the model's context holds and forget doesn't, got "
                "none. Give other texts."
            )
        return usable
