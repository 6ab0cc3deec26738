"""Certified removal on convex models, against scikit-learn's own optimum, and what its budget allows."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.certified_removal import BOUND, SPENT, CertifiedRemoval
from unrecall.models.observe import accuracy
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

TASK = Classification()


def points() -> tuple[nn.Linear, Request]:
    """A linear model of four numbers and three classes: convex as a whole."""
    generator = seeded(5)
    labels = (torch.arange(90) % 3).tolist()
    values = (torch.rand(3, 4, generator=generator)[labels] + 0.2 * torch.randn(90, 4, generator=generator)).clamp(0, 1)
    data = list(zip(values, labels, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 3), Request(data[:6], data[6:])


def scikit(request: Request, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases that scikit-learn finds on retain alone, on the features that the method has."""
    from sklearn.linear_model import LogisticRegression

    x = np.stack([value.numpy() for value, _ in request.retain]).astype(float)  # type: ignore[attr-defined]
    y = np.array([label for _, label in request.retain])  # type: ignore[attr-defined]
    scale = np.linalg.norm(x, axis=1).max()
    columns = np.concatenate([x / scale, np.ones((len(x), 1))], 1)
    model = LogisticRegression(C=1 / (len(x) * penalty), fit_intercept=False, tol=1e-12, solver="newton-cholesky")
    weights = np.concatenate([model.fit(columns, y == k).coef_ for k in range(3)])
    return weights[:, :-1] / scale, weights[:, -1]


@pytest.mark.parametrize(("penalty", "at_once"), [(0.1, 1), (0.01, 1), (0.1, 6)])
def test_a_convex_model_is_retrained_to_the_stated_bound(penalty: float, at_once: int) -> None:
    model, request = points()
    session = Session(device="cpu")
    method = CertifiedRemoval(penalty=penalty, sigma=0.0, at_once=at_once)
    result = method.unlearn(model, Job(request, TASK, seeded(0), session))
    bound = session.efforts[-1].notes[BOUND][0]
    weight, bias = scikit(request, penalty)
    scale = max(float(value.norm()) for value, _ in request.retain)  # type: ignore[attr-defined]
    state = result.state_dict()
    gaps = np.concatenate([(state["weight"].numpy() - weight) * scale, (state["bias"].numpy() - bias)[:, None]], 1)
    assert 0 < np.linalg.norm(gaps) <= bound / (len(request.retain) * penalty) + 1e-6
    assert np.linalg.norm(gaps) < 0.05 * np.linalg.norm(weight)


def test_noise_is_part_of_the_certificate() -> None:
    """What is left of the gradient is what the ledger says at most, and a share of what the noise hides."""
    model, request = points()
    session = Session(device="cpu")
    CertifiedRemoval().unlearn(model, Job(request, TASK, seeded(0), session))
    notes = session.efforts[-1].notes
    allowed = 10.0 / math.sqrt(2 * math.log(1.5e4))
    assert notes[SPENT][0] == pytest.approx(notes[BOUND][0] / allowed)
    assert 0 < notes[SPENT][0] < 1


def test_a_spent_budget_says_retrain() -> None:
    model, request = points()
    method = CertifiedRemoval(penalty=1e-4, at_once=2)
    with pytest.raises(NotSupported, match=r"budget of .*, got .* after \d of 6 examples.*Retrain.*at_once=1"):
        method.unlearn(model, Job(request, TASK, seeded(0), CPU))
    replace(method, sigma=0.0).unlearn(model, Job(request, TASK, seeded(0), CPU))


def test_it_says_what_is_certified(samples_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    w, (model, request) = samples_world, points()
    shown = Session(device="cpu", show=True)
    CertifiedRemoval(sigma=0.0).unlearn(model, Job(request, TASK, seeded(0), shown))
    assert "nothing is certified" in capsys.readouterr().err
    CertifiedRemoval().unlearn(model, Job(request, TASK, seeded(0), shown))
    said = capsys.readouterr().err
    assert "certified is the head, epsilon 1, delta 0.0001" in said
    assert "layers below" not in said
    CertifiedRemoval().unlearn(w.original, Job(w.request, w.task, seeded(0), shown))
    assert "the layers below it, which were trained on forget, are not" in capsys.readouterr().err


def test_the_head_alone_changes(samples_world: World) -> None:
    w = samples_world
    result = CertifiedRemoval().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    before, after = w.original.state_dict(), result.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"6.weight", "6.bias"}
    assert float(accuracy(result, w.task, w.request.retain).mean()) > 0.6


def test_a_head_without_bias_gets_none() -> None:
    _, request = points()
    result = CertifiedRemoval().unlearn(nn.Linear(4, 3, bias=False), Job(request, TASK, seeded(0), CPU))
    assert list(result.state_dict()) == ["weight"]


class Doubled(nn.Module):
    """A linear layer whose output is doubled behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x) + 1


def test_a_model_without_a_convex_head_is_refused() -> None:
    _, request = points()
    convolution = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 4), nn.Flatten())
    with pytest.raises(NotSupported, match="expected the model to end in a linear layer"):
        CertifiedRemoval().unlearn(convolution, Job(request, TASK, seeded(0), CPU))
    with pytest.raises(NotSupported, match="expected logits that a linear layer gives out"):
        CertifiedRemoval().unlearn(Doubled(), Job(request, Classification(head_name="inner"), seeded(0), CPU))
    frozen = copy.deepcopy(points()[0]).requires_grad_(False)
    with pytest.raises(NotSupported, match="expected a head that may change, got a frozen one"):
        CertifiedRemoval().unlearn(frozen, Job(request, TASK, seeded(0), CPU))


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(BadInput, match="expected delta to be"):
        CertifiedRemoval(delta=delta)
