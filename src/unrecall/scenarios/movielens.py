"""MovieLens: who liked which film, and users who ask that their films of a genre, or all of theirs, are forgotten."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from unrecall.errors import BadInput
from unrecall.models.recommenders import GRU4Rec, LightGCN, MatrixFactorisation, SASRec
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.ratings import RatingLog, of_genre, of_users, read_log
from unrecall.scenarios.recommenders import (
    DeletionRule,
    Draw,
    Interaction,
    Parts,
    examples,
    pairs,
    parts_of,
)
from unrecall.spec.parameters import Count, Index, NonNegative
from unrecall.tasks import Recommendation
from unrecall.training.loop import Fit

SESSIONS = ("sasrec", "gru")
"""The models that read histories."""
RECIPES = {
    "mf": Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, epochs=20, batch_size=512),
    "lightgcn": Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, epochs=20, batch_size=512),
    "sasrec": Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, epochs=20, batch_size=512),
    "gru": Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, epochs=20, batch_size=512),
}
"""How each model is trained."""
PUSHED = 10
"""How many unpopular films a made-up profile pushes, beside as many popular ones."""
POPULAR = 0.05
"""The share of films that are popular."""


@dataclass(frozen=True)
class MovieLens(Builder):
    """Recommenders of films: matrix factorisation, LightGCN, SASRec or GRU4Rec, trained on what users liked.

    Half of what a user asks to have forgotten was trained on, and must go; the other half was held back before
    training, by lot, and is the holdout (two thirds) and validation. Each user's last film is the test set. Requests
    come one after another: at checkpoint i the i-th part of the users asks, those before them are forgotten already,
    and those after them have not asked yet.

    `data`: folder of ratings.csv and movies.csv. `forget`: category:GENRE, the films of a genre of some users; users,
    all films of some users; user:ID+ID, of these; or spam, made-up profiles that push ten unpopular films beside
    popular ones. `model`: mf, lightgcn, sasrec or gru. `fraction`: what must go in all, as a share of all interactions;
    not for user. `checkpoints`: in how many requests. `checkpoint`: which of them this is. `least`: the rating from
    which on a film is liked. `core`: users and films with fewer interactions are left out, until there are none.
    `width`: of the model. `longest`: how many films of a history are read. `epochs`: 0 for the model's own.
    `references`: retrained models.

    Reference: Lubitzsch, de Rijke, Schelter, "ERASE", arXiv 2603.08341. Differs from the paper in data and size, in
    losses, which are the softmax over all films, and in holding half back.
    """

    data: str = ""
    forget: str = "category:Horror"
    model: Literal["mf", "lightgcn", "sasrec", "gru"] = "mf"
    fraction: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    checkpoints: Count = 1
    checkpoint: Count = 1
    least: NonNegative = 4.0
    core: Count = 5
    width: Count = 32
    longest: Count = 10
    epochs: Index = 0
    references: Index = 3
    seed: Index = 0

    def make(self) -> Scenario:
        """Reads the files, draws what must go, and says how to train."""
        if not self.data or not Path(self.data).is_dir():
            raise BadInput(f"movielens: expected data=FOLDER with ratings.csv and movies.csv, got '{self.data}'.")
        if self.checkpoint > self.checkpoints:
            raise BadInput(
                f"movielens: expected a checkpoint in 1..{self.checkpoints} (checkpoints), got {self.checkpoint}."
            )
        log = read_log(Path(self.data), self.least, self.core)
        log, rule, sensitive = self._rule(log)
        parts = parts_of(log.interactions, rule, Draw(self.seed, self.checkpoints, self.checkpoint))
        longest = self.longest if self.model in SESSIONS else 0
        recipe = RECIPES[self.model]
        return Scenario(
            name="movielens",
            summary=self._summary(log, parts),
            task=Recommendation(len(log.titles), longest, sensitive, log.titles),
            request=parts.request(longest),
            build=lambda _, __: self._untrained(log, parts),
            recipe=replace(recipe, epochs=self.epochs or recipe.epochs),
            references=self.references,
            original_data=examples(parts.before, parts.before, longest),
        )

    def _summary(self, log: RatingLog, parts: Parts) -> str:
        askers, emptied = len({i.user for i in parts.forget}), len(parts.emptied)
        turn = f", request {self.checkpoint} of {self.checkpoints}" if self.checkpoints > 1 else ""
        nothing = f"; {emptied} of them keep nothing, and are not tested" if emptied else ""
        return (
            f"MovieLens, {len(log.interactions):,} ratings of {self.least:g} or more, {len(log.users)} users, "
            f"{len(log.titles):,} films, {self.model}; forget {len(parts.forget)} interactions of {askers} users "
            f"({self.forget}){turn}{nothing}"
        )

    def _rule(self, log: RatingLog) -> tuple[RatingLog, DeletionRule, tuple[int, ...]]:
        """The interactions, with those of spammers; who may ask for what; and the items that are sensitive for all."""
        how, _, which = self.forget.partition(":")
        most = self.fraction * len(log.interactions)
        users = shuffled(range(len(log.users)), self.seed)
        if how == "category" and which:
            items = of_genre(log, which)
            return log, DeletionRule(users, lambda i: i.item in items, most), tuple(sorted(items))
        if self.forget == "users":
            return log, DeletionRule(users, lambda _: True, most), ()
        if how == "user" and which:
            return log, DeletionRule(of_users(log, which.split("+")), lambda _: True), ()
        if self.forget == "spam":
            return spammed(log, max(self.checkpoints, round(most / PUSHED)), self.seed)
        raise BadInput(
            f"forget: expected category:GENRE, users, user:ID+ID or spam, got '{self.forget}'. Name what must go."
        )

    def _untrained(self, log: RatingLog, parts: Parts) -> nn.Module:
        """The model before training; a graph holds what is trained on before the request."""
        users, items = len(log.users), len(log.titles)
        if self.model == "mf":
            return MatrixFactorisation(users, items, self.width)
        if self.model == "sasrec":
            return SASRec(items, self.longest, self.width)
        if self.model == "gru":
            return GRU4Rec(items, self.width)
        graph = LightGCN(users, items, pairs(sorted([*parts.before, *parts.earlier])), self.width)
        graph.withdraw(pairs(parts.earlier))
        return graph


def spammed(log: RatingLog, count: int, seed: int) -> tuple[RatingLog, DeletionRule, tuple[int, ...]]:
    """The log with `count` made-up profiles, the rule that they go, and the films that they push.

    A profile has the ten least popular films and as many of the popular ones, in an order of its own (bandwagon).
    """
    counts = Counter(i.item for i in log.interactions)
    by_rank = sorted(range(len(log.titles)), key=lambda item: (counts[item], item))
    popular = by_rank[-max(PUSHED, round(POPULAR * len(by_rank))) :]
    if len(by_rank) < 2 * PUSHED:
        raise BadInput(f"forget: expected at least {2 * PUSHED} films for spam, got {len(by_rank)}. Lower core.")
    pushed, first = by_rank[:PUSHED], len(log.users)
    made_up: list[Interaction] = []
    for user in range(first, first + count):
        films = shuffled([*pushed, *shuffled(popular, seed + user)[:PUSHED]], seed + user)
        made_up += [Interaction(len(log.interactions) + len(made_up) + k, user, item) for k, item in enumerate(films)]
    profiles = range(first, first + count)
    names = [*log.users, *(f"profile {user - first + 1}" for user in profiles)]
    rule = DeletionRule(shuffled(profiles, seed), lambda i: i.user >= first, untested=frozenset(profiles))
    return replace(log, interactions=[*log.interactions, *made_up], users=names), rule, tuple(sorted(pushed))
