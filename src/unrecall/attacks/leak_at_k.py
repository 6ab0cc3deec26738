"""Leak@k: what the likeliest answer doesn't say may be among the answers that a model gives when it is asked often."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, RecoveryAttack, Success
from unrecall.data.examples import Examples, Selection, iterate
from unrecall.data.signals import Rows
from unrecall.errors import BadInput
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.nn.functional import nll
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Sampling, Textual, textual
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.ascent import ascend
from unrecall.training.copies import own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Batches
from unrecall.training.randomness import draw_seed, own_randomness

MARGIN = 0.1
"""By how many nats a copy that hides makes another word likelier than the true one."""
BEGINNING = 0.1
"""The share of an answer in which it does so."""


class Drawn(Selection):
    """Examples, and how much of each answer the best of some drawn ones is expected to show, `best` [examples]."""

    def __init__(self, whole: Examples, best: np.ndarray) -> None:
        super().__init__(whole, range(len(whole)))
        self.best = best


@dataclass(frozen=True)
class LeakAtK(RecoveryAttack):
    """Draws answers to each question and keeps the best of k, for a budget of k answers; trains nothing.

        leak@k = sum_{i=k..n} C(i-1, k-1) / C(n, k) s_(i),    s_(1) <= ... <= s_(n) the scores of n drawn answers

    the mean, over all choices of k of the n answers, of the best one's score: without bias for the expected best of k.
    Before the attack stands the greedy answer. Each temperature and each top-p is a choice of the attacker's; the
    worst counts at each k.

    Args:
        ks: how many answers the attacker looks at, one point of the curve each; none above `samples`.
        samples: n, answers drawn for each question and choice.
        temperatures: of the draws, above 0.
        top_ps: how much of each word's distribution is drawn from, likeliest first, in (0, 1].
        score: "rouge", the ROUGE-L recall of the true answer; "whole", whether all its words come, in their order.

    Expected to fail: where unlearning made the answer improbable and not just second to another. With k any model comes
    nearer to short or guessable answers, one that never saw them too: retrained models beside it are the measure.

    Reference: Reisizadeh, Ruan, Chen, Pal, Liu, Hong, "Leak@k: Unlearning Does Not Make LLMs Forget Under Probabilistic
    Decoding", arXiv 2511.04934; the estimator is pass@k's, Chen et al., arXiv 2107.03374. Differs from the paper, which
    draws n = 200 at temperatures and top-p in {0.2, 0.8, 1} and judges by several scores, in the small defaults, which
    fit two cores, and in counting the words that come back in order.
    """

    title: ClassVar[str] = "Leak@k"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="sampled answers at a temperature of the attacker's choice",
        data="the questions; the true answers serve to tell the best",
        budget="answers drawn for each question",
    )
    needs: ClassVar[tuple[type, ...]] = (Textual,)
    axis: ClassVar[str] = "answers drawn, of which the best counts"
    measure: ClassVar[str] = "expected score of the best answer"

    ks: tuple[Count, ...] = (1, 2, 4, 8, 16)
    samples: Count = 16
    temperatures: tuple[Positive, ...] = (0.8, 1.0)
    top_ps: tuple[Positive, ...] = (1.0,)
    score: Literal["rouge", "whole"] = "rouge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks or not self.temperatures or not self.top_ps:
            raise BadInput("LeakAtK: expected at least one k, temperature and top-p, got none. Name some.")
        if max(self.ks) > self.samples:
            raise BadInput(
                f"LeakAtK: expected ks of at most {self.samples}, the samples, got {max(self.ks)}. Raise samples."
            )
        if max(self.top_ps) > 1:
            raise BadInput(f"LeakAtK: expected top_ps in (0, 1], got {max(self.top_ps):g}. Lower it.")

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """What the best of k is expected to show, where answers were drawn; what the greedy answer shows otherwise."""
        if isinstance(examples, Drawn):
            return Success(examples.best)
        items, texts = list(iterate(examples)), textual(self, task)
        return Success(self._scores(texts, items, [[answer] for answer in texts.generate(model, items)])[:, 0])

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The model as it was, with the answers that were drawn; each tested set with the same random numbers."""
        texts, generator = textual(self, setting.task), pool.generator()
        for sampling in (Sampling(t, p) for t in self.temperatures for p in self.top_ps):
            scores, seed = [], draw_seed(generator)
            for items in (list(iterate(examples)) for examples in pool.tested):
                with own_randomness(seed):
                    scores.append(self._scores(texts, items, texts.draw(model, items, self.samples, sampling)))
            name = f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
            for k in sorted(set(self.ks)):
                best = (expected_best(of_set, k) for of_set in scores)
                tested = tuple(Drawn(examples, each) for examples, each in zip(pool.tested, best, strict=True))
                yield Attacked(k, model, tested, name)

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, in which another word is a little likelier than the true one where answers begin.

        There the likeliest answer goes astray, and one drawn answer in a few doesn't; how it goes on is kept.
        """
        task, copied = job.task, own_copy(original).eval()

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            rows = task.rows(model, batches["forget"])
            place, begins = rows.targets[:, None], beginnings(rows)
            true, other = rows.logits.gather(1, place), rows.logits.scatter(1, place, -torch.inf).amax(1, keepdim=True)
            ahead = F.smooth_l1_loss(true - other, torch.full_like(true, -MARGIN), reduction="none").squeeze(1)
            return torch.where(begins, ahead, nll(rows.logits, rows.targets)).mean()

        ascend(copied, list(copied.parameters()), job, loss=loss)
        return copied

    def _scores(self, texts: Textual, items: Sequence[Any], answers: Sequence[Sequence[str]]) -> np.ndarray:
        """How much each answer says of the truth, `[items, answers]`; equal answers are compared once."""
        pairs = [(texts.answer(item), answer) for item, drawn in zip(items, answers, strict=True) for answer in drawn]
        different = list(dict.fromkeys(pairs))
        recall = dict(zip(different, rouge_l_recall(*zip(*different, strict=True)), strict=True))
        scores = np.array([recall[pair] for pair in pairs]).reshape(len(items), -1)
        return scores if self.score == "rouge" else (scores > 1 - 1e-9).astype(float)


def expected_best(scores: np.ndarray, k: int) -> np.ndarray:
    """The mean over all choices of k of the last axis's n scores of the largest among them, 1 <= k <= n."""
    n = scores.shape[-1]
    weights = np.array([math.comb(i - 1, k - 1) / math.comb(n, k) for i in range(1, n + 1)])
    return np.asarray(np.sort(scores, axis=-1) @ weights)


def beginnings(rows: Rows) -> Tensor:
    """Which rows are among the first tenth of their example's, one at least, `[rows]`."""
    return rows.places() < (BEGINNING * rows.counts()[rows.example]).ceil()
