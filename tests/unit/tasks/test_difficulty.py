"""How hard examples are, by hand: neighbours of four points, a classifier of one feature, and words after words."""

import hashlib
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.worlds import World, blobs
from unrecall.data.covariates import Covariates, no_covariates
from unrecall.data.digests import digest
from unrecall.errors import BadInput
from unrecall.tasks import Classification
from unrecall.tasks.difficulty import difficulty
from unrecall.tasks.input_difficulty import (
    Labelled,
    _penalty,
    confidence,
    difficulty_of_inputs,
    distances,
    features_of,
    shrunk,
)
from unrecall.tasks.text_difficulty import NGrams, difficulty_of_texts
from unrecall.training.randomness import seeded


def labelled(points: list[list[float]], labels: list[int]) -> Labelled:
    return Labelled(torch.tensor(points, dtype=torch.float32), torch.tensor(labels))


# Inputs.

RETAIN = labelled([[0, 0], [0, 2], [3, 0], [0, 5]], [0, 0, 0, 1])


def test_distances_by_hand() -> None:
    """From (0, 1): 1, 1 and 10 to class 0, whose mean is 4; 16 to class 1. From (0, 5): 25, 9, 34; and 0."""
    near = distances(RETAIN, labelled([[0, 1], [0, 5], [0, 1]], [0, 0, 1]))
    np.testing.assert_allclose(near[:, :2], [[4, 16], [68 / 3, 0], [16, 4]], atol=1e-5)
    assert near[0, 2] == pytest.approx(log(4 / 16))
    assert near[2, 2] == pytest.approx(log(16 / 4))
    assert np.isfinite(near).all()


def test_a_class_that_retain_lacks_has_the_others_distance_twice() -> None:
    near = distances(RETAIN, labelled([[0, 0]], [2]))
    np.testing.assert_allclose(near, [[13 / 3, 13 / 3, 0]], atol=1e-6)


def test_confidence_of_one_feature_by_hand() -> None:
    """Of inputs -1 and 1, three of four are of classes 0 and 1: odds of 3 to 1; none at 0, 9 to 1 at 2."""
    retain = labelled([[-1.0], [1.0]] * 400, [0, 1, 0, 1, 0, 1, 1, 0] * 100)
    pool = labelled([[1.0], [1.0], [-1.0], [0.0], [2.0]], [1, 0, 0, 0, 1])
    c = confidence(retain, pool, lambda inputs: inputs)
    assert c.tolist() == pytest.approx([log(3), -log(3), log(3), 0, log(9)], rel=0.01, abs=1e-3)


def test_confidence_is_clipped() -> None:
    retain = labelled([[-1.0], [1.0]] * 50, [0, 1] * 50)
    far = confidence(retain, labelled([[1000.0], [1000.0]], [1, 0]), lambda inputs: inputs)
    assert far.tolist() == [20, -15]


def test_a_class_that_retain_lacks_is_one_of_n_and_one() -> None:
    for labels in ([0, 1] * 10, [0] * 20):
        retain, pool = labelled([[-1.0], [1.0]] * 10, labels), labelled([[0.5], [-1.0]], [7, 7])
        assert confidence(retain, pool, lambda inputs: inputs).tolist() == pytest.approx([-log(20)] * 2)


def test_the_penalty_fits_the_data() -> None:
    """Labels that are noise ask for the largest of them, labels that a line tells apart for a small one."""
    x = torch.randn(200, 20, generator=seeded(1)).numpy()
    noise = (torch.rand(200, generator=seeded(2)) < 0.5).long().numpy()
    assert _penalty(x, noise) == 1.0
    assert _penalty(x, (x[:, 0] > 0).astype(int)) <= 1e-3


def test_columns_of_inputs() -> None:
    pool = labelled([[0, 1], [0, 5], [1, 1], [2, 2]], [0, 1, 2, 0])
    made = difficulty_of_inputs(RETAIN, pool, 0)
    assert made.names == ("class 1", "class 2", "distance to same", "distance to others", "log ratio", "c", "c^2")
    assert made.values[:, :2].tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert np.isfinite(made.values).all()
    np.testing.assert_allclose(made.values[:, -1], made.values[:, -2] ** 2)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 20, 16), (1, 40, 40), (5000,), (6, 20, 20)])
def test_inputs_of_any_shape(shape: tuple[int, ...]) -> None:
    """What grows from left to right is of class 1, what falls of class 0: c tells right from wrong labels."""
    labels = torch.arange(60) % 2
    slope = torch.linspace(-0.4, 0.4, shape[-1]) * (2 * labels - 1).view(-1, *(1 for _ in shape))
    inputs = 0.5 + slope + 0.1 * torch.rand(60, *shape, generator=seeded(1))
    examples = [(x, int(y)) for x, y in zip(inputs, labels, strict=True)]
    pool = [*examples[40:], *((x, 1 - y) for x, y in examples[40:])]
    c = difficulty(Classification(), examples[:40], pool, 0).values[:, -2]
    assert (c[:20] > 1).all()
    assert (c[20:] < -1).all()


def test_large_inputs_are_averaged() -> None:
    assert shrunk(torch.ones(2, 3, 100, 20)).shape == (2, 3, 32, 20)
    assert shrunk(torch.ones(2, 1, 8, 8)).shape == (2, 64)
    assert shrunk(torch.ones(2, 9, 100, 100)).shape == (2, 4096)


def test_a_constant_picture_gives_no_nan() -> None:
    features = features_of(torch.ones(8, 1, 16, 16), seeded(0))
    assert features(torch.rand(2, 1, 16, 16, generator=seeded(1))).isfinite().all()
    pool = [(torch.rand(1, 16, 16, generator=seeded(i)), i % 2) for i in range(4)]
    retain = [(torch.full((1, 16, 16), i / 8), i % 2) for i in range(8)]
    assert np.isfinite(difficulty(Classification(), retain, pool, 0).values).all()


# Texts.


def test_words_after_words_by_hand() -> None:
    """Three texts: a b, a b, a c (0 1, 0 1, 0 2). V = 3 tokens, 6 in all.

    P(a) = (3 + 3/4) / 9; after the beginning a came 3 times, one follower: (3 + P(a)) / 4, and the same after two
    beginnings. P(b) = (2 + 3/4) / 9; after a: (2 + 2 P(b)) / 5; after the beginning and a: (2 + 2 P(b | a)) / 5.
    A token that never came: P = (3/4) / 9.
    """
    counted = NGrams([[0, 1], [0, 1], [0, 2]])
    a = (3 + (3 + (3 + 3 / 4) / 9) / 4) / 4
    b = (2 + 2 * (2 + 2 * (2 + 3 / 4) / 9) / 5) / 5
    unknown = (2 * (2 * (3 / 4 / 9)) / 5) / 5
    found = [exp(value) for value in counted.log_probabilities([0, 1], 0)]
    assert found == pytest.approx([a, b])
    assert [exp(value) for value in counted.log_probabilities([0, 9], 1)] == pytest.approx([unknown])
    assert counted.log_frequency(0) == pytest.approx(log(4 / 10))
    assert counted.log_frequency(9) == pytest.approx(log(1 / 10))


@pytest.mark.parametrize("history", [[], [0], [0, 1], [1], [7, 0], [7, 8]])
def test_probabilities_sum_to_one(history: list[int]) -> None:
    """Over the three tokens that were seen and one for all others."""
    counted = NGrams([[0, 1], [0, 1], [0, 2], [1, 1, 1, 2]])
    total = sum(exp(counted.log_probabilities([*history, token], len(history))[0]) for token in (0, 1, 2, 99))
    assert total == pytest.approx(1)


def test_columns_of_texts_by_hand() -> None:
    made = difficulty_of_texts([[0, 1], [0, 1], [0, 2]], [([0, 1], 1), ([0, 9, 9], 1)])
    c = log((2 + 2 * (2 + 2 * (2 + 3 / 4) / 9) / 5) / 5)
    assert made.values[0].tolist() == pytest.approx([c, c * c, 0, log(3 / 10)])
    assert made.values[1, 2:].tolist() == pytest.approx([log(2), log(1 / 10)])
    assert made.values[1, 0] < c
    assert made.names == ("c", "c^2", "log length", "log frequency")


def test_without_retain_each_token_is_as_likely() -> None:
    assert difficulty_of_texts([], [([3, 4], 1)]).values.tolist() == [[0, 0, 0, 0]]


# Any task.


@pytest.mark.parametrize("world", ["samples_world", "class_world", "text_world"])
def test_the_order_of_the_pool_decides_nothing(world: str, request: pytest.FixtureRequest) -> None:
    w: World = request.getfixturevalue(world)
    pool = [*(w.request.forget[i] for i in range(9)), *(w.request.holdout[i] for i in range(3))]
    order = torch.randperm(12, generator=seeded(3)).tolist()
    first = difficulty(w.task, w.request.retain, pool, 0)
    second = difficulty(w.task, w.request.retain, [pool[i] for i in order], 0)
    assert len(first) == 12
    assert np.array_equal(first.values[order], second.values)
    assert not np.array_equal(first.values, second.values)


def test_a_class_that_retain_lacks_has_finite_covariates(class_world: World) -> None:
    w = class_world
    made = difficulty(w.task, w.request.retain, [*w.request.forget, *w.request.holdout], 0)  # type: ignore[misc]
    assert np.isfinite(made.values).all()


def test_it_says_what_was_read(samples_world: World) -> None:
    w = samples_world
    retain = [w.request.retain[i] for i in range(30)]
    made = difficulty(w.task, retain, w.request.forget, 0)
    expected = hashlib.sha256(",".join(map(digest, retain)).encode()).hexdigest()
    assert (made.read, made.trained_on) == (30, expected)
    part, other = (difficulty(w.task, retain, w.request.forget, seed, most=20) for seed in (0, 1))
    assert part.read == 20
    assert part.trained_on not in (expected, other.trained_on)
    assert part.trained_on == difficulty(w.task, retain, w.request.forget, 0, most=20).trained_on


def test_retain_may_hold_nothing_of_the_pool(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(BadInput, match="difficulty: expected retain and the pool to share no example, got 1 shared"):
        difficulty(w.task, w.request.retain, [w.request.forget[0], w.request.retain[5]], 0)


def test_a_task_that_grades_nothing_has_no_columns(pairs_world: World) -> None:
    w = pairs_world
    made = difficulty(w.task, w.request.retain, w.request.forget, 0)
    assert made.values.shape == (len(w.request.forget), 0)


@dataclass(frozen=True)
class Own(Classification):
    """Gives whatever it is told to."""

    given: Any = None

    def difficulty(self, retain: Any, pool: Any, seed: int) -> Covariates:
        made: Covariates = self.given
        return made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "expected Covariates, got NoneType"),
        (no_covariates(3), r"expected values \[4, 0\], got \[3, 0\]"),
        (replace(no_covariates(4), names=("c",)), r"expected values \[4, 1\], got \[4, 0\]"),
        (Covariates(("c",), ("confidence",), np.full((4, 1), np.nan)), "expected finite values"),
    ],
)
def test_a_task_of_the_users_own_is_checked(given: Any, message: str) -> None:
    with pytest.raises(BadInput, match=rf"Own.difficulty: {message}"):
        difficulty(Own(given=given), blobs(8, 4, 1), blobs(4, 4, 2), 0)


def test_inputs_are_left_alone() -> None:
    inputs: Tensor = torch.rand(6, 1, 4, 4, generator=seeded(0))
    before = inputs.clone()
    examples = [(x, i % 2) for i, x in enumerate(inputs)]
    difficulty(Classification(), examples[:4], examples[4:], 0)
    assert torch.equal(inputs, before)
