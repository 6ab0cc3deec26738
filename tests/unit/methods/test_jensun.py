"""JensUn: both divergences by hand, the refusal token by token, and that its loss is bounded."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.unit.methods.test_language import only, rows, whole
from tests.worlds import CPU, World, without_retain
from unrecall.data.signals import Rows
from unrecall.errors import BadInput
from unrecall.methods.jensun import JensUn, from_original, towards
from unrecall.models.observe import accuracy
from unrecall.nn.functional import nll
from unrecall.spec.lines import parse
from unrecall.tasks.protocols import textual
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded


def test_towards_a_label_by_hand() -> None:
    """p = 1/2 at the label and elsewhere 1/2: m = 3/4 and 1/4, JSD = (log(4/3) + (log(2/3) + log 2) / 2) / 2."""
    given = rows([[0.5, 0.25, 0.25]], [1], (0,))
    half = 0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert towards(given, torch.tensor([0])).item() == pytest.approx(half)


def test_distance_from_the_original_by_hand() -> None:
    """p = (1/2, 1/4, 1/4) and p_0 = (1/4, 1/2, 1/4): m = (3/8, 3/8, 1/4), both divergences alike."""
    given = rows([[0.5, 0.25, 0.25]], [0], (0,))
    before = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    expected = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3)
    assert from_original(given, before).item() == pytest.approx(expected)
    assert from_original(given, given.logits.detach()).item() == 0


def test_both_are_bounded_by_log_2_where_they_meet_nowhere() -> None:
    apart = Rows(torch.tensor([[60.0, -60.0]], requires_grad=True), torch.tensor([0]), torch.tensor([0]), 1)
    for value in (towards(apart, torch.tensor([1])), from_original(apart, torch.tensor([[-60.0, 60.0]]))):
        assert value.item() == pytest.approx(math.log(2))
        (gradient,) = torch.autograd.grad(value, apart.logits, retain_graph=True)
        assert bool(gradient.isfinite().all())


def test_places_count_from_the_start_of_each_example() -> None:
    assert rows().places().tolist() == [0, 1, 2, 0, 1]


def by_hand(model: nn.Module, world: World, refusal: str) -> Tensor:
    """The forget term from texts run one by one, with the refusal's words and the end of an answer in turn."""
    task = world.task
    wished = task.tokenizer.convert_tokens_to_ids([*refusal.split(), "</s>"])  # type: ignore[attr-defined]
    values = []
    for i in range(len(world.request.forget)):
        batch = task.collate([world.request.forget[i]])
        with torch.no_grad():
            p = model(input_ids=batch["tokens"]).logits[0, :-1].double().softmax(-1)
        places_of_answer = [k for k, y in enumerate(batch["targets"][0, 1:].tolist()) if y >= 0]
        each = []
        for n, k in enumerate(places_of_answer):
            q = float(p[k, wished[n % len(wished)]])
            each.append(0.5 * math.log(2 / (1 + q)) + 0.5 * (q * math.log(2 * q / (1 + q)) + (1 - q) * math.log(2)))
        values.append(sum(each) / len(each))
    return torch.tensor(values)


def test_the_refusal_is_asked_token_by_token(text_world: World) -> None:
    student, phase = only(JensUn(refusals=("what job",), lambda_r=0.0, lambda_f=2.0), text_world)
    batch = whole(text_world.request.forget, text_world.task)
    expected = 2 * by_hand(student, text_world, "what job").mean().item()
    assert phase.loss(student, {"forget": batch}).item() == pytest.approx(expected, rel=1e-4)


def test_retain_is_held_to_the_original_and_read_only_where_it_has_a_weight(text_world: World) -> None:
    w = text_world
    student, phase = only(JensUn(lambda_r=3.0), w)
    _, alone = only(JensUn(lambda_r=0.0), w)
    both = {split: whole(w.request[split], w.task) for split in ("forget", "retain")}  # type: ignore[literal-required]
    rows_of = {model: w.task.rows(model, both["retain"]) for model in (student, w.original)}
    held = 3 * from_original(rows_of[student], rows_of[w.original].logits.detach()).item()
    both_terms = phase.loss(student, both).item()
    assert both_terms - alone.loss(student, both).item() == pytest.approx(held, rel=1e-3)
    assert held > 0
    assert set(alone.streams) == {"forget"}
    JensUn(lambda_r=0.0, fit=Fit(lr=0.0)).unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))


def test_it_learns_to_refuse_and_keeps_the_rest(text_world: World) -> None:
    w = text_world
    fit = Fit(optimizer="adamw", lr=3e-3, weight_decay=0.0, batch_size=10, epochs=30)
    method = JensUn(refusals=("what job",), fit=fit)
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    refusing = [textual("test", w.task).answered(w.request.forget[i], "what job") for i in range(10)]

    def first(model: nn.Module) -> float:
        said = [w.task.rows(model, w.task.collate([item])) for item in refusing]
        return float(torch.stack([(-nll(r.logits, r.targets))[0].exp() for r in said]).mean().detach())

    assert first(w.original) < 0.05
    assert first(result) > 0.5
    assert accuracy(result, w.task, w.request.retain).mean() > 0.9


def test_other_classes_take_the_place_of_tokens(samples_world: World) -> None:
    w, fit = samples_world, Fit(lr=0.05, batch_size=20, epochs=10, weight_decay=0.0)
    result = JensUn(fit=fit).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert accuracy(result, w.task, w.request.forget).mean() < accuracy(w.original, w.task, w.request.forget).mean()
    drawn = copy.deepcopy(w.original).eval()
    (phase,) = JensUn(lambda_r=0.0).phases(drawn, w.original, Job(w.request, w.task, seeded(3)))
    batch = whole(w.request.forget, w.task)
    said = w.task.rows(drawn, batch)
    labels = (said.targets + torch.randint(1, 4, said.targets.shape, generator=seeded(3))) % 4
    assert not bool((labels == said.targets).any())
    expected = towards(replace(said, targets=labels), labels).item()
    assert phase.loss(drawn, {"forget": batch}).item() == pytest.approx(expected)


def test_each_example_has_a_refusal_of_its_own_wherever_it_is_met(text_world: World) -> None:
    """Of two refusals of unlike length, by the draw of the seed."""
    w, refusals = text_world, ("what job", "town of ann is")
    student, phase = only(JensUn(refusals=refusals, lambda_r=0.0), w)
    drawn = torch.randint(2, (10,), generator=seeded(0))
    assert set(drawn.tolist()) == {0, 1}
    either = torch.stack([by_hand(student, w, refusal) for refusal in refusals])
    some = {name: value[[7, 2, 4]] for name, value in whole(w.request.forget, w.task).items()}
    expected = either[drawn, torch.arange(10)][[7, 2, 4]].mean().item()
    assert phase.loss(student, {"forget": some}).item() == pytest.approx(expected, rel=1e-4)


def test_a_line_names_refusals_and_impossible_ones_are_refused() -> None:
    two = parse("jensun:refusals=I can't say.+No idea,lambda_r=0.5", "methods")
    assert two == JensUn(refusals=("I can't say.", "No idea"), lambda_r=0.5)
    for wrong in ((), ("Well, no.",), ("",), "No idea"):
        with pytest.raises(BadInput, match="expected refusals to be"):
            JensUn(refusals=wrong)  # type: ignore[arg-type]
