"""Losses and scores of models that are surer than float32 can say."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import World
from unrecall.attacks import RMIA, Lira, Loss
from unrecall.attacks.lira import logit
from unrecall.attacks.reference_model import ReferenceModel
from unrecall.data.request import Split
from unrecall.data.signals import Rows, Signals
from unrecall.evidence.evidence import Evidence
from unrecall.models import observe as observation
from unrecall.models.importance import per_example, trainable
from unrecall.models.influence import probability
from unrecall.models.observe import mean_loss, observe
from unrecall.nn.functional import exact_log_softmax, exact_nll
from unrecall.record import stats
from unrecall.tasks import Classification
from unrecall.training.randomness import seeded

TASK = Classification()


class Handing(nn.Module):
    """Hands its inputs on as logits, times a scale."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = scale * torch.eye(3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(inputs)
        return logits


def sure(margins: np.ndarray) -> list[tuple[torch.Tensor, int]]:
    """Inputs of which `Handing` makes logits with these margins over two other classes."""
    return [(torch.tensor([margin, 0.0, 0.0]), 0) for margin in margins.tolist()]


@pytest.mark.parametrize("margin", [0.5, 17.0, 30.0, 80.0, 700.0])
def test_a_loss_is_known_whatever_the_margin(margin: float) -> None:
    target = torch.tensor([0])
    assert exact_nll(torch.tensor([[margin, 0.0, 0.0]]), target).item() == pytest.approx(
        np.log1p(2 * np.exp(-margin)), rel=1e-12
    )
    assert exact_nll(torch.tensor([[-margin, 0.0, 0.0]]), target).item() == pytest.approx(
        margin + np.log(2 + np.exp(-margin)), rel=1e-12
    )


def test_all_log_probabilities_are_those_of_softmax() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 5
    log_p, of_target = exact_log_softmax(logits, torch.arange(50) % 7)
    assert torch.allclose(log_p, logits.double().log_softmax(1), atol=1e-12)
    assert torch.equal(of_target, log_p[torch.arange(50), torch.arange(50) % 7])


def test_what_is_not_finite_has_no_loss() -> None:
    inf, nan = float("inf"), float("nan")
    broken = torch.tensor([[inf, 0, 0], [nan, 0, 0], [0, inf, 0], [0, nan, 0], [-inf, 0, 0]])
    assert not exact_nll(broken, torch.zeros(5, dtype=torch.long)).isfinite().any()
    masked = torch.tensor([[1.0, -inf, 0.0]])
    assert exact_nll(masked, torch.tensor([0])).item() == pytest.approx(np.log1p(np.exp(-1)))


def told(low: float, high: float) -> dict[Split, np.ndarray]:
    """Margins: those of forget lie a fifth of the range above those of holdout and test."""
    rng, span = np.random.default_rng(0), high - low
    others = [rng.uniform(low, low + 0.8 * span, 60) for _ in range(2)]
    return {"forget": rng.uniform(low + 0.2 * span, high, 60), "holdout": others[0], "test": others[1]}


def evidence(world: World, margins: dict[Split, np.ndarray], scales: tuple[float, ...]) -> Evidence:
    """What models that multiply by `scales` show, the first of them beside the others."""
    seen: list[dict[Split, Signals]] = [
        {split: observe(Handing(scale), TASK, sure(values)) for split, values in margins.items()} for scale in scales
    ]
    return Evidence(world.request, seen[0], tuple(seen[1:]), seen[0])


@pytest.mark.parametrize(("low", "high"), [(15, 17), (17, 25), (30, 45), (100, 120), (600, 700)])
def test_models_that_are_all_but_certain_are_told_apart(low: float, high: float, samples_world: World) -> None:
    margins = told(low, high)
    seen = evidence(samples_world, margins, (1.0, 0.9, 0.95))
    found = stats.auc(Loss().score(seen, "forget"), Loss().score(seen, "holdout")).value
    assert found == pytest.approx(stats.auc(margins["forget"], margins["holdout"]).value, abs=1e-3)
    phi = logit(seen.signals["forget"].loss)
    assert phi == pytest.approx(margins["forget"] - np.log(2), abs=1e-4)
    for attack in (Loss(), Lira(), ReferenceModel()):
        scores: np.ndarray = attack.score(seen, "forget")
        assert len(np.unique(scores)) == 60, f"{attack.name} ties"


@pytest.mark.parametrize(("low", "high"), [(1, 5), (-60, -20), (30, 45), (100, 120)])
def test_rmia_in_a_hundred_digits(low: float, high: float, samples_world: World) -> None:
    margins, scales = told(low, high), (1.0, 0.5, 0.75)
    found = RMIA(a=0.3).score(evidence(samples_world, margins, scales), "forget")
    with localcontext() as context:
        context.prec = 100

        def chances(split: Split) -> list[list[Decimal]]:
            inputs = [Decimal(x[0].item()) for x, _ in sure(margins[split])]
            return [[1 / (1 + 2 * (-Decimal(scale) * m).exp()) for m in inputs] for scale in scales]

        own, *out = chances("forget")
        prior = [(Decimal("1.3") * sum(ps) / len(ps) + Decimal("0.7")) / 2 for ps in zip(*out, strict=True)]
        rival, *rivals_out = chances("test")
        others = [z / (sum(ps) / len(ps)) for z, ps in zip(rival, zip(*rivals_out, strict=True), strict=True)]
        expected = [sum(p / q >= other for other in others) / 60 for p, q in zip(own, prior, strict=True)]
    assert found == pytest.approx(expected)


def test_gradients_of_what_is_all_but_certain() -> None:
    """At a margin m the gradient of the loss in the logits is (-2, 1, 1) exp(-m), whose first part float32 loses."""
    logits = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    rows = Rows(logits, torch.tensor([0]), torch.tensor([0]), 1)
    (pull,) = torch.autograd.grad(probability(rows).sum(), logits)
    assert pull[0].numpy() == pytest.approx(np.array([2, -1, -1]) * np.exp(-30), rel=1e-5)
    model = Handing()
    (gradients,) = per_example(model, TASK, sure(np.array([30.0])), trainable(model))
    first = gradients["head.weight"][0, :, 0].numpy()
    assert first == pytest.approx(30 * np.array([-2, 1, 1]) * np.exp(-30), rel=1e-5)


def test_the_mean_loss_is_exact_too() -> None:
    assert mean_loss(Handing(), TASK, sure(np.array([30.0, 40.0]))) == pytest.approx(
        np.exp(-30) + np.exp(-40), rel=1e-6
    )


@pytest.mark.parametrize("at_once", [1, 100, 1000, 2**25])
def test_how_many_logits_are_held_in_float64_changes_no_bit(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(5 * torch.randn(9, 77, generator=seeded(0)), torch.arange(9), torch.arange(9), 9)
    whole = observation._of_rows(rows)
    monkeypatch.setattr(observation, "IN_CACHE", at_once)
    assert all(torch.equal(part, other) for part, other in zip(observation._of_rows(rows), whole, strict=True))
