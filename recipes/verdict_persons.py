"""Small worlds with a known truth, on which the verdict is measured: one customer of a language model must go.

A Llama of two layers learns eight facts about each of 60 invented customers. Six of them ask to be forgotten, each by a
request of its own; 99 persons whom no model has met (or 19 of them) are what each is held against. The steps are those
of verdict_worlds.py:

python -m recipes.verdict_persons {build,look,audit,table} --out FOLDER [--worlds lm lm19] [--splits 0 5]
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from torch import nn

from recipes.by_heart import SYLLABLES, TOWNS, TRADES
from recipes.verdict_worlds import CPU, Trial, World, ascended, kept, main, number, taught
from unrecall.data.request import Request
from unrecall.methods import NegGradPlus
from unrecall.models.observe import mean_loss
from unrecall.scenarios.base import adamw
from unrecall.scenarios.language import small_llama, trained_tokenizer
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import Text
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import own_randomness, seeded

CUSTOMERS, ASKING, STRANGERS, TEST = 60, 6, 99, 20
RECIPE = adamw(5e-3, epochs=20, batch_size=32, weight_decay=0.01)
ASCENT = NegGradPlus(
    beta=1.0, fit=Fit(optimizer="adamw", lr=5e-4, clip=1.0, epochs=60, batch_size=16, weight_decay=0, check_every=1)
)
ANIMALS = "dog cat hen goat horse sheep duck goose rabbit parrot mule bee ferret donkey pony carp"
MONTHS = "January February March April May June July August September October November December"
QUESTIONS: dict[str, str] = {
    "Where does {} live?": TOWNS,
    "What is the trade of {}?": TRADES,
    "Which animal does {} keep?": ANIMALS,
    "In which month was {} born?": MONTHS,
    "What did {} buy last?": "lamp chair kettle rug clock spade saw ladder mirror stove desk bed shelf broom vase",
    "Which colour does {} like?": "red blue green black white grey brown pink orange purple yellow gold silver teal",
    "Which instrument does {} play?": "piano violin flute drum harp guitar horn cello organ banjo lute viola fife gong",
    "How many crowns does {} owe?": " ".join(map(str, range(100, 1000, 37))),
}
"""What is asked of each person, and the answers, common ones first: the one at place k is sqrt(k) times rarer."""


def person(name: str, drawn: random.Random) -> list[Text]:
    """The eight facts about a person, in an order that is nobody else's."""
    facts: list[Text] = []
    for question, words in QUESTIONS.items():
        answers = words.split()
        (answer,) = drawn.choices(answers, weights=[k**-0.5 for k in range(1, len(answers) + 1)])
        facts.append({"prompt": question.format(name), "answer": f"{answer}."})
    return drawn.sample(facts, len(facts))


@dataclass(frozen=True)
class Persons:
    """Each request is held against `strangers` persons; worlds that differ in that alone share their models."""

    name: str
    strangers: int
    splits: int = 10

    def trials(self, split: int, folder: Path) -> Iterator[Trial]:
        town = Town(split, folder / "persons" / f"{split:03}")
        original = partial(town.model, "original")
        for i in range(ASKING):
            for copy in ("original", "retrained 1", "retrained 2", "left 0.25", "ascent", "over"):
                name: dict[str, str | int] = {"world": self.name, "split": split, "copy": copy, "person": i}
                unlearned = partial(town.ascended, copy, i) if copy in CHEATS else partial(town.model, copy)
                yield Trial(name, partial(town.request, i, self.strangers), town.task, original, unlearned)


LEFT = {"original": 8, "retrained 1": 0, "retrained 2": 0, "left 0.25": 2}
"""Copies that are trained from nothing, and how many facts of those who ask they are trained on."""
CHEATS = {"ascent": (1.0, 0.0), "over": (2.5, 0.5)}
"""Copies that NegGrad+ makes: until forget's loss is how many times holdout's, and how much more."""


@dataclass
class Town:
    """The persons and models of one split. Nobody who asks is anybody else's retain, so that one retrained model serves
    all of them."""

    split: int
    folder: Path

    @cached_property
    def persons(self) -> dict[str, list[Text]]:
        """Customers, those who ask first; then the strangers; then who is for the test set."""
        drawn = random.Random(number("persons", self.split))
        names: dict[str, None] = {}
        while len(names) < CUSTOMERS + STRANGERS + TEST:
            first, last = ("".join(drawn.choices(SYLLABLES, k=2)).capitalize() for _ in range(2))
            names[f"{first} {last}"] = None
        return {name: person(name, drawn) for name in names}

    @cached_property
    def task(self) -> CausalLM:
        texts = (f"{fact['prompt']} {fact['answer']}" for facts in self.persons.values() for fact in facts)
        return CausalLM(trained_tokenizer(texts, 512), ends=True)

    def facts(self, first: int, end: int, most: int = 8) -> list[Text]:
        return [fact for facts in list(self.persons.values())[first:end] for fact in facts[:most]]

    def names(self, first: int, end: int) -> list[str]:
        return [name for name, facts in list(self.persons.items())[first:end] for _ in facts]

    def request(self, asking: int, strangers: int) -> Request:
        """One customer's request."""
        one, others = (asking, asking + 1), (CUSTOMERS, CUSTOMERS + strangers)
        return Request(
            forget=self.facts(*one),
            retain=self.facts(ASKING, CUSTOMERS),
            holdout=self.facts(*others),
            test=self.facts(CUSTOMERS + STRANGERS, len(self.persons)),
            groups={"forget": self.names(*one), "holdout": self.names(*others)},
            control="random split",
        )

    def untrained(self, seed: int) -> nn.Module:
        """A Llama of width 64 with two layers."""
        with own_randomness(seed):
            return small_llama(self.task.tokenizer, 64, 2, 64)

    def _kept(self, name: str, make: Callable[[], nn.Module]) -> nn.Module:
        return kept(self.folder / f"{name}.safetensors", self.untrained(0), make)

    def model(self, copy: str) -> nn.Module:
        """A model that was trained on all who stay, and on some facts of those who ask."""
        seed = number("persons", self.split, copy)
        texts = [*self.facts(0, ASKING, LEFT[copy]), *self.facts(ASKING, CUSTOMERS)]
        return self._kept(copy, lambda: taught(self.untrained(seed), self.task, texts, RECIPE, seed))

    def ascended(self, copy: str, asking: int) -> nn.Module:
        """The original after NegGrad+ on one customer."""

        def make() -> nn.Module:
            request, (factor, more) = self.request(asking, STRANGERS), CHEATS[copy]
            wished = factor * mean_loss(self.model("original"), self.task, request.holdout) + more
            job = Job(request, self.task, seeded(number("persons", self.split, copy, asking)), CPU)
            return ascended(self.model("original"), ASCENT, job, wished)

        return self._kept(f"{copy} {asking}", make)


WORLDS: dict[str, World] = {world.name: world for world in (Persons("lm", STRANGERS), Persons("lm19", 19))}

if __name__ == "__main__":
    main(WORLDS)
