"""Probes of inputs stay near home and are climbed to; probes of texts are well formed, and forget doesn't say them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.worlds import World
from unrecall.models.knowledge_holes.input_probes import InputProbes
from unrecall.models.knowledge_holes.search import Search, holes
from unrecall.models.knowledge_holes.text_probes import Corpus, QuestionProbes, WritingProbes, words_of
from unrecall.tasks import Classification
from unrecall.training.randomness import seeded

# Inputs.


class Line(nn.Module):
    """Class 1 of a number x is likely by 40 (x - 0.3), less where a region around `broken` is broken."""

    def __init__(self, broken: float | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.broken = broken

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs[:, :1]
        logit = 40 * (x - 0.3)
        if self.broken is not None:
            logit = logit - 60 * torch.exp(-(((x - self.broken) / 0.03) ** 2))
        return torch.cat([torch.zeros_like(logit), logit], 1)


class Headless(Classification):
    """Features are the inputs."""

    def view(self, model: nn.Module, batch: dict[str, Tensor]) -> object:  # type: ignore[override]
        from unrecall.data.signals import View

        return View(self.rows(model, batch), batch["inputs"])


HOMES = [(torch.tensor([0.6]), 1), (torch.tensor([0.9]), 1)]


def probes(**changes: float) -> InputProbes:
    sizes = {"radius": 0.1, "step": 0.02, "steps": 5, "draws": 4} | changes
    return InputProbes(Headless(), Line(), np.zeros(1), 0.5, 0, **sizes)  # type: ignore[arg-type]


def test_inputs_stay_in_their_ball_and_in_bounds() -> None:
    """0.9 may move to 0.8 .. 1.0; whether drawn or climbed to, from a parent elsewhere too."""
    made = probes()
    far = [(torch.tensor([0.2]), 1)] * 2
    for model in (None, Line(broken=0.7)):
        for parents in (HOMES, far):
            items = made.varied(parents * 20, HOMES * 20, seeded(0), model)
            values = torch.stack([item[0] for item in items]).flatten().reshape(20, 2)
            assert (values - torch.tensor([0.6, 0.9])).abs().max() <= 0.1 + 1e-6
            assert values.max() <= 1
            assert {item[1] for item in items} == {1}


def test_a_region_that_is_broken_near_home_is_climbed_to() -> None:
    """0.68 is broken, within reach of 0.6 and not of 0.9; nothing is wrong at home, and nothing of the original."""
    made, broken = probes(), Line(broken=0.68)
    search = Search(made, made.looked_at(HOMES), 3, 2, 0.0)
    result = holes(broken, made, search.against(broken, seeded(0)))
    assert result.met[0].tolist() == [False, False]
    assert result.met[-1].tolist() == [True, False]
    assert all(0.6 < float(item[0]) <= 0.7 + 1e-6 for item in result.items)
    assert not holes(made.original, made, search.against(made.original, seeded(0))).items


def test_what_the_original_is_not_sure_of_is_unsound() -> None:
    """0.2 is wrong; 0.31 is right with a probability of 0.6, and not under noise; 0.35 is right, not surely enough."""
    values = [0.2, 0.31, 0.35, 0.9]
    items = [(torch.tensor([x]), 1) for x in values]
    assert probes().looked_at(items).sound.tolist() == [False, False, False, True]
    assert probes(draws=1, radius=1e-6).looked_at(items).sound.tolist() == [False, True, True, True]


# Texts.

STAYING = [
    {"prompt": "where does ann live", "answer": "in rome"},
    {"prompt": "say the town of bob", "answer": "paris"},
    {"prompt": "where does bob work", "answer": "at sea"},
]


def test_words_of_questions_that_stay(text_world: World) -> None:
    corpus = Corpus.of(text_world.task, STAYING, [{"prompt": "where does cid live", "answer": "in Oslo, alone"}])  # type: ignore[arg-type]
    assert corpus.holds(words_of("Where does bob work?"))
    assert corpus.holds(words_of("the town of bob"))
    assert not corpus.holds(words_of("where bob does work"))
    assert not corpus.holds(["ann"])
    assert "ann" in corpus.words
    assert "rome" not in corpus.words, "answers are no questions"
    assert corpus.mentions("in oslo")
    assert not corpus.mentions("osl")
    assert corpus.mentions("osl", whole=False)
    assert not corpus.mentions("rome")


def questions(world: World) -> QuestionProbes:
    staying = [*world.request.retain, *world.request.test]  # type: ignore[misc]
    corpus = Corpus.of(world.task, staying, list(world.request.forget))  # type: ignore[arg-type, call-overload]
    return QuestionProbes(world.task, world.original, np.zeros(32), 0.5, corpus=corpus)


def test_questions_are_put_in_other_words_that_stay(text_world: World) -> None:
    made = questions(text_world)
    homes = list(text_world.request.retain)  # type: ignore[call-overload]
    items = made.varied(homes, homes, seeded(0))
    assert [item["answer"] for item in items] == [item["answer"] for item in homes]
    changed = [item for item, home in zip(items, homes, strict=True) if item["prompt"] != home["prompt"]]
    assert len(changed) > len(homes) / 2
    assert all(made.corpus.holds(words_of(item["prompt"])) for item in items)
    assert made.varied(homes, homes, seeded(0)) == items
    assert made.varied([{"prompt": "", "answer": "x"}], homes[:1], seeded(0)) == [{"prompt": "", "answer": "x"}]


def test_what_forget_says_or_is_garbled_is_not_allowed(text_world: World) -> None:
    made, home = questions(text_world), text_world.request.retain[0]
    answer = text_world.request.forget[0]["answer"]
    items = [home, {**home, "prompt": "the what of job"}, {**home, "answer": answer}]
    assert made.allowed(items).tolist() == [True, False, False]


def test_the_original_writes_beginnings_on(text_world: World) -> None:
    """The answer is the last three rows; nothing ends it; a text that stutters or has a strange word is not allowed."""
    staying = [{"prompt": "", "answer": f"{item['prompt']} {item['answer']}"} for item in text_world.request.retain]  # type: ignore[attr-defined]
    corpus = Corpus.of(text_world.task, staying, [{"prompt": "", "answer": "the job of athens of berlin"}])  # type: ignore[arg-type]
    made = WritingProbes(text_world.task, text_world.original, np.zeros(32), 0.0, corpus=corpus)
    items = made.at_home(staying[:4])
    assert all(item["continues"] and item["answer"].startswith("what is the") for item in items)
    children = made.varied(items, items, seeded(1))
    assert made.varied(items, items, seeded(1)) == children
    words = [set(words_of(item["answer"])) for item in children]
    assert all(len(text) > 1 for text in words)
    texts = [
        "what is the job of ann",
        "what is the job what is the job",
        "what is the zebra of ann",
        "job of athens of berlin",
    ]
    assert made.allowed([{"prompt": "", "answer": text, "continues": True} for text in texts]).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_only_the_last_rows_of_a_beginning_are_asked(text_world: World) -> None:
    corpus = Corpus(frozenset({("a", "b")}))
    made = WritingProbes(text_world.task, text_world.original, np.zeros(32), 0.0, corpus=corpus)
    item = {"prompt": "", "answer": text_world.request.retain[0]["prompt"] + " cook has faro", "continues": True}
    rows = text_world.task.rows(text_world.original, text_world.task.collate([item]))
    expected = float(rows.logits.log_softmax(1).gather(1, rows.targets[:, None])[-3:].min().exp().detach())
    assert made.answers(text_world.original, [item]).weakest == pytest.approx([expected], rel=1e-4)
