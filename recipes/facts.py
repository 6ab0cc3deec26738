"""Eight facts of 68 must go from a Llama of two layers: what each method, tuned, leaves of them and of the others.

python recipes/facts.py [METHOD ...]

Prints a Markdown row a method: the share of answers that it writes word for word (greedy) of forget and of retain.
"""

import random
import sys
from collections.abc import Iterator

import numpy as np
from torch import nn

from unrecall.data.request import Request
from unrecall.experiment.goal import stopping
from unrecall.experiment.tune import tune
from unrecall.scenarios.language import small_llama, trained_tokenizer
from unrecall.spec.lines import parse
from unrecall.tasks import CausalLM
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session

METHODS = ("simnpo", "wga", "undial", "ce_u", "npo", "grad_diff", "rmu", "dpo")
TRAINING = Fit(optimizer="adamw", lr=3e-3, weight_decay=0.01, epochs=60, batch_size=16)
SESSION = Session(device="cpu")
SYLLABLES = [consonant + vowel for consonant in "bdkl" for vowel in "aeiou"]


def facts(n: int) -> Iterator[dict[str, object]]:
    """Questions where somebody lives, with an address that can't be guessed."""
    draws = random.Random(0)
    for _ in range(n):
        name, street = ("".join(draws.choices(SYLLABLES, k=k)) for k in (3, 4))
        yield {
            "prompt": f"Where does {name.capitalize()} live?",
            "answer": f"{street} street {draws.randrange(10, 99)}",
        }


def share(model: nn.Module, task: CausalLM, texts: list[dict[str, object]]) -> float:
    """The share of answers that the model writes word for word."""
    written = task.generate(model, texts)
    return float(np.mean([text["answer"] == said for text, said in zip(texts, written, strict=True)]))


def main(methods: list[str]) -> None:
    """Trains the original, and prints a row for each method."""
    data = list(facts(128))
    request = Request(data[:8], data[8:68], data[68:108], data[108:])
    task = CausalLM(trained_tokenizer([f"{fact['prompt']} {fact['answer']}" for fact in data], 300), ends=True)
    with own_randomness(0):
        original = small_llama(task.tokenizer, width=64, depth=2, context=64)
    fit(original, task, Phase(loss_on("known", task), {"known": data[:68]}, TRAINING), seeded(1), SESSION)
    original.eval()
    print("| method | forget | retain | strength | goal |\n|---|---|---|---|---|")
    print(f"| original | {share(original, task, data[:8]):.2f} | {share(original, task, data[8:68]):.2f} | | |")
    for line in methods:
        method, job = parse(line, "methods"), Job(request, task, seeded(0), SESSION)
        tuned = tune(method, original, job)
        model = method.scaled(tuned.chosen).unlearn(original, stopping(Job(request, task, seeded(0), SESSION)))
        met = "met" if tuned.met else "not met"
        said = [f"{share(model, task, texts):.2f}" for texts in (data[:8], data[8:68])]
        print(f"| {line} | {said[0]} | {said[1]} | x {tuned.chosen:.3g} | {met} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [*METHODS])
