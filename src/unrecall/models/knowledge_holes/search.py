"""Knowledge holes: what an original model answers, and a model that was made of it does not; how they are looked for.

A *probe* is an example that is made near another one, its *home*. It is *sound* where it is well formed, the original
answers it well, and the forgotten examples don't say the answer. A *hole* is a sound probe that a model answers wrong.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from unrecall.data.signals import Signals
from unrecall.models.knowledge_holes.self_bleu import self_bleu, stretches
from unrecall.models.knowledge_holes.vendi import unlike, vendi
from unrecall.models.observe import observe
from unrecall.tasks.base import Task

ALIKE = 0.8
"""The cosine above which a hole is the same as an earlier one, as in the paper."""
WORST = 0.1
"""The probability of an answer's least likely row below which the answer is among the worst."""


class Answers(NamedTuple):
    """How a model answers probes: whether each is `right` in all its rows, and the probability of its `weakest` row."""

    right: np.ndarray
    weakest: np.ndarray


class Round(NamedTuple):
    """Probes that are asked at once, those of the first home first; which are `sound`, and their `vectors` `[n, d]`."""

    items: list[Any]
    sound: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Probes(ABC):
    """How probes of one modality are made and judged.

    `centre` [d]: what is subtracted from the original's features, so that cosines tell probes apart. `sure`: the least
    probability that the original must give each row of its answer. `last`: how many rows the answer has, counted from
    the end; 0 for all.
    """

    task: Task
    original: nn.Module
    centre: np.ndarray
    sure: float
    last: int = 0

    @abstractmethod
    def at_home(self, examples: Sequence[Any]) -> list[Any]:
        """Each example as a probe."""

    @abstractmethod
    def varied(
        self, parents: list[Any], homes: list[Any], generator: torch.Generator, model: nn.Module | None = None
    ) -> list[Any]:
        """A new probe from each parent, near its home; drawn so that `model` answers worse, where one is named."""

    @abstractmethod
    def allowed(self, items: list[Any]) -> np.ndarray:
        """Which probes are well formed, and which answers forget doesn't say `[n]`."""

    def written(self, items: list[Any]) -> list[str]:
        """Probes as text; empty where they are none."""
        return []

    def answers(self, model: nn.Module, items: list[Any]) -> Answers:
        """How a model answers probes."""
        return self._read(observe(model, self.task, items))

    def looked_at(self, items: list[Any]) -> Round:
        """The probes, with what the original says of them."""
        signals = observe(self.original, self.task, items)
        answers = self._read(signals)
        sound = answers.right & (answers.weakest >= self.sure) & self.allowed(items)
        return Round(items, sound, signals.features - self.centre)

    def _read(self, signals: Signals) -> Answers:
        right = [rows[-self.last :].all() for rows in signals.of_rows(signals.prediction == signals.target)]
        weakest = [np.exp(rows[-self.last :].min()) for rows in signals.of_rows(signals.log_prob)]
        return Answers(np.array(right, dtype=bool), np.array(weakest))


@dataclass(frozen=True)
class Search:
    """Looks for holes near homes, from `homes` on: `rounds` times `children` probes near each of them.

    `novelty`: what it costs a probe to be like all before it: its mean cosine with them, and its self-BLEU.
    """

    probes: Probes
    homes: Round
    rounds: int
    children: int
    novelty: float

    def at_random(self, generator: torch.Generator) -> list[Round]:
        """Probes that no model but the original decides: each grows from the first sound one of the round before."""
        parents, rounds = self.homes.items, [self.homes]
        for _ in range(self.rounds):
            drawn = self._next(parents, generator)
            sound = drawn.sound.reshape(len(parents), -1)
            parents = self._followed(parents, drawn.items, sound.argmax(1), sound.any(1))
            rounds.append(drawn)
        return rounds

    def against(self, model: nn.Module, generator: torch.Generator) -> list[Round]:
        """Probes that are bred against a model: each grows from the one that it answered worst, best of `children`.

        The merit of a sound probe is 1 - p - novelty (cosine + self-BLEU), p the probability that the model gives the
        least likely row of the answer; of others there is none.
        """
        parents, rounds, earlier = self.homes.items, [self.homes], Earlier()
        merit = 1 - self.probes.answers(model, parents).weakest
        for _ in range(self.rounds):
            drawn, n = self._next(parents, generator, model), len(parents)
            texts = self.probes.written(drawn.items)
            merits = 1 - self.probes.answers(model, drawn.items).weakest
            merits -= self.novelty * earlier.likeness(drawn.vectors, texts)
            earlier.add(drawn.vectors[drawn.sound], [texts[i] for i in np.flatnonzero(drawn.sound)] if texts else [])
            merits = np.where(drawn.sound, merits, -np.inf).reshape(n, -1)
            best = merits.argmax(1)
            better = np.greater_equal(merits[np.arange(n), best], merit)
            merit = np.where(better, merits[np.arange(n), best], merit)
            parents = self._followed(parents, drawn.items, best, better)
            rounds.append(drawn)
        return rounds

    def _next(self, parents: list[Any], generator: torch.Generator, model: nn.Module | None = None) -> Round:
        """The children of each parent."""
        repeated, homes = (
            [item for item in items for _ in range(self.children)] for items in (parents, self.homes.items)
        )
        return self.probes.looked_at(self.probes.varied(repeated, homes, generator, model))

    def _followed(self, parents: list[Any], items: list[Any], place: Any, better: Any) -> list[Any]:
        """The parents of the next round: each one, or its best child (at `place`) where that is `better`."""
        return [items[i * self.children + place[i]] if better[i] else parent for i, parent in enumerate(parents)]


class Earlier:
    """What was asked already, and how much new probes are like it."""

    def __init__(self) -> None:
        self._vectors: list[np.ndarray] = []
        self._stretches: set[tuple[str, ...]] = set()

    def add(self, vectors: np.ndarray, texts: list[str]) -> None:
        """Remembers probes."""
        self._vectors += list(_unit(vectors))
        self._stretches.update(stretch for text in texts for stretch in stretches(text))

    def likeness(self, vectors: np.ndarray, texts: list[str]) -> np.ndarray:
        """The mean cosine of each probe with all before it, and its self-BLEU, added up `[n]`; 0 where none was."""
        if not self._vectors:
            return np.zeros(len(vectors))
        cosines = _unit(vectors) @ np.mean(self._vectors, axis=0)
        return np.asarray(cosines + np.array([self_bleu(text, self._stretches) for text in texts] or 0.0))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12))


@dataclass(frozen=True)
class Holes:
    """What a model doesn't answer of all probes of a search.

    `met` [rounds + 1, homes]: whether a hole was met near each home, up to each round; the first asks the homes
    themselves. `items`, `vectors`, `weakest`: the holes, and how they are answered. `sound`: how many probes were.
    """

    met: np.ndarray
    items: list[Any]
    vectors: np.ndarray
    weakest: np.ndarray
    sound: int

    @property
    def distinct(self) -> list[int]:
        """The places of holes that are like none before them."""
        return unlike(self.vectors, ALIKE)

    @property
    def diversity(self) -> float:
        """The Vendi score of the distinct holes."""
        return vendi(self.vectors[self.distinct])

    @property
    def worst(self) -> float:
        """The share of distinct holes whose answer is among the worst; 0 where there are none."""
        return float((self.weakest[self.distinct] < WORST).mean()) if len(self.items) else 0.0


def holes(model: nn.Module, probes: Probes, rounds: Sequence[Round]) -> Holes:
    """Asks a model all probes of a search; the first round holds one probe a home."""
    answers = [probes.answers(model, part.items) for part in rounds]
    wrong = [part.sound & ~answer.right for part, answer in zip(rounds, answers, strict=True)]
    met = np.array([part.reshape(len(rounds[0].items), -1).any(1) for part in wrong])
    everywhere = np.concatenate(wrong)
    items = [item for part in rounds for item in part.items]
    return Holes(
        met=np.logical_or.accumulate(met),
        items=[item for item, hole in zip(items, everywhere, strict=True) if hole],
        vectors=np.concatenate([part.vectors for part in rounds])[everywhere],
        weakest=np.concatenate([answer.weakest for answer in answers])[everywhere],
        sound=int(sum(part.sound.sum() for part in rounds)),
    )
