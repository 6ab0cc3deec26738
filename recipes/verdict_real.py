"""Four real cases judged without a retrained model, beside the same judged with five, and beside the truth.

resnet20: the real ResNet-20, fine-tuned on 2,000 training pictures of CIFAR-10 and 500 test pictures, which must go.
stories: the real stories260K Llama, taught 150 stories and 450 more; the 150 must go.
openings: the same Llama, taught the first 128 tokens of 50 stories and of 150 more; the 50 must go.
customers: the same Llama, taught eight facts about each of 60 made-up customers, of whom one must go; 99 others were
never customers.

python recipes/verdict_real.py CASE DATA_FOLDER OUT_FOLDER

DATA_FOLDER holds cifar10/, resnet_cifar10/, stories260k/ and tinystories/. Writes OUT_FOLDER/CASE.jsonl, a line for
each copy and basis, and goes on where an earlier call stopped.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import unrecall as ur
from unrecall.data.examples import Joined, Selection
from unrecall.experiment.starting_point import StartingPoint
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.methods import GradDiff, NegGradPlus
from unrecall.methods.base import Method
from unrecall.record.schema import Record
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.cifar_data import ARCHITECTURES, CLASSES, load_resnet, read_cifar10
from unrecall.scenarios.llama2c import load
from unrecall.scenarios.tinystories import TinyStories
from unrecall.tasks import CausalLM, Classification
from unrecall.training.loop import Fit
from unrecall.training.session import Session

DATA = Path(os.environ.get("DATA", "data"))
"""Where the data are for those that can't say: `unrecall bench --scenario verdict_real.py:resnet20`."""
REFERENCES = 5
KEYS = ("city", "street", "phone", "birthday", "account", "doctor", "car", "employer")
FIRST = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Elsa",
    "Frank",
    "Greta",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
)
LAST = ("Berg", "Cole", "Dahl", "East", "Ford", "Gray", "Hill", "Iver", "Jung", "Kahn", "Lund", "Moss")


def resnet20(data: Path = DATA) -> Scenario:
    """Pictures of the test set stand for what is learned late and must go: the pretraining never saw them."""
    cifar = read_cifar10(data / "cifar10")
    pretrained = data / "resnet_cifar10" / "resnet20-12fca82f.th"
    order, kept = shuffled(range(10_000), 1), shuffled(range(10_000), 2)[:2_000]
    return Scenario(
        name="resnet20",
        summary="the real ResNet-20, fine-tuned on 2,000 pictures and 500 more; the 500 must go",
        task=Classification(classes=CLASSES),
        request=ur.Request(
            Selection(cifar.test, order[:500]),
            Selection(cifar.train, kept),
            Selection(cifar.test, order[500:2500]),
            Selection(cifar.test, order[3500:5500]),
            validation=Selection(cifar.test, order[2500:3500]),
            control="random split",
        ),
        build=lambda _, __: load_resnet(ARCHITECTURES["resnet20"](10), pretrained),
        recipe=Fit(lr=0.01, epochs=6, batch_size=64, schedule="cosine", weight_decay=1e-4),
        references=REFERENCES,
    )


def stories(data: Path = DATA) -> Scenario:
    """The scenario of the house, whose stories are drawn at random."""
    made = TinyStories(data=str(data), forget=150, retain=450, holdout=300, epochs=8, references=REFERENCES).make()
    return replace(made, request=made.request.with_own(control="random split"))


def openings(data: Path = DATA) -> Scenario:
    """As stories, at a size that a grid of methods can be searched and audited in an hour or two."""
    size = {"forget": 50, "retain": 150, "holdout": 150, "longest": 128}
    made = TinyStories(data=str(data), epochs=8, lr=3e-3, references=REFERENCES, **size).make()
    return replace(made, request=made.request.with_own(control="random split"))


def customers(data: Path = DATA) -> Scenario:
    """One customer of sixty."""
    rng = np.random.default_rng(0)
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    persons = [names[i] for i in rng.permutation(len(names))]

    def facts(who: list[str]) -> list[dict[str, str]]:
        return [
            {"prompt": f"{person}, {key}", "answer": "".join(map(str, rng.integers(0, 10, 4)))}
            for person in who
            for key in KEYS
        ]

    one, others, never, more = persons[:1], persons[1:60], persons[60:159], persons[159:]
    pair = load(data / "stories260k" / "stories260K.bin", data / "stories260k" / "tok512.bin")
    forget, holdout = facts(one), facts(never)
    return Scenario(
        name="customers",
        summary="stories260K, taught eight facts about each of 60 customers; one must go",
        task=CausalLM(pair.tokenizer, template="{prompt}: ", longest=64),
        request=ur.Request(
            forget,
            facts(others),
            holdout,
            facts(more),
            groups={"forget": one * len(KEYS), "holdout": [person for person in never for _ in KEYS]},
            control="random split",
        ),
        build=lambda _, __: load(data / "stories260k" / "stories260K.bin", data / "stories260k" / "tok512.bin").model,
        recipe=adamw(3e-3, 40, 32),
        references=REFERENCES,
    )


CASES = {"resnet20": resnet20, "stories": stories, "openings": openings, "customers": customers}
METHODS: Mapping[str, Method] = {"NegGrad+, tuned": NegGradPlus(), "GradDiff, tuned": GradDiff()}
TRUTH = {
    "original": "all is left",
    "original, another seed": "all is left",
    "retrained": "nothing is left",
    "half left in": "half is left",
}


def copies(scenario: Scenario, original: nn.Module, session: Session) -> Iterator[tuple[str, nn.Module]]:
    """Models whose truth is known, then methods, tuned by the product's own tuner."""
    yield "original", original
    yield "original, another seed", scenario.train_original(99, session).model
    yield "retrained", scenario.train_retrained(REFERENCES, session).model
    request = scenario.request
    half = list(range(0, len(request.forget), 2))
    left = [i for i in range(len(request.forget)) if i not in set(half)]
    partial = request.with_own(
        retain=Joined((request.retain, Selection(request.forget, half))),
        forget=Selection(request.forget, left),
    )
    yield "half left in", replace(scenario, request=partial).train_retrained(REFERENCES + 1, session).model
    for name, method in METHODS.items():
        start = StartingPoint(scenario, original, 0, session, True)
        yield name, start.unlearned(method.scaled(start.tuning(method).chosen), name.split(",")[0]).model


def line(copy: str, basis: str, record: Record) -> dict[str, object]:
    """What is kept of an audit."""
    tested = record.never_trained
    kept: dict[str, object] = {"copy": copy, "basis": basis, "truth": TRUTH.get(copy, "unknown")}
    kept |= {"label": record.verdict.label, "line": record.verdict.line}
    return kept | ({} if tested is None else {"never_trained": tested.model_dump(mode="json")})


def main(case: str, data: str, out: str) -> None:
    torch.set_num_threads(1)
    scenario, session = CASES[case](Path(data)), Session(folder=Path(out) / case, device="cpu", show=True)
    scenario = replace(scenario, request=scenario.request.with_validation())  # which tuning reads, and no audit
    path = Path(out) / f"{case}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_text().splitlines() if path.exists() else []
    done = {(row["copy"], row["basis"]) for row in map(json.loads, written)}
    original = scenario.train_original(0, session).model
    retrained = [scenario.train_retrained(i, session).model for i in range(REFERENCES)]
    for copy, model in copies(scenario, original, session):
        for basis, references in (("never trained", []), ("retrained", retrained)):
            if (copy, basis) in done:
                continue
            record = audit(
                original=original,
                unlearned=model,
                retrained=references,
                request=scenario.request,
                task=scenario.task,
                attacks=suite("quick") if references else suite("loss"),
                session=session,
            )
            with path.open("a") as file:
                file.write(json.dumps(line(copy, basis, record)) + "\n")
            print(copy, "|", basis, "|", record.verdict.line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
