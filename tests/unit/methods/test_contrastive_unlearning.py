"""By hand and by law: Contrastive Unlearning and the loss that EC shares with it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import only, same, statistics, whole
from tests.worlds import COLOURS, CPU, World, caption_tokenizer, facts, pairs, small_clip, small_llama, word_tokenizer
from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.methods.contrastive_unlearning import ContrastiveUnlearning
from unrecall.models.observe import accuracy, observe
from unrecall.nn.functional import contrastive_forgetting
from unrecall.nn.hooks import batchnorms
from unrecall.tasks import CausalLM, Classification, Contrastive
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, total_steps
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]


def of(anchors: list[list[float]], own: list[int], others: list[list[float]], classes: list[int]) -> float:
    given = torch.tensor(anchors), torch.tensor(own), torch.tensor(others), torch.tensor(classes)
    return contrastive_forgetting(*given, temperature=0.5).item()


def test_loss_of_one_example_by_hand() -> None:
    """Cosines over 0.5: to itself 2, to what is orthogonal 0, to its opposite -2; lengths don't count."""
    assert of([EAST], [0], [NORTH, EAST], [1, 0]) == pytest.approx(-(0 - math.log(math.exp(2))))
    assert of([EAST], [0], [NORTH, WEST, EAST], [1, 2, 0]) == pytest.approx(-((0 - 2) / 2 - 2))
    both = math.log(math.exp(2) + math.exp(-2))
    assert of([EAST], [0], [NORTH, WEST, EAST], [1, 0, 0]) == pytest.approx(-(0 - both))


def test_no_logarithm_without_negatives_and_no_term_without_positives() -> None:
    assert of([EAST], [5], [NORTH, WEST], [1, 2]) == pytest.approx(-(0 - 2) / 2)
    assert of([EAST], [0], [NORTH, WEST], [0, 0]) == 0
    first, second, third = 0 - 2, (2 + 0) / 2, 0  # has both; has no negatives; has no positives
    retain, classes = [EAST, NORTH], [0, 1]
    assert of([EAST, EAST], [0, 7], retain, classes) == pytest.approx(-(first + second) / 2)
    assert of([EAST, EAST], [0, 1], [EAST, EAST], [0, 0]) == pytest.approx(-(third + 2) / 2)


def test_gradients_are_finite_where_sets_are_empty() -> None:
    for classes in ([0, 0], [1, 2], [0, 1]):
        anchors = torch.randn(3, 4, generator=seeded(0)).requires_grad_(True)
        retain = torch.randn(2, 4, generator=seeded(1)).requires_grad_(True)
        contrastive_forgetting(anchors, torch.zeros(3).long(), retain, torch.tensor(classes), 0.7).backward()  # type: ignore[no-untyped-call]
        assert anchors.grad is not None
        assert retain.grad is not None
        assert bool(anchors.grad.isfinite().all()) and bool(retain.grad.isfinite().all())
        assert bool(anchors.grad.any()) == (classes != [0, 0])


def by_hand(forget: Tensor, own: Tensor, retain: Tensor, other: Tensor, temperature: float) -> float:
    """The formula as it stands, a sum at a time."""
    terms: list[float] = []
    for z, y in zip(F.normalize(forget, dim=1), own, strict=True):
        score = F.normalize(retain, dim=1) @ z / temperature
        log = score[other == y].exp().sum().log() if bool((other == y).any()) else torch.tensor(0.0)
        near = [float((s - log).item()) for s, label in zip(score, other, strict=True) if label != y]
        terms.append(sum(near) / len(near))
    return -sum(terms) / len(terms)


@pytest.mark.parametrize("kind", ["samples", "class"])
def test_the_loss_on_features_that_enter_the_head(kind: str, request: pytest.FixtureRequest) -> None:
    w: World = request.getfixturevalue(f"{kind}_world")
    student, phase = only(ContrastiveUnlearning(temperature=0.3, lambda_ul=2.0, lambda_ce=0.5), w)
    given: Batches = {name: whole(data, w.task) for name, data in phase.streams.items()}
    forget, retain = given["forget"], given["retain"]
    body, head = student[:6], student[6]  # type: ignore[index]
    apart = by_hand(body(forget["inputs"]), forget["targets"], body(retain["inputs"]), retain["targets"], 0.3)
    kept = F.cross_entropy(head(body(retain["inputs"])), retain["targets"]).item()
    assert phase.loss(student, given).item() == pytest.approx(2 * apart + 0.5 * kept, rel=1e-4)
    assert set(forget["targets"].tolist()).isdisjoint(retain["targets"].tolist()) == (kind == "class")


def test_an_epoch_is_omega_passes_over_forget(samples_world: World) -> None:
    method = ContrastiveUnlearning(fit=replace(ContrastiveUnlearning.fit, batch_size=8))
    _, phase = only(method, samples_world)
    assert list(phase.streams) == ["forget", "retain"]
    assert total_steps(phase) == 3 * 4 * 3, "20 examples are 3 batches"
    assert phase.fit.until is None
    session = Session(device="cpu")
    w = samples_world
    replace(method, omega=2).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    assert session.efforts[0].steps == 3 * 2 * 3


def test_a_class_stops_at_chance(class_world: World) -> None:
    w = class_world
    fast = ContrastiveUnlearning(fit=Fit(lr=0.01, weight_decay=0.0, epochs=30, batch_size=8, batchnorm="frozen"))
    assert only(fast, w)[1].fit.until == 1 / 4
    session = Session(device="cpu")
    result = fast.unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    assert session.efforts[0].steps < 30 * 4 * 5
    assert accuracy(result, w.task, w.request.forget).mean() <= 1 / 4
    patient = replace(fast, fit=replace(fast.fit, until=0.0))
    assert only(patient, w)[1].fit.until == 0


def closeness(model: nn.Module, w: World, examples: Examples) -> tuple[float, float]:
    """Mean cosine of the features of forget with those of examples of its class, and of others."""
    forget, other = (observe(model, w.task, data) for data in (w.request.forget, examples))
    first, second = (F.normalize(torch.from_numpy(one.features), dim=1) for one in (forget, other))
    own = torch.from_numpy(other.target == forget.target[0])
    cosine = first @ second.T
    return cosine[:, own].mean().item(), cosine[:, ~own].mean().item()


def test_features_of_forget_leave_their_class(samples_world: World, class_world: World) -> None:
    """Also where retain has nothing of it: then its unseen examples tell where the class was."""
    fast = ContrastiveUnlearning(fit=Fit(lr=3e-3, weight_decay=0.0, epochs=4, batch_size=8, batchnorm="frozen"))
    for w, examples in ((samples_world, samples_world.request.retain), (class_world, class_world.request.test)):
        result = fast.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        own, others = closeness(result, w, examples)
        own_before, others_before = closeness(w.original, w, examples)
        assert own - others < own_before - others_before - 0.1
        assert others > others_before
        assert accuracy(result, w.task, w.request.retain).mean() > 0.8
        assert all(map(torch.equal, statistics(result), statistics(w.original)))
        assert batchnorms(result)


def test_needs_classes() -> None:
    task, data = CausalLM(word_tokenizer(), template=None), facts()
    request = Request(data[:4], data[4:8], data[8:10], data[10:12])
    with pytest.raises(NotSupported, match="class each, got CausalLM"):
        ContrastiveUnlearning().unlearn(small_llama(len(task.tokenizer)), Job(request, task, seeded(0), CPU))


def made_pairs(labelled: bool = True) -> tuple[nn.Module, Request, Contrastive]:
    task, data = Contrastive(caption_tokenizer(), classes=tuple(COLOURS)), pairs(0, 40)
    if not labelled:
        del data[0]["label"]
    request = Request(data[:8], data[8:24], data[24:32], data[32:])
    return small_clip(len(task.tokenizer)), request, task


def test_pairs_go_by_their_labels_and_keep_by_their_own_loss() -> None:
    model, request, task = made_pairs()
    world = World(request, task, model, ())
    student, phase = only(ContrastiveUnlearning(), world)
    forget, retain = (whole(data, task) for data in phase.streams.values())
    first, second = (task.view(student, batch).features[:, :16] for batch in (forget, retain))
    apart = by_hand(first, forget["labels"], second, retain["labels"], 0.7)
    kept = task.rows(student, retain).losses().mean().item()
    assert phase.loss(student, {"forget": forget, "retain": retain}).item() == pytest.approx(3 * apart + kept, rel=1e-4)
    assert not same(ContrastiveUnlearning().unlearn(model, Job(request, task, seeded(0), CPU)), model)
    classes = replace(request, kind="class", masked=(0,))
    assert only(ContrastiveUnlearning(), World(classes, task, model, ()))[1].fit.until is None
    with pytest.raises(NotSupported, match="expected every pair to have a label"):
        model, request, task = made_pairs(labelled=False)
        ContrastiveUnlearning().unlearn(model, Job(request, task, seeded(0), CPU))
    with pytest.raises(NotSupported, match="classes"):
        ContrastiveUnlearning().unlearn(model, Job(request, replace(task, classes=()), seeded(0), CPU))


def test_classes_are_the_task_s_own(samples_world: World) -> None:
    """A classifier is its own classified task: no example is collated twice."""
    assert samples_world.task == Classification()
    student, phase = only(ContrastiveUnlearning(), samples_world)
    given: Batches = {name: whole(data, samples_world.task) for name, data in phase.streams.items()}
    bare = {name: {k: v for k, v in batch.items() if k != "index"} for name, batch in given.items()}
    assert torch.equal(phase.loss(student, bare), phase.loss(student, given))
