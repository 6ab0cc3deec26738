"""By hand and by law: amnesiac unlearning by relabelling, its labels and its mixed batches."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.unit.methods.test_distillation import only, whole
from tests.worlds import CPU, World
from unrecall.data.examples import Joined
from unrecall.errors import NotSupported
from unrecall.methods.amnesiac import Amnesiac
from unrecall.models.observe import accuracy
from unrecall.models.perturb import other_answers
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy

FAST = Fit(optimizer="adam", lr=5e-3, weight_decay=0.0, epochs=25, batch_size=16)


def test_loss_by_hand(samples_world: World) -> None:
    """Retain under its own labels, forget under others, whatever the order of a batch."""
    w = samples_world
    student, phase = only(Amnesiac(), w, seed=5)
    with torch.no_grad():
        student[6].weight += 0.3  # type: ignore[index]
    mixed = Joined([w.request.forget, w.request.retain])
    wrong = torch.cat(other_answers(frozen_copy(w.original), w.task, w.request.forget, seeded(5)))
    batch = whole(mixed, w.task)
    assert not wrong.eq(batch["targets"][: len(wrong)]).any()
    labels = torch.cat([wrong, batch["targets"][len(wrong) :]])
    order = torch.randperm(len(labels), generator=seeded(0))
    for places in (order, order[:16], torch.arange(len(wrong), len(labels))):
        part = {name: value[places] for name, value in batch.items()}
        expected = F.cross_entropy(student(part["inputs"]), labels[places])
        assert phase.loss(student, {"mixed": part}).item() == pytest.approx(expected.item(), rel=1e-5)


def test_each_row_of_a_text_has_its_own_label(text_world: World) -> None:
    w = text_world
    student, phase = only(Amnesiac(), w, seed=1)
    batch = whole(w.request.forget, w.task)
    rows = w.task.rows(student, batch)
    wrong = torch.cat(other_answers(frozen_copy(w.original), w.task, w.request.forget, seeded(1)))
    assert wrong.shape == rows.targets.shape
    assert not wrong.eq(rows.targets).any()
    expected = rows.per_example(F.cross_entropy(rows.logits, wrong, reduction="none")).mean()
    assert phase.loss(student, {"mixed": batch}).item() == pytest.approx(expected.item(), rel=1e-4)


def test_labels_are_taken_on_and_retain_is_kept(samples_world: World) -> None:
    w = samples_world
    result = Amnesiac(fit=FAST).unlearn(w.original, Job(w.request, w.task, seeded(7), CPU))
    labels = torch.cat(other_answers(frozen_copy(w.original), w.task, w.request.forget, seeded(7)))
    said = result(whole(w.request.forget, w.task)["inputs"]).argmax(1)
    assert said.eq(labels).float().mean() > 0.7
    assert accuracy(result, w.task, w.request.retain).mean() > 0.9


def test_refuses_pairs(pairs_world: World) -> None:
    w = pairs_world
    with pytest.raises(NotSupported, match=r"Amnesiac: expected rows that depend on their own example.*random_label"):
        Amnesiac().unlearn(copy.deepcopy(w.original), Job(w.request, w.task, seeded(0), CPU))
