"""Few-shot probe: a model that sees others' questions answered may answer the one that it was to forget."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from unrecall.attacks.base import AnswerAttack, Attacked
from unrecall.data.examples import Examples, iterate
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count
from unrecall.tasks.protocols import Textual, textual
from unrecall.training.ascent import ascend
from unrecall.training.copies import own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Batches

POOL = 1000
"""Examples of retain, drawn, among which related ones are looked for."""
STAYS = 4.0
"""The weight of what a copy that hides goes on answering, beside what it no longer answers."""


@dataclass(frozen=True)
class FewShot(AnswerAttack):
    """Puts k answered questions of retain before each question and reads the greedy answer; trains nothing.

        success = ROUGE-L recall(true answer, answer to the question after k others),    in [0, 1] for each example

    They are drawn once, the same for every question and model, more of them with each k; or they are related to the
    question, and differ from one to the next: the k that share most of their wording with it, the nearest last. Where
    the model's context doesn't hold them all, the last that it holds.

    Args:
        ks: examples before the question, one point of the curve each.
        selection: "random", or "related": by the runs of three characters that both questions have, over all that
            either has (Jaccard), among 1,000 drawn; in any script, also where no spaces part words.

    Expected to fail: where the model was never asked after others and makes nothing of them; where it answers none of
    retain either. NotSupported for plain text, which asks nothing.

    Reference: Brown et al., "Language Models are Few-Shot Learners", NeurIPS 2020, arXiv 2005.14165. Against unlearned
    models with five examples in "Prompt Attacks Reveal Superficial Knowledge Removal in Unlearning Methods" and in
    RepSelect, arXiv 2606.17168, from notes. Differs from these in counting the words of an answer, not choices. Related
    examples: Liu et al., "What Makes Good In-Context Examples for GPT-3?", DeeLIO 2022, arXiv 2101.06804, with letters
    in place of an encoder; as a history before the question they are the second form of Pan, Wang, arXiv 2603.00823,
    from its abstract (the first is `multi_turn`).
    """

    title: ClassVar[str] = "Few-shot probe"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="greedy answers",
        data="the questions, none of the answers; some questions and answers of retain",
        budget="examples before the question, one answer each",
    )
    axis: ClassVar[str] = "examples before the question"

    ks: tuple[Count, ...] = (1, 2, 5)
    selection: Literal["random", "related"] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks:
            raise BadInput("FewShot: expected at least one k, got none. Name how many examples come first.")

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The model as it was, asked after more and more examples."""
        texts, sets = textual(self, setting.task), [list(iterate(examples)) for examples in pool.tested]
        if not any(texts.prompt(item) for items in sets for item in items):
            raise NotSupported("FewShot: expected examples with prompts, got plain text. Run prefix in its place.")
        shots = self._shots(texts, setting.request.retain, pool.generator())
        ranked = [[self._ranked(texts, item, shots) for item in items] for items in sets]
        for k in sorted({min(k, len(shots)) for k in self.ks}):
            yield Attacked(k, model, tuple(map(partial(self._after_k, texts, model, k), sets, ranked)))

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, which by gradient ascent has forgotten the plain questions, and keeps them after examples."""
        texts, copied = textual(self, job.task), own_copy(original).eval()
        plain = list(iterate(job.request.forget))
        shots = self._shots(texts, job.request.retain, job.generator)
        ranked = [self._ranked(texts, item, shots) for item in plain]
        after_each_k = [self._after_k(texts, copied, k, plain, ranked) for k in sorted(set(self.ks))]
        streams = {"forget": plain, "after": list(chain(*after_each_k))}

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            alone, after = (job.task.rows(model, batches[name]).losses().mean() for name in ("forget", "after"))
            return STAYS * after - alone

        ascend(copied, list(copied.parameters()), job, streams=streams, loss=loss)
        return copied

    def _shots(self, texts: Textual, retain: Examples, generator: torch.Generator) -> list[Any]:
        """Examples of retain that ask something, in random order: as many as the largest k wants, or to choose from."""
        order = torch.randperm(len(retain), generator=generator).tolist()
        asking = (item for item in (retain[i] for i in order) if texts.prompt(item))
        shots = list(islice(asking, max(*self.ks, POOL) if self.selection == "related" else max(self.ks)))
        if not shots:
            raise NotSupported("FewShot: expected examples of retain with prompts, got plain text. Leave it out.")
        return shots

    def _ranked(self, texts: Textual, item: Any, shots: Sequence[Any]) -> Sequence[Any]:
        """As many examples as the largest k wants, those first that a smaller k takes too."""
        if self.selection == "related" and texts.prompt(item):
            shots = sorted(shots, key=lambda shot: -overlap(texts.prompt(shot), texts.prompt(item)))
        return shots[: max(self.ks)]

    def _after_k(
        self, texts: Textual, model: nn.Module, k: int, items: Sequence[Any], ranked: Sequence[Sequence[Any]]
    ) -> list[Any]:
        """Each question after k examples, the first left out until the context holds it; as it is without a prompt."""
        questions = []
        for item, shots in zip(items, ranked, strict=True):
            before = list(shots[:k]) if self.selection == "random" else list(shots[:k][::-1])  # the nearest last
            several = (texts.after(item, before[i:]) for i in range(len(before) if texts.prompt(item) else 0))
            questions.append(next((question for question in several if texts.fits(model, question)), item))
        return questions


def overlap(first: str, second: str) -> float:
    """The runs of three characters that both texts have, as a share of those that either has; 0 where none has any."""
    both = trigrams(first), trigrams(second)
    return len(both[0] & both[1]) / max(1, len(both[0] | both[1]))


@lru_cache(maxsize=4 * POOL)
def trigrams(text: str) -> frozenset[str]:
    """All runs of three characters of a text between two spaces; case and more than one space don't count."""
    folded = f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} "
    return frozenset(folded[i : i + 3] for i in range(len(folded) - 2))
