"""FLAT: each divergence by hand, against the f-divergence's own bound, and that it forgets without retain."""

import math

import pytest
import torch

from tests.worlds import CPU, World
from unrecall.data.signals import Rows
from unrecall.methods.flat import DIVERGENCES, FLAT, probability
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded


def test_the_probability_is_a_mean_over_tokens_then_over_answers() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]))
    rows = Rows(logits, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]), 2)
    assert probability(rows).item() == pytest.approx(((0.9 + 0.5) / 2 + 0.2) / 2)


@pytest.mark.parametrize(
    ("name", "rises", "falls"),
    [
        ("tv", math.tanh(0.4) / 2, math.tanh(0.4) / 2),
        ("kl", 0.4, math.exp(-0.6)),
        ("js", math.log(2) - math.log(1 + math.exp(-0.4)), 0.4 + math.log(1 + math.exp(-0.4)) - math.log(2)),
        ("pearson", 0.4, 0.44),
    ],
)
def test_each_divergence_by_hand(name: str, rises: float, falls: float) -> None:
    value = torch.tensor(0.4)
    assert DIVERGENCES[name].rises(value).item() == pytest.approx(rises)
    assert DIVERGENCES[name].falls(value).item() == pytest.approx(falls)


GENERATORS = {
    "kl": lambda t: t * torch.log(t),
    "pearson": lambda t: (t - 1) ** 2,
    "js": lambda t: t * torch.log(t) - (1 + t) * torch.log((1 + t) / 2),
}
"""f of each divergence sum q f(p / q)."""


@pytest.mark.parametrize("name", GENERATORS)
def test_the_second_is_the_conjugate_of_the_first(name: str) -> None:
    """f*(u) = max over t of u t - f(t), here on a grid."""
    t = torch.linspace(1e-4, 8, 200_000, dtype=torch.float64)
    for v in (0.1, 0.5, 0.9):
        value = torch.tensor(v, dtype=torch.float64)
        u = DIVERGENCES[name].rises(value)
        expected = float((u * t - GENERATORS[name](t)).max())
        assert DIVERGENCES[name].falls(value).item() == pytest.approx(expected, abs=1e-4)


def test_the_answer_falls_and_retain_is_never_read(text_world: World) -> None:
    w = text_world
    job = Job(w.request.only("forget"), w.task, seeded(0), CPU)
    recipe = Fit(optimizer="adamw", lr=3e-3, weight_decay=0.0, batch_size=8, epochs=10)
    result = FLAT(fit=recipe).unlearn(w.original, job)
    batch = w.task.collate([w.request.forget[i] for i in range(4)])
    before, after = (probability(w.task.rows(model, batch)).item() for model in (w.original, result))
    assert after < 0.7 * before
