"""Anonymised steering: which words give way, what is added and where, and both controls."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.unit.attacks.running import attacked, setting_of
from tests.worlds import World
from unrecall.attacks.steering import Names, Steered, Steering, answered_at, renamed, telling
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.nn.hooks import until
from unrecall.training.randomness import seeded

COUNTS = {"what": 9, "is": 9, "the": 9, "job": 4, "of": 9, "ann": 2, "bob": 2}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("What does Hsiao Yun-Hwa's father do?", ["Hsiao", "Yun-Hwa's"]),
        ("Think. Who is Ada?", ["Ada"]),
        ("what is the job of ann", ["ann"]),
        ("ann of bob", ["ann", "bob"]),
        ("?", []),
    ],
)
def test_words_that_tell_a_question_apart(prompt: str, words: list[str]) -> None:
    counts = dict.fromkeys(("What", "does", "father", "do", "Think", "Who", "Ada"), 1) | COUNTS
    assert [place[0] for place in telling(prompt, counts)] == words


def test_other_words_take_their_places_round_and_round() -> None:
    prompt = "Is Ada, or\nBob Ray, there?"
    places = telling(prompt, {})
    assert renamed(prompt, places, ["Xi", "Yo"]) == "Is Xi, or\nYo Xi, there?"
    assert renamed(prompt, [], ["Xi"]) == prompt


def test_names_are_those_of_other_questions(text_world: World) -> None:
    """Of each person two questions are asked, so that the name is the rarest word; nobody is renamed to themselves."""
    w: Any = text_world
    forget, retain = list(iterate(w.request.forget)), w.request.retain
    names = Names.of(w.task, retain, forget, seeded(0))
    assert len(names.others) == 15
    prompts = [item["prompt"] for item in names.anonymised(forget[0], 5)]
    assert len(set(prompts)) == 5
    assert all(p.startswith("what is the job of ") and not p.endswith("ann") for p in prompts)
    kept = retain[0]
    assert kept["prompt"] not in [item["prompt"] for item in names.anonymised(kept, 100)]
    own = {**forget[0], "anonymised": ["who has which job", "what is the job"]}
    assert [item["prompt"] for item in names.anonymised(own, 1)] == own["anonymised"]


def test_the_vector_is_what_a_question_has_beyond_its_anonymised_ones(text_world: World) -> None:
    """(h(q) - h(a) + h(q) - h(b)) / 2, at the last token of the first of two layers; nothing where there is none."""
    w: Any = text_world
    asked = {"prompt": "job of ann", "answer": "cook", "anonymised": ["job of bob", "town of bob"]}
    same = {**asked, "anonymised": "job of ann"}
    names = Names(w.task, {}, ())
    layer = "model.layers.0"
    first, second, third = Steering()._vectors(
        w.original, w.task, layer, [asked, same, {"prompt": "", "answer": "cook"}], names
    )

    def state(prompt: str) -> torch.Tensor:
        batch = w.task.collate([{"prompt": prompt, "answer": "cook"}])
        with torch.no_grad():
            output = until(w.original.model.layers[0], lambda: w.task.rows(w.original, batch))
        assert output is not None
        return output[0, 3]  # <s>, three words

    wanted = state("job of ann") - (state("job of bob") + state("town of bob")) / 2
    assert torch.allclose(first, wanted, atol=1e-4)
    assert float(second.abs().max()) < 1e-4
    assert float(third.abs().max()) < 1e-4


def test_each_strength_is_added_to_each_question(text_world: World) -> None:
    w: Any = text_world
    half, whole = attacked(Steering(strengths=(1.0, 0.5)), w.original, w)
    assert (half.budget, whole.budget) == (0.5, 1.0)
    for less, more in zip(half.tested, whole.tested, strict=True):
        assert isinstance(less, Steered)
        assert isinstance(more, Steered)
        assert less.layer == more.layer == "model.layers.0"
        assert torch.equal(2 * less.added, more.added)
    (deeper,) = attacked(Steering(strengths=(1.0,), depth=1.0), w.original, w)
    assert deeper.tested[0].layer == "model.layers.1"  # type: ignore[attr-defined]


def test_nothing_added_changes_no_answer_and_much_does(text_world: World) -> None:
    w, attack = text_world, Steering()
    forget = list(iterate(w.request.forget))
    plain = attack.success(w.original, w.task, forget).shown
    none, much = torch.zeros(len(forget), 32), 100 * torch.randn(len(forget), 32, generator=seeded(0))
    shown = [attack.success(w.original, w.task, Steered(forget, "model.layers.0", v)).shown for v in (none, much)]
    assert shown[0].tolist() == plain.tolist()
    assert shown[1].mean() < plain.mean()


def test_steers_where_answers_are_predicted(text_world: World) -> None:
    """<s> job of ann cook has essen: positions 3 to 5 predict the three words; a shorter one is padded."""
    task: Any = replace(text_world.task, ends=False)  # type: ignore[type-var]
    batch = task.collate(
        [{"prompt": "job of ann", "answer": "cook has essen"}, {"prompt": "town of", "answer": "berlin"}]
    )
    assert answered_at(task, batch).int().tolist() == [[0, 0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0, 0]]


def test_what_it_cannot_steer_is_refused(text_world: World) -> None:
    w = text_world
    bare: Any = {
        split: [{"prompt": "", "answer": f"{split} {item['answer']}"} for item in iterate(w.request[split])]  # type: ignore[index]
        for split in ("forget", "retain", "holdout", "test")
    }
    with pytest.raises(NotSupported, match="Steering: expected examples with prompts"):
        attacked(Steering(), w.original, replace(w, request=Request(**bare)))
    with pytest.raises(BadInput, match="at least one strength"):
        Steering(strengths=())


def test_both_controls_hold(text_world: World) -> None:
    report = score_finding(Steering(strengths=(1.0,)), setting_of(text_world, text_world.retrained[0])).report
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control


def test_questions_that_the_context_holds_only_apart_are_steered_too(text_world: World) -> None:
    """A long question and a long answer don't fit together: the model is given them one after another."""
    w = text_world
    context = w.original.config.max_position_embeddings  # type: ignore[union-attr]
    few, many = context // 4, context * 5 // 8
    items = [
        {"prompt": " ".join(["ann"] * (many if long else few)), "answer": " ".join(["cook"] * (few if long else many))}
        for long in (True, False, True)
    ]
    vectors = 100 * torch.randn(3, 32, generator=seeded(0))
    together = Steering().success(w.original, w.task, Steered(items, "model.layers.0", vectors)).shown
    apart = [
        Steering().success(w.original, w.task, Steered([item], "model.layers.0", v[None])).shown[0]
        for item, v in zip(items, vectors, strict=True)
    ]
    assert together.tolist() == apart
