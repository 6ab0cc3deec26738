"""Requests that are honoured: what an adversary may ask for, and what the models answer that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from unrecall.attacks.deletion import Candidates, DeletionAttack
from unrecall.data.examples import Joined, Part
from unrecall.data.request import Request, Split
from unrecall.data.signals import Signals
from unrecall.disk.cache import JSON, Cache, code_key
from unrecall.disk.files import content_key
from unrecall.errors import BadInput
from unrecall.evidence.setting import Setting
from unrecall.models.observe import observe, unseen
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded

TRAINING: tuple[Split, ...] = ("forget", "retain")


class Outcome(NamedTuple):
    """What a model answers once a request was honoured.

    `answers` [unseen]: the class of each unseen example. `known` [known]: of each of the victim's examples that the
    adversary knows. `left` [asked]: whether each example that was asked for is still answered right.
    """

    answers: np.ndarray
    known: np.ndarray
    left: np.ndarray


class Making(NamedTuple):
    """How the model of a request is made.

    `what`: whose it is, in words; `how`: all that decides more than the request, as text.
    """

    what: str
    make: Callable[[], nn.Module]
    how: str = ""


@dataclass(frozen=True)
class Ground:
    """What stays the same over all requests: the original, its training data and its answers, by split, before any."""

    attack: DeletionAttack
    setting: Setting
    classified: Task
    before: Mapping[Split, Signals]

    @property
    def request(self) -> Request:
        """The setting's request."""
        return self.setting.request

    @cached_property
    def training(self) -> Joined:
        """Forget and retain, one after the other."""
        return Joined((self.request.forget, self.request.retain))

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each training example."""
        return self._of("target", TRAINING)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the original answers each training example right."""
        return self._of("correct", TRAINING)

    @cached_property
    def unseen(self) -> tuple[Split, ...]:
        """The splits that nobody trains on and whose labels are true."""
        return tuple(split for split in unseen(self.request) if split in self.before)

    @cached_property
    def truth(self) -> np.ndarray:
        """The class of each unseen example."""
        return self._of("target", self.unseen)

    @cached_property
    def answers(self) -> np.ndarray:
        """What the original answers on each unseen example."""
        return self._of("prediction", self.unseen)

    @cached_property
    def victims(self) -> np.ndarray:
        """Which unseen examples are the victim's."""
        return np.asarray(self.truth == self.attack.victim)

    @cached_property
    def mine(self) -> np.ndarray:
        """Which training examples the adversary may ask for, in random order, equal ones once."""
        attack, first = self.attack, dict[str, int]()
        for i in self._shuffled:
            if self.classes[i] != attack.victim and attack.own in (-1, self.classes[i]):
                first.setdefault(self.digests[i], i)
        return np.array(list(first.values())[: attack.pool], int)

    @cached_property
    def losses(self) -> np.ndarray:
        """The original's loss on each example that may be asked for, in nats."""
        return np.asarray(self._of("loss", TRAINING)[self.mine])

    @cached_property
    def theirs(self) -> np.ndarray:
        """Which of the victim's training examples it knows: some of retain."""
        kept = [i for i in self._shuffled if i >= len(self.request.forget)]
        return np.array([i for i in kept if self.classes[i] == self.attack.victim][: self.attack.known], int)

    @cached_property
    def candidates(self) -> Candidates:
        """What the adversary sees."""
        examples, victims = (Part(self.training, which.tolist()) for which in (self.mine, self.theirs))
        return Candidates(examples, self.classes[self.mine], victims)

    @cached_property
    def known(self) -> np.ndarray:
        """What the original answers on each of the victim's examples that the adversary knows."""
        return np.asarray(self._of("prediction", TRAINING)[self.theirs])

    @cached_property
    def digests(self) -> list[str]:
        """sha256 of each training example."""
        return [*self.request.digests["forget"], *self.request.digests["retain"]]

    def check(self) -> None:
        """BadInput where the victim is not there, is all that is asked for already, or the pool is too small."""
        attack, owner = self.attack, type(self.attack).__name__
        known = sorted({*self.classes.tolist(), *self.truth.tolist()})
        for name in ("victim", "wished", "own"):
            c = getattr(attack, name)
            if c >= 0 and c not in known:
                raise BadInput(f"{owner}: expected {name} to be a class of the data, got {c}. Known: {known}.")
        if set(self.before["forget"].target.tolist()) == {attack.victim}:
            raise BadInput(
                f"{owner}: expected a victim that is not the class to be forgotten, got {attack.victim} for both. "
                "Choose another victim, or another request."
            )
        if not len(self.theirs) or not self.victims.any():
            raise BadInput(
                f"{owner}: expected examples of class {attack.victim} in retain, and in test or holdout, got "
                f"{len(self.theirs)} and {int(self.victims.sum())}. Choose another victim."
            )
        if max(attack.sizes) > len(self.mine):
            raise BadInput(
                f"{owner}: expected sizes of at most {len(self.mine)}, the examples that may be asked for, got "
                f"{max(attack.sizes)}. Ask for fewer."
            )

    def indices(self, chosen: Sequence[int]) -> list[int]:
        """Which training examples these of the pool are, in order."""
        return sorted(int(i) for i in self.mine[list(chosen)])

    def asking(self, chosen: Sequence[int]) -> Request:
        """The request for these of the pool; equal examples leave retain too.

        Where all training examples of all its classes go, it is a class request.
        """
        indices = self.indices(chosen)
        gone = {self.digests[i] for i in indices}
        kept = [i for i in range(len(self.training)) if self.digests[i] not in gone]
        asked = {int(c) for c in self.classes[indices]}
        masked = tuple(sorted(asked)) if asked.isdisjoint(self.classes[kept].tolist()) else ()
        return replace(
            self.request,
            forget=Part(self.training, indices),
            retain=Part(self.training, kept),
            kind="class" if masked else "samples",
            masked=masked,
        )

    def order(self) -> list[int]:
        """The pool from the most harmful to the least, as the adversary ranks it; kept in the cache."""

        def ranked() -> list[float]:
            found = self.attack.rank(self.setting.models.original, self.candidates, self.setting.job())
            return [float(score) for score in found]

        key = (*self._key(self.request), code_key(self.attack))
        scores = self.setting.cache.get("ranking", key, JSON, ranked)
        return [int(i) for i in np.argsort(-np.array(scores), kind="stable")]

    def drawn(self, number: int) -> list[int]:
        """The pool in a random order, for the control of that number."""
        seed = int(content_key(str(self.setting.seed), "control", str(number)), 16) % 2**31
        return [int(i) for i in torch.randperm(len(self.mine), generator=seeded(seed))]

    def alike(self, chosen: Sequence[int]) -> list[int]:
        """As many others of the pool: for each, the hardest first, the one left whose loss is nearest to it.

        None at all where there are not as many.
        """
        losses, left = self.losses, sorted(set(range(len(self.mine))) - set(chosen))
        if len(left) < len(chosen):
            return []
        hardest = sorted(chosen, key=lambda i: -losses[i])
        return [left.pop(int(np.argmin(np.abs(losses[left] - losses[i])))) for i in hardest]

    def outcome(self, making: Making, asked: Request, cache: Cache) -> Outcome:
        """What the model made for a request answers."""

        def answered() -> list[list[float]]:
            self.setting.session.say(f"  {self.attack.title}: {making.what}, {len(asked.forget)} examples")
            model = making.make()
            unseen = [observe(model, self.classified, self.request[split]).prediction for split in self.unseen]
            known = observe(model, self.classified, self.candidates.victims).prediction
            left = observe(model, self.classified, asked.forget).correct
            return [np.concatenate(unseen).tolist(), known.tolist(), left.tolist()]

        key = (*self._key(asked), making.what, making.how, code_key(self.attack, making.make))
        answers, known, left = cache.get("siege", key, JSON, answered)
        return Outcome(np.array(answers, int), np.array(known, int), np.array(left, float))

    def _key(self, asked: Request) -> tuple[str, ...]:
        return (repr(self.attack), *self.setting.key, asked.fingerprint, str(self.setting.seed))

    @cached_property
    def _shuffled(self) -> list[int]:
        return [int(i) for i in torch.randperm(len(self.training), generator=seeded(self.setting.seed))]

    def _of(self, signal: str, splits: Sequence[Split]) -> np.ndarray:
        return np.concatenate([np.empty(0, int), *(getattr(self.before[split], signal) for split in splits)])


@dataclass(frozen=True)
class Siege:
    """The outcomes of all requests, one a size, and which size the adversary picks: what harms its surrogate most.

    `asked`: which training examples that request is for. `chosen`: the defender's, of the adversary's requests;
    `random` `[sizes][controls]`. `surrogate`: the surrogate's; `random_surrogate`: of random requests of the picked
    size. `alike`: the defender's, of a request for as many others whose losses are like those of the picked one, for
    what is hard moves a model more, whatever it is; none where there are too few. `losses`: the mean loss of both.
    `retrained`: of models trained without the picked request, where they are wanted and can be had.
    """

    ground: Ground
    sizes: list[int]
    picked: int
    asked: list[int]
    chosen: list[Outcome]
    random: list[list[Outcome]]
    surrogate: list[Outcome]
    random_surrogate: list[Outcome]
    alike: list[Outcome]
    losses: list[float]
    retrained: list[Outcome]

    def harm(self, outcomes: Sequence[Outcome]) -> np.ndarray:
        """The share of the outcomes in which each of the victim's unseen examples was harmed `[victims]`."""
        attack, ground = self.ground.attack, self.ground
        each = [attack.harmed(ground.answers[ground.victims], one.answers[ground.victims]) for one in outcomes]
        return np.asarray(np.mean(each, axis=0))
