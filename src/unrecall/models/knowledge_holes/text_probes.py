"""Probes of texts: questions in other words, and beginnings of texts that the original model writes on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from unrecall.models.knowledge_holes.search import Probes
from unrecall.models.knowledge_holes.self_bleu import stretches
from unrecall.tasks.protocols import Textual, textual, unfinished

OPENING = 12
"""How many words a beginning has at home."""
LONGEST_OPENING = 24
ANSWER = 3
"""How many rows at the end of a beginning are what a model is asked: about a word of a small vocabulary."""
SAID = 6
"""How many words at the end of a beginning, the answer's among them, forget must hold to say the answer."""
WRITTEN = 24
"""How many rows the original writes on: those of the answer, and what leads to it."""

TRIES = 16
"""How often a change of a question is drawn, until it is well formed."""


def words_of(text: str) -> list[str]:
    """The words of a text, whatever their case."""
    return re.findall(r"\w+", text.casefold())


@dataclass(frozen=True)
class Corpus:
    """What probes are made of and judged by.

    `staying`: the questions that stay, or the texts where there are no questions. `pairs`: any two words that stand
    side by side in them. `forgotten`: the texts that go, questions included.
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    staying: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Textual, staying: Sequence[Any], forget: Sequence[Any]) -> "Corpus":
        """The corpus of these examples."""
        texts = tuple(filter(str.split, (task.prompt(item) or task.answer(item) for item in staying)))
        pairs = frozenset(pair for text in texts for pair in pairwise(words_of(text)))
        return cls(pairs, texts, tuple(f"{task.prompt(item)} {task.answer(item)}" for item in forget))

    @cached_property
    def words(self) -> frozenset[str]:
        """All words that have a neighbour."""
        return frozenset(word for pair in self.pairs for word in pair)

    @cached_property
    def _spaced(self) -> tuple[str, ...]:
        """The words of each text that goes, a space before and after each."""
        return tuple(f" {' '.join(words_of(text))} " for text in self.forgotten)

    def mentions(self, answer: str, *, whole: bool = True) -> bool:
        """Whether a text that goes holds the answer word for word.

        Unless `whole`, its first and last word may be parts of words.
        """
        edge = " " if whole else ""
        wanted = f"{edge}{' '.join(words_of(answer))}{edge}"
        return any(wanted in text for text in self._spaced)

    def holds(self, words: list[str]) -> bool:
        """Whether there are two words, and all neighbours among them are neighbours in texts that stay."""
        return len(words) > 1 and self.pairs.issuperset(pairwise(words))

    def another(self, generator: torch.Generator) -> list[str]:
        """The words of a text that stays, as they are written."""
        return self.staying[draw(len(self.staying), generator)].split()


@dataclass(frozen=True)
class QuestionProbes(Probes):
    """A probe is a question in other words, with the true answer of its home.

    A word is left out, a word of another question takes the place of one, or the end of another question follows a word
    that both hold; what is not well formed is drawn again, a few times. It is well formed where any two neighbouring
    words are neighbours in a question that stays. Forget says the answer where a text of it holds the answer word for
    word.
    """

    corpus: Corpus = Corpus()

    def at_home(self, examples: Sequence[Any]) -> list[Any]:
        """The questions as they are."""
        return list(examples)

    def varied(
        self, parents: list[Any], homes: list[Any], generator: torch.Generator, model: nn.Module | None = None
    ) -> list[Any]:
        """Each question with one change."""
        return [self._reworded(item, generator) for item in parents]

    def allowed(self, items: list[Any]) -> np.ndarray:
        """Whose neighbouring words are so in questions that stay, and whose answers no text of forget holds."""
        texts = textual("holes", self.task)
        return np.array(
            [
                self.corpus.holds(words_of(texts.prompt(item))) and not self.corpus.mentions(texts.answer(item))
                for item in items
            ],
            dtype=bool,
        )

    def written(self, items: list[Any]) -> list[str]:
        """The questions."""
        return [textual("holes", self.task).prompt(item) for item in items]

    def _reworded(self, item: Any, generator: torch.Generator) -> Any:
        """The first change that leaves the question well formed; the question as it is where none does."""
        texts = textual("holes", self.task)
        plain = texts.prompt(item)
        for _ in range(TRIES if plain.split() else 0):
            changed = self._changed(plain, generator)
            reworded = texts.asked(item, changed)
            if changed != plain and self.corpus.holds(words_of(changed)) and texts.fits(self.original, reworded):
                return reworded
        return item

    def _changed(self, text: str, generator: torch.Generator) -> str:
        words, other = text.split(), self.corpus.another(generator)
        place = draw(len(words), generator)
        kind = draw(3, generator)
        if kind == 0:
            return " ".join(words[:place] + words[place + 1 :])
        if kind == 1:
            return " ".join([*words[:place], other[draw(len(other), generator)], *words[place + 1 :]])
        shared = [i for i, word in enumerate(words) if word in other]
        if not shared:
            return text
        place = shared[draw(len(shared), generator)]
        return " ".join(words[:place] + other[other.index(words[place]) :])


@dataclass(frozen=True)
class WritingProbes(Probes):
    """A probe is a beginning that the original wrote on; the answer is the last `ANSWER` rows of it.

    The first words of a text that stays come first; from then on a beginning is cut after any of its first words, a
    word of another text follows, and the original writes on. It is well formed where each of its words stands in a text
    that stays, and no three words stand in it twice. Forget says the answer where a text of it holds the last `SAID`
    words.
    """

    corpus: Corpus = Corpus()
    last: int = ANSWER

    def at_home(self, examples: Sequence[Any]) -> list[Any]:
        """The first words of each text, and what the original writes after them."""
        answers = map(textual("holes", self.task).answer, examples)
        return self._written_on([" ".join(answer.split()[:OPENING]) for answer in answers])

    def varied(
        self, parents: list[Any], homes: list[Any], generator: torch.Generator, model: nn.Module | None = None
    ) -> list[Any]:
        """Each beginning, cut, with another word, written on."""
        openings = []
        for text in self.written(parents):
            words = text.split()
            other = self.corpus.another(generator)
            cut = 1 + draw(min(len(words), LONGEST_OPENING), generator)
            openings.append(" ".join([*words[:cut], other[draw(len(other), generator)]]))
        return self._written_on(openings)

    def allowed(self, items: list[Any]) -> np.ndarray:
        """Whose words stand in texts that stay, without stuttering, and whose last words no text of forget holds."""
        return np.array([self._formed(words_of(text)) for text in self.written(items)], dtype=bool)

    def written(self, items: list[Any]) -> list[str]:
        """The beginnings."""
        return [textual("holes", self.task).answer(item) for item in items]

    def _formed(self, words: list[str]) -> bool:
        whole = words[:-1]  # the last may be half a word
        trios = stretches(" ".join(whole), (3,))
        answered = self.corpus.mentions(" ".join(words[-SAID:]), whole=False)
        return self.corpus.words.issuperset(whole) and len(set(trios)) == len(trios) and not answered

    def _written_on(self, openings: list[str]) -> list[Any]:
        task = unfinished("holes", self.task)
        begun = [task.unfinished(text) for text in openings]
        written = task.generate(self.original, begun, WRITTEN, shown=1.0)
        joints = ["" if re.match(r"[^\w\s]", text) else " " for text in written]
        whole = [f"{begin}{joint}{text}" for begin, joint, text in zip(openings, joints, written, strict=True)]
        items = [task.unfinished(text) for text in whole]
        return [item if task.fits(self.original, item) else before for item, before in zip(items, begun, strict=True)]


def draw(count: int, generator: torch.Generator) -> int:
    """A number below `count`, all equally likely."""
    return int(torch.randint(count, (1,), generator=generator))
