"""Knowledge holes of unlearned models, beside retrained ones, and what is left of them after they were patched.

digits: a small CNN, half of the threes must go; digits-class: all of them. by-heart: the Llama of recipes/by_heart.py.
stories: the real stories260K Llama, taught 120 stories, of which 24 must go.

python -m recipes.knowledge_holes digits
python -m recipes.knowledge_holes digits-class
python -m recipes.knowledge_holes by-heart
python -m recipes.knowledge_holes stories DATA_FOLDER
python -m recipes.knowledge_holes table

DATA_FOLDER holds stories260k/ and tinystories/. Writes results/knowledge-holes/models.jsonl, a line a model, and goes
on where an earlier call stopped. A *patched* model was trained on the distinct holes that a search met and on retain,
and is searched anew with other draws; one that was trained on retain alone stands beside it.
"""

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from recipes import by_heart
from unrecall.attacks.knowledge_holes import ArmSearch, KnowledgeHoles
from unrecall.data.request import Split
from unrecall.evidence.setting import Models, Setting
from unrecall.methods import NPO, GradDiff, NegGradPlus, RandomLabel
from unrecall.methods.base import Method
from unrecall.models.knowledge_holes.search import Holes
from unrecall.models.knowledge_holes.self_bleu import self_bleu, stretches
from unrecall.models.observe import accuracy
from unrecall.record import stats
from unrecall.record.schema import Estimate
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.tinystories import TinyStories
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

OUT = Path(__file__).parent.parent / "results" / "knowledge-holes" / "models.jsonl"
HEART = Fit(optimizer="adamw", lr=2e-4, weight_decay=0.0, epochs=100, batch_size=40, until=0.85, check_every=2)
STORIES = Fit(optimizer="adamw", lr=1e-3, weight_decay=0.0, epochs=4, batch_size=8)
PATCH = Fit(optimizer="adamw", lr=5e-4, weight_decay=0.0, epochs=100, steps=100, batch_size=16, batchnorm="frozen")
ATTACK = KnowledgeHoles()
ArmSearches: TypeAlias = Mapping[Split, ArmSearch]
NEGGRAD, RANDOM = NegGradPlus(), RandomLabel()
AT_ZERO: Mapping[str, Method] = {
    "NegGrad+ at rate 0": replace(NEGGRAD, fit=replace(NEGGRAD.fit, lr=0.0)),
    "random label at rate 0": replace(RANDOM, fit=replace(RANDOM.fit, lr=0.0)),
}
METHODS: Mapping[str, Mapping[str, Method]] = {
    "digits": {"NegGrad+": NEGGRAD, "random label": RANDOM, **AT_ZERO},
    "digits-class": {
        "NegGrad+": replace(NEGGRAD, beta=0.9, fit=replace(NEGGRAD.fit, epochs=5)),
        "random label": replace(RANDOM, fit=replace(RANDOM.fit, lr=0.05)),
        **AT_ZERO,
    },
    "by-heart": {"GradDiff": GradDiff(fit=HEART), "NPO": NPO(fit=HEART)},
    "stories": {"GradDiff": GradDiff(fit=STORIES), "NPO": NPO(fit=STORIES)},
}
FORGET = {"digits": "half:3", "digits-class": "class:3"}
REFERENCES = {"digits": 3, "digits-class": 3, "by-heart": 2, "stories": 1}


def scenario(case: str, data: str) -> Scenario:
    if case in FORGET:
        return Digits(forget=FORGET[case]).make()
    if case == "by-heart":
        return by_heart.make()
    return TinyStories(data=data, forget=24, retain=96, holdout=24, epochs=4).make()


def trained(model: nn.Module, items: list[Any], setting: Setting) -> nn.Module:
    """A copy that was trained on retain, beside these examples where there are any."""
    student = copy.deepcopy(model)
    streams = {"retain": setting.request.retain, **({"holes": items} if items else {})}

    def loss(trained: nn.Module, batches: Batches) -> Tensor:
        return torch.stack([setting.task.rows(trained, batch).losses().mean() for batch in batches.values()]).sum()

    fit(student, setting.task, Phase(loss, streams, PATCH), seeded(0), setting.session)
    return student.eval()


def share(values: np.ndarray) -> list[float]:
    """A share over homes with its interval, in percent."""
    return numbers(stats.mean(values.astype(float), share=True))


def numbers(estimate: Estimate) -> list[float]:
    """An estimate and its interval, if it has one, in percent."""
    parts = (estimate.value, estimate.low, estimate.high)
    return [round(100 * part, 1) for part in parts if part is not None]


def repeats(texts: list[str]) -> float | None:
    """The mean self-BLEU of texts, each against all others; None without two."""
    if len(texts) < 2:
        return None
    others = [{part for j, text in enumerate(texts) if j != i for part in stretches(text)} for i in range(len(texts))]
    return round(float(np.mean([self_bleu(*pair) for pair in zip(texts, others, strict=True)])), 2)


def line(model: nn.Module, searches: ArmSearches, setting: Setting) -> tuple[dict[str, Any], Holes]:
    """What the search meets in a model, and its accuracy (share of rows) on what must go and on the test set."""
    searched, random = ATTACK.holes_of(model, searches["forget"], setting)
    probes, distinct = searches["forget"].search.probes, [searched.items[i] for i in searched.distinct]
    elsewhere = ATTACK.holes_of(model, searches["holdout"], setting)
    met, drawn = (holes.met[-1].astype(float) for holes in (searched, random))
    row = {
        **{split: share(accuracy(model, setting.task, setting.request[split]))[0] for split in ("forget", "test")},
        "homes": len(met),
        "adjacent": share(searched.met[0]),
        "search": share(met),
        "random": share(drawn),
        "search - random": numbers(stats.difference(met - drawn)),
        "sound": searched.sound,
        "holes": len(searched.items),
        "distinct": len(distinct),
        "vendi": round(searched.diversity, 1),
        "self-bleu": repeats(probes.written(distinct)),
        "worst": round(100 * searched.worst, 1),
        "search near holdout": share(elsewhere.searched.met[-1]),
        "random near holdout": share(elsewhere.random.met[-1]),
    }
    return row, searched


def rows(case: str, setting: Setting, done: set[str]) -> Iterator[dict[str, Any]]:
    """A line for each model that has none yet; those that were trained on are searched with draws of their own."""
    anew = setting.with_seed(1)
    searches, others = ATTACK.searches(setting), ATTACK.searches(anew)
    roles = {"original": setting.models.original, **setting.models.references()}
    for role, model in roles.items():
        if role not in done:
            yield {"model": role, **line(model, searches, setting)[0]}
    for name, method in METHODS[case].items():
        if f"{name}, patched" in done:
            continue
        model = method.unlearn(setting.models.original, Job(setting.request, setting.task, seeded(0), setting.session))
        row, holes = line(model, searches, setting)
        distinct = [holes.items[i] for i in holes.distinct]
        if name not in done:
            yield {"model": name, **row}
        for how, items in (("trained on retain", []), ("patched", distinct)) if distinct else ():
            mended = trained(model, items, setting)
            used = share(accuracy(mended, setting.task, distinct))[0]
            yield {"model": f"{name}, {how}", "used": used, **line(mended, others, anew)[0]}


COLUMNS = {
    "forget": "forget",
    "test": "test",
    "adjacent": "adjacent",
    "search": "search",
    "random": "random",
    "search - random": "search - random",
    "search near holdout": "search near holdout",
    "distinct": "distinct",
    "vendi": "Vendi",
    "self-bleu": "self-BLEU",
    "worst": "worst",
    "used": "used, right now",
}


def cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, list):
        return f"{value:g}"
    return f"{value[0]:.0f} ({value[1]:.0f} to {value[2]:.0f})" if len(value) == 3 else f"{value[0]:.0f}"


def table() -> None:
    """All lines as a table of Markdown, by case."""
    written = [json.loads(text) for text in OUT.read_text().splitlines()]
    print(f"| case | model | {' | '.join(COLUMNS.values())} |\n|---|---|{'---|' * len(COLUMNS)}")
    for case in METHODS:
        for row in (row for row in written if row["case"] == case):
            print(f"| {case} | {row['model']} | {' | '.join(cell(row.get(name)) for name in COLUMNS)} |")


def main(case: str, data: str = "") -> None:
    if case == "table":
        table()
        return
    torch.set_num_threads(1)
    session, made = Session(device="cpu"), scenario(case, data)
    original = made.train_original(0, session).model
    retrained = tuple(made.train_retrained(i, session).model for i in range(REFERENCES[case]))
    task = made.task.settled(original, made.request)
    setting = Setting(Models(original, original, retrained), made.request, task, 0, session)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    written = [json.loads(text) for text in OUT.read_text().splitlines()] if OUT.exists() else []
    for row in rows(case, setting, {row["model"] for row in written if row["case"] == case}):
        with OUT.open("a") as file:
            file.write(json.dumps({"case": case, **row}) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
