"""AltPO: where alternate answers come from, which of them count, and its loss against DPO's own by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.unit.methods.test_language import only, whole
from tests.worlds import CPU, World, without_retain
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.methods.altpo import INSTRUCTION, AltPO, brought, instructed, others
from unrecall.models.observe import accuracy, observe
from unrecall.nn.functional import nll
from unrecall.tasks.protocols import Sampling, textual
from unrecall.tasks.text_files import example
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded


def with_own(world: World) -> World:
    """The same world, whose forgotten examples bring two alternate answers each."""
    forget = [{**item, "alternate": ["cook has jena", "pilot of faro"]} for item in iterate(world.request.forget)]
    request = Request(forget, world.request.retain, world.request.holdout, world.request.test)
    return World(request, world.task, world.original, world.retrained)


def test_what_says_the_truth_again_or_nothing_does_not_count() -> None:
    assert (
        others(["Cook  has Jena", "", " ", "cook has faro", "cook has faro"], "cook has jena") == ["cook has faro"] * 2
    )


def test_examples_may_bring_alternate_answers_along() -> None:
    assert brought({"answer": "a", "alternate": "b"}, 0, "true") == ["b"]
    assert brought({"answer": "a", "alternate": ["b", "c"]}, 0, "true") == ["b", "c"]
    assert brought({"answer": "a"}, 0, "true") == []
    assert example({"prompt": "q", "answer": "a", "alternate": ["b", "c"]}, "line 1")["alternate"] == ["b", "c"]
    for wrong in (7, [""], ["b", 7]):
        with pytest.raises(BadInput, match=r"AltPO: expected 'alternate' of forget\[3\] to be text"):
            brought({"answer": "a", "alternate": wrong}, 3, "true")


def test_own_answers_that_say_the_truth_again_do_not_count_and_are_refused_alone(text_world: World) -> None:
    text: Any = Writing({})
    items = [{"answer": "true", "alternate": ["True ", "mine"]}, {"answer": "true", "alternate": "true"}]
    assert AltPO(alternates=2).answers(text, None, items[:1], seeded(0)) == [["mine", "mine"]]  # type: ignore[arg-type]
    forget = [{**item, "alternate": item["answer"]} for item in iterate(text_world.request.forget)]
    w, message = text_world, r"AltPO: expected 'alternate' of forget\[{}\] to be another answer than the true one, got"
    with pytest.raises(BadInput, match=message.format(1)):
        AltPO().answers(text, None, items, seeded(0))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=message.format(0)):
        AltPO(retain_weight=0.0).unlearn(w.original, Job(replace(w.request, forget=forget), w.task, seeded(0), CPU))


def test_the_original_is_shown_question_answer_and_instruction(text_world: World) -> None:
    text, item = textual("test", text_world.task), text_world.request.forget[0]
    asked = instructed(text, text_world.original, item)
    assert text.prompt(asked).splitlines() == [item["prompt"], item["answer"], INSTRUCTION]
    assert text.answer(asked) == item["answer"]


class Writing:
    """A text task whose model says what is given for each temperature."""

    def __init__(self, said: dict[float, list[str]]) -> None:
        self.said, self.asked = said, list[float]()

    def draw(self, model: object, items: Sequence[Any], count: int, sampling: Sampling) -> list[list[str]]:
        self.asked.append(sampling.temperature)
        return [self.said.get(sampling.temperature, ["true"] * count) for _ in items]

    def answer(self, item: Any) -> str:
        return str(item["answer"])


def test_an_example_without_another_answer_is_asked_again_hotter() -> None:
    """The second example brings its own and is never asked; what is short goes round."""
    items = [{"answer": "true"}, {"answer": "true", "alternate": "mine"}]
    text: Any = Writing({2.25: ["true", "so", "True", "or so"]})
    method = AltPO(alternates=3, ask="plain")
    assert method.answers(text, None, items, seeded(0)) == [["so", "or so", "so"], ["mine"] * 3]  # type: ignore[arg-type]
    assert text.asked == [1.0, 1.5, 2.25]
    never: Any = Writing({})
    with pytest.raises(BadInput, match=r"AltPO: expected the original to have another answer to forget\[0\]"):
        method.answers(never, None, items, seeded(0))  # type: ignore[arg-type]
    assert len(never.asked) == 5


def test_draws_are_the_originals_and_the_seeds(text_world: World) -> None:
    w, items = text_world, list(iterate(text_world.request.forget))[:3]
    text = textual("test", w.task)
    first, again, other = (AltPO().answers(text, w.original, items, seeded(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert [len(own) for own in first] == [5, 5, 5]
    assert all(answer != item["answer"] for item, own in zip(items, first, strict=True) for answer in own)


def summed(model: torch.nn.Module, world: World, item: Any) -> float:
    """The log-probability of an example's whole answer."""
    with torch.no_grad():
        said = world.task.rows(model, world.task.collate([item]))
    return -float(nll(said.logits, said.targets).sum())


def test_the_loss_prefers_each_alternate_answer_in_turn(text_world: World) -> None:
    """The stream goes over forget once for each: at its 13th place stands example 2 of 10 with its second answer."""
    w = with_own(text_world)
    student, phase = only(AltPO(beta=0.5, alternates=2, retain_weight=0.0), w)
    student.load_state_dict(w.retrained[0].state_dict())
    stream = phase.streams["forget"]
    assert len(stream) == 20
    batch = {name: value[[12, 3]] for name, value in whole(stream, w.task).items()}
    expected = []
    for place, answer in ((2, "pilot of faro"), (3, "cook has jena")):
        item = w.request.forget[place]
        wanted = {"prompt": item["prompt"], "answer": answer}
        up, down = (summed(student, w, i) - summed(w.original, w, i) for i in (wanted, item))
        expected.append(2 / 0.5 * math.log(1 + math.exp(-0.5 * (up - down))))
    assert phase.loss(student, {"forget": batch}).item() == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_the_true_answer_falls_and_retain_is_kept_or_never_read(text_world: World) -> None:
    w = with_own(text_world)
    fit = Fit(optimizer="adamw", lr=1e-3, weight_decay=0.0, batch_size=8, epochs=6)
    result = AltPO(alternates=2, retain_weight=20.0, fit=fit).unlearn(
        w.original, Job(w.request, w.task, seeded(0), CPU)
    )
    assert observe(result, w.task, w.request.forget).confidence.mean() < 0.5
    assert accuracy(result, w.task, w.request.retain).mean() > 0.85
    alone = AltPO(alternates=2, retain_weight=0.0, fit=Fit(lr=0.0))
    alone.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
