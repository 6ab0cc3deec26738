"""The novel-class rank test: places among unseen classes, by hand."""

import pytest
import torch
from torch import nn

from unrecall.errors import BadInput
from unrecall.harness.novel_class import NovelClass, novel_class
from unrecall.tasks import Classification

AXES = torch.eye(8)
MODEL = nn.Linear(8, 8, bias=False).eval()
"""Its features are its inputs: what enters the linear layer."""


def around(direction: torch.Tensor, label: int = 0) -> list[tuple[torch.Tensor, int]]:
    """Three equal examples."""
    return [(direction, label)] * 3


RETAIN = around(AXES[0]) + around(AXES[1], 1)
APART = around(AXES[2])  # cosine 1 with its own prototype, 0 with the retained classes': margin 1
NEAR = [around(AXES[0] + strength * AXES[3 + i]) for i, strength in enumerate((1.0, 2.0, 3.0))]


def test_a_class_that_stands_apart_takes_the_first_place() -> None:
    result = novel_class(Classification(), MODEL, RETAIN, APART, NEAR, shots=2, draws=3)
    assert result.margin == pytest.approx(1)
    assert result.others == pytest.approx([1 - (1 + s * s) ** -0.5 for s in (1.0, 2.0, 3.0)], abs=1e-6)
    assert (result.p_known, result.p_blurred) == (1 / 4, 1)
    assert "p = 0.250; 19 of them can give .05" in result.line


def test_a_blurred_class_takes_the_last_place() -> None:
    result = novel_class(Classification(), MODEL, RETAIN, around(AXES[0] + 0.1 * AXES[7]), NEAR, shots=2)
    assert (result.p_known, result.p_blurred) == (1, 1 / 4)


def test_ties_count_on_both_sides() -> None:
    result = novel_class(Classification(), MODEL, RETAIN, NEAR[1], NEAR, shots=2)
    assert (result.p_known, result.p_blurred) == (3 / 4, 3 / 4)


def test_twenty_places_can_speak() -> None:
    assert NovelClass(0.5, (0.1,) * 19, 0.05, 1.0).line.startswith("Leaks: the class stands apart")
    assert NovelClass(0.0, (0.1,) * 19, 1.0, 0.05).line.startswith("Stands out: the class is more blurred")


@pytest.mark.parametrize(("unseen", "shots"), [(NEAR[:1], 2), (NEAR, 3)])
def test_too_few_classes_or_examples_are_refused(unseen: list[list[tuple[torch.Tensor, int]]], shots: int) -> None:
    with pytest.raises(BadInput, match="at least 2 unseen classes, and more than"):
        novel_class(Classification(), MODEL, RETAIN, APART, unseen, shots=shots)


@pytest.mark.parametrize(("shots", "draws"), [(0, 20), (-1, 20), (2, 0)])
def test_impossible_counts_are_refused(shots: int, draws: int) -> None:
    with pytest.raises(BadInput, match=f"from 1 on, and retained examples, got shots={shots}, draws={draws}"):
        novel_class(Classification(), MODEL, RETAIN, APART, NEAR, shots=shots, draws=draws)


def test_no_verdict_rests_on_nan_or_on_no_retain() -> None:
    with pytest.raises(BadInput, match="expected finite features, got NaN"):
        novel_class(Classification(), MODEL, RETAIN, around(AXES[2] * float("nan")), NEAR, shots=2)
    with pytest.raises(BadInput, match="got shots=2, draws=20, 0 examples"):
        novel_class(Classification(), MODEL, [], APART, NEAR, shots=2)
