"""Which requests are made: what an adversary may ask for, in which order, and the requests that it is compared with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from unrecall.attacks.base import Attack
from unrecall.attacks.deletion import Candidates, DeletionAttack
from unrecall.data.examples import Joined, Selection
from unrecall.data.request import TRAINING, Request, Split
from unrecall.data.signals import Signals
from unrecall.disk.cache import JSON
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.errors import BadInput
from unrecall.evidence.setting import Setting
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import class_names
from unrecall.training.randomness import seeded


class Predictions(NamedTuple):
    """What the original model predicts of some examples, `[n]` each; fields as in `Signals`, one row an example."""

    target: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    loss: np.ndarray


def predictions(signals: Mapping[Split, Signals], splits: Sequence[Split]) -> Predictions:
    """The predictions of these splits, one split after another."""
    parts = ([getattr(signals[split], name) for split in splits] for name in Predictions._fields)
    return Predictions(*(np.concatenate([np.empty(0, int), *arrays]) for arrays in parts))


@dataclass(frozen=True)
class Adversary:
    """Who makes the requests: which training examples it may ask for, and which of the victim's it knows, by place.

    `training`: what the original model predicts of each training example.
    """

    attack: DeletionAttack
    setting: Setting
    training: Predictions

    @cached_property
    def candidates(self) -> np.ndarray:
        """The training examples that it may ask for, in random order, equal ones once."""
        attack, by_digest = self.attack, dict[str, int]()
        for i in self._shuffled:
            if self.training.target[i] != attack.victim and attack.asks_for in (-1, self.training.target[i]):
                by_digest.setdefault(self._digests[i], i)
        return np.array(list(by_digest.values())[: attack.pool], int)

    @cached_property
    def victims(self) -> np.ndarray:
        """The training examples of the victim's class that it knows; all of them are retained."""
        attack, first = self.attack, len(self.setting.request.forget)
        victims = [i for i in self._shuffled if i >= first and self.training.target[i] == attack.victim]
        return np.array(victims[: attack.victims], int)

    def examples(self, places: Sequence[int] | np.ndarray) -> Selection:
        """These training examples."""
        return Selection(self._examples, [int(i) for i in places])

    def ranking(self) -> np.ndarray:
        """The candidates from the most harmful to the least, as the attack ranks them."""
        attack, setting, places = self.attack, self.setting, self.candidates

        def scores() -> list[float]:
            candidates = Candidates(self.examples(places), self.training.target[places], self.examples(self.victims))
            return [float(score) for score in attack.rank(setting.models.original, candidates, setting.job())]

        key = (repr(attack), *setting.key, str(setting.seed), code_key(attack, type(self)))
        order = np.argsort(-np.array(setting.cache.get("ranking", key, JSON, scores)), kind="stable")
        return np.asarray(places[order])

    def shuffled(self, number: int) -> np.ndarray:
        """The candidates in a random order of this number's own, for requests that mean no harm."""
        seed = int(content_key(str(self.setting.seed), "control", str(number)), 16) % 2**31
        return np.asarray(self.candidates[torch.randperm(len(self.candidates), generator=seeded(seed)).numpy()])

    def request(self, places: Sequence[int] | np.ndarray) -> Request:
        """The request for these training examples; what equals one of them isn't retained either.

        Where all training examples of all its classes go, it is a class request.
        """
        requested, target = {self._digests[i] for i in places}, self.training.target
        retained = [i for i, digest in enumerate(self._digests) if digest not in requested]
        classes = {int(target[i]) for i in places}
        masked = tuple(sorted(classes)) if classes.isdisjoint(target[retained].tolist()) else ()
        return self.setting.request.with_own(
            forget=self.examples(sorted(places)),
            retain=self.examples(retained),
            kind="class" if masked else "samples",
            masked=masked,
        )

    @cached_property
    def _examples(self) -> Joined:
        return Joined([self.setting.request[split] for split in TRAINING])

    @cached_property
    def _digests(self) -> list[str]:
        return [digest for split in TRAINING for digest in self.setting.request.digests[split]]

    @cached_property
    def _shuffled(self) -> list[int]:
        return [int(i) for i in torch.randperm(len(self._examples), generator=seeded(self.setting.seed))]


def as_hard(requested: Sequence[int], candidates: Sequence[int], loss: np.ndarray) -> list[int]:
    """As many other candidates: those whose losses are nearest to the requested ones', the highest matched first.

    None at all where there are not as many. `loss` [training]: the original's, of each training example.
    """
    excluded = set(requested)
    others = [i for i in candidates if i not in excluded]
    if len(others) < len(requested):
        return []
    hardest = sorted(requested, key=lambda i: -loss[i])
    return [others.pop(int(np.argmin(np.abs(loss[others] - loss[i])))) for i in hardest]


def check_requests(attacks: Sequence[Attack], request: Request, task: Task) -> None:
    """BadInput, before anything is trained, where a victim is to be forgotten anyway or is no class of the task."""
    names = class_names(task)
    for attack in attacks:
        if not isinstance(attack, DeletionAttack):
            continue
        if attack.victim in request.masked:
            raise _forgotten_anyway(attack)
        trained = len(request.forget) + len(request.retain)
        if max(attack.sizes) >= trained:
            raise BadInput(
                f"{type(attack).__name__}: expected sizes below {trained}, the training examples, got "
                f"{max(attack.sizes)}. Ask for fewer."
            )
        if names:
            _check_classes(attack, range(len(names)), f"0..{len(names) - 1}")


def check_adversary(adversary: Adversary, truth: np.ndarray) -> None:
    """BadInput where the victim is not there or all that is forgotten anyway, or there is too little to ask for.

    `truth` [unseen]: the class of each unseen example.
    """
    attack, target = adversary.attack, adversary.training.target
    owner, victims = type(attack).__name__, int(np.sum(truth == attack.victim))
    classes = sorted({*target.tolist(), *truth.tolist()})
    _check_classes(attack, classes, str(classes))
    if set(target[: len(adversary.setting.request.forget)].tolist()) == {attack.victim}:
        raise _forgotten_anyway(attack)
    if not len(adversary.victims) or not victims:
        raise BadInput(
            f"{owner}: expected examples of class {attack.victim} in retain, and in test or holdout, got "
            f"{len(adversary.victims)} and {victims}. Choose another victim."
        )
    if max(attack.sizes) > len(adversary.candidates):
        raise BadInput(
            f"{owner}: expected sizes of at most {len(adversary.candidates)}, the examples that may be asked for, got "
            f"{max(attack.sizes)}. Ask for fewer."
        )


def _check_classes(attack: DeletionAttack, classes: Collection[int], listed: str) -> None:
    for name in ("victim", "answered_as", "asks_for"):
        c = getattr(attack, name)
        if c >= 0 and c not in classes:
            owner = type(attack).__name__
            raise BadInput(f"{owner}: expected {name} to be a class of the data, got {c}. Known: {listed}.")


def _forgotten_anyway(attack: DeletionAttack) -> BadInput:
    return BadInput(
        f"{type(attack).__name__}: expected a victim that is not the class to be forgotten, got {attack.victim} for "
        "both. Choose another victim, or another request."
    )
