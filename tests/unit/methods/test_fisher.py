"""Fisher forgetting by hand: the information, the variance, and the noise."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, World
from unrecall.data.request import Request
from unrecall.errors import Diverged, NotSupported
from unrecall.methods.fisher import Fisher
from unrecall.models.importance import exact, fisher
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.randomness import seeded


def two_logits() -> tuple[nn.Linear, list[tuple[torch.Tensor, int]]]:
    """z = (w_0 x, w_1 x): d log p_0 / d w = (1 - p_0) x, -p_1 x, whatever the label."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[1.0], [-1.0]])
    return model, [(torch.tensor([0.5]), 0), (torch.tensor([1.0]), 0)]


def test_information_by_hand() -> None:
    """sum_k p_k (d log p_k / d w_0)^2 = p (1 - p) x^2 for two classes, and the same for w_1."""
    model, data = two_logits()
    p = [1 / (1 + math.exp(-2 * x)) for x in (0.5, 1.0)]
    expected = (p[0] * (1 - p[0]) * 0.25 + p[1] * (1 - p[1])) / 2
    assert torch.allclose(fisher(model, Classification(), data)["weight"], torch.full((2, 1), expected))


def test_information_does_not_hang_on_labels_and_is_the_sum_over_classes(samples_world: World) -> None:
    w = samples_world
    data = [w.request.retain[i] for i in range(12)]
    relabelled = [(x, (y + 1) % 4) for x, y in data]
    information = fisher(w.original, w.task, data)
    again = fisher(w.original, w.task, relabelled, 5)
    assert all(torch.allclose(information[name], again[name], atol=1e-7) for name in information)
    total = {name: torch.zeros_like(value) for name, value in information.items()}
    for x, _ in data:
        p = w.original.eval()(x[None]).softmax(1)[0].detach()
        for label in range(4):
            for name, value in exact(w.original, w.task, [(x, label)]).items():
                total[name] += p[label] * value / len(data)
    assert all(torch.allclose(information[name], total[name], rtol=1e-3, atol=1e-7) for name in information)


@pytest.mark.parametrize(
    ("information", "in_head", "expected"),
    [
        ([4.0, 1e-6], False, [10 * 0.25, 10 * 1e3]),  # a vector: ten times as wide, and the ceiling
        ([[4.0, 0.5], [1e-3, 1e-6]], False, [[1.125, 1.125], [1e3, 1e3]]),  # a matrix: the mean of its rows
        ([[4.0, 0.5], [1e-3, 1e-6]], True, [[11.25, 11.25], [1e3, 1e3]]),  # the head: ceiling 100, ten times as wide
    ],
)
def test_variance_by_hand(information: Any, in_head: bool, expected: Any) -> None:
    variance = Fisher(alpha=2.0).variance(torch.tensor(information), in_head)
    assert torch.allclose(variance, 2 * torch.tensor(expected), rtol=1e-4)


def test_noise_is_what_the_generator_draws() -> None:
    model, data = two_logits()
    request = Request([(torch.tensor([0.9]), data[0][1])], data)
    method = Fisher(alpha=1e-4)
    result = method.unlearn(model, Job(request, Classification(), seeded(3), CPU))
    variance = method.variance(fisher(model, Classification(), data)["weight"], True)
    expected = model.weight + variance.sqrt() * torch.randn(2, 1, generator=seeded(3))
    assert torch.allclose(result.weight, expected)  # type: ignore[arg-type]


def test_a_forgotten_class_is_drawn_anew(class_world: World) -> None:
    w = class_world
    quiet = Fisher(alpha=1e-30).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    weights, before = dict(quiet.named_parameters()), dict(w.original.named_parameters())
    assert torch.equal(weights["6.weight"][1:], before["6.weight"][1:])
    assert 0 < float(weights["6.weight"][0].detach().std()) < 3 * math.sqrt(1e-3)
    assert abs(float(weights["6.bias"][0].detach())) < 5 * math.sqrt(1e-3)
    assert torch.equal(weights["4.weight"], before["4.weight"])


def test_a_task_without_classes_wants_true_labels(text_world: World) -> None:
    w = text_world
    with pytest.raises(NotSupported, match=r"Fisher: expected examples that have one class each.*labels=true"):
        Fisher().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    result = Fisher(labels="true").unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert any(not torch.equal(a, b) for a, b in zip(result.parameters(), w.original.parameters(), strict=True))


def test_weights_that_are_no_numbers_are_no_result(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(Diverged, match="Fisher: expected finite losses and weights, got NaN or infinity"):
        Fisher(alpha=1e300, labels="true").unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


class Scaled(nn.Module):
    """A linear layer, or GPT-2's, which holds its matrix the other way round."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.flatten(1)))  # type: ignore[no-any-return]


def test_weights_of_one_output_share_their_variance_however_they_are_held() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    plain, turned = Scaled(nn.Linear(4, 3)), Scaled(Conv1D(3, 4))
    with torch.no_grad():
        turned.layer.weight.copy_(plain.layer.weight.T)  # type: ignore[operator, union-attr]
        turned.layer.bias.copy_(plain.layer.bias)  # type: ignore[operator, union-attr, arg-type]
        turned.head.load_state_dict(plain.head.state_dict())
    drawn: dict[str, list[Tensor]] = {}
    for name, model in (("plain", plain), ("turned", turned)):

        class Shown(Fisher):
            """Fisher, whose variances are looked at."""

            def _disturb(self, weight: Tensor, variance: Tensor, in_head: bool, job: Job) -> None:
                drawn.setdefault(name, []).append(variance)  # noqa: B023

        data = [(torch.rand(1, 2, 2, generator=seeded(i)), i % 2) for i in range(12)]
        Shown().unlearn(
            model, Job(Request(data[:4], data[4:8], data[8:10], data[10:]), Classification(), seeded(0), CPU)
        )
    for one, other in zip(drawn["plain"], drawn["turned"], strict=True):
        torch.testing.assert_close(one, other.T if one.shape != other.shape else other)
    assert {p.shape for p in drawn["turned"]} >= {torch.Size([4, 3])}
