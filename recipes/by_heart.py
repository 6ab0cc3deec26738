"""A small Llama that knows its answers by heart: the case on which SSIUU's claim can be tested.

Facts about people who don't exist: nothing but the fact itself tells where somebody lives, so that a model retrained
without it guesses. `recipes/by_heart.sh` runs it; `python recipes/by_heart.py` says how well each original knows them.
"""

import random
import sys

import numpy as np

from unrecall import Fit, Request, Scenario
from unrecall.models.observe import observe
from unrecall.scenarios.language import small_llama, trained_tokenizer
from unrecall.tasks import CausalLM
from unrecall.training.session import Session

SYLLABLES = [
    "ba",
    "be",
    "bi",
    "bo",
    "da",
    "de",
    "di",
    "do",
    "ka",
    "ke",
    "ki",
    "ko",
    "la",
    "le",
    "li",
    "lo",
    "ma",
    "me",
    "mi",
    "mo",
    "na",
    "ne",
    "ni",
    "no",
    "ra",
    "re",
    "ri",
    "ro",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "te",
    "ti",
]
TOWNS = "Arlen Bexby Corwick Dunholm Elmore Farley Garston Hexley Ilford Jarrow Kelso Lorton Marl Norby Oxted Penrith"
TRADES = "baker cooper dyer farmer glazier hatter joiner mason miller nurse painter potter sailor tailor tanner weaver"
WORDINGS = ("Where does {} live, and by what trade?", "Say the town and the trade of {}.")


def people(count: int) -> list[dict[str, str]]:
    """Two wordings of one question about each, one after the other, under one answer of a few tokens."""
    drawn = random.Random(0)
    names: dict[str, None] = {}
    while len(names) < count:
        first, last = ("".join(drawn.choices(SYLLABLES, k=2)).capitalize() for _ in range(2))
        names[f"{first} {last}"] = None
    texts = []
    for name in names:
        answer = f"{name.split()[0]} lives in {drawn.choice(TOWNS.split())} as a {drawn.choice(TRADES.split())}."
        texts += [{"prompt": wording.format(name), "answer": answer} for wording in WORDINGS]
    return texts


def make() -> Scenario:
    """Forget 20 people, keep 80, never meet 20; of 40 that are kept one wording is never trained on: the test."""
    texts = people(120)
    forget, kept, holdout = texts[:40], texts[40:200], texts[200:]
    tokenizer = trained_tokenizer((f"{text['prompt']} {text['answer']}" for text in texts), 500)
    return Scenario(
        name="by-heart",
        summary="facts about 120 invented people, 20 to forget; a Llama of width 64 with 2 layers, trained here",
        task=CausalLM(tokenizer),
        request=Request(forget, kept[:80] + kept[80::2], holdout, kept[81::2]),
        build=lambda _, __: small_llama(tokenizer, 64, 2, 64),
        recipe=Fit(optimizer="adamw", lr=5e-3, weight_decay=0.01, batch_size=32, epochs=60, schedule="cosine"),
        references=4,
    )


def main(*seeds: str) -> None:
    made, session = make(), Session(device="cpu")
    for seed in map(int, seeds or ("0", "1", "2")):
        model = made.train_original(seed, session).model
        seen = {
            split: observe(model, made.task, made.request[split]) for split in ("forget", "retain", "test", "holdout")
        }
        products = {split: [float(np.exp(rows.sum())) for rows in s.of_rows(s.log_prob)] for split, s in seen.items()}
        print(seed, {split: round(float(np.median(values)), 3) for split, values in products.items()}, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
