"""What modules give out and take in, caught on the way and changed."""

import torch
from torch import Tensor, nn

from unrecall.nn.hooks import capture, differentiable


class Several(nn.Module):
    """Gives out two tensors, the double and the triple of what it takes in by name."""

    def forward(self, *, x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return 2 * scale * x, 3 * x


class Asking(nn.Module):
    """Calls its part twice, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Several()

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.part(x=x)
        again, _ = self.part(x=first, scale=0.5)
        return torch.stack([first, second, again])


def test_of_several_tensors_it_is_the_first_at_each_use() -> None:
    model, outputs = Asking(), list[float]()
    with capture({"part": model.part}, lambda _, output: outputs.append(float(output))):
        assert model(torch.tensor(1.0)).tolist() == [2, 3, 2]
    assert outputs == [2, 2]
    assert model(torch.tensor(1.0)).tolist() == [2, 3, 2]
    assert outputs == [2, 2], "nothing is caught after the block"


def test_the_pass_goes_on_with_what_is_given_back() -> None:
    model = Asking()
    with capture({"part": model.part}, lambda _, output: output + 10):
        assert model(torch.tensor(1.0)).tolist() == [12, 3, 22]
    with capture({"part": model.part}, lambda _, value: value + 1, inputs=True):
        assert model(torch.tensor(1.0)).tolist() == [4, 6, 5]
    with capture({"asking": model}, lambda _, value: value + 1, inputs=True):
        assert model(torch.tensor(1.0)).tolist() == [4, 6, 4]


def test_what_was_caught_can_be_differentiated() -> None:
    model = Asking()
    with differentiable({"part": model.part}, inputs=True) as activations:
        total = model(torch.tensor(1.0)).sum()
    first, second = activations["part"]
    gradients = torch.autograd.grad(total, [first, second])
    assert [float(g) for g in gradients] == [2 + 3 + 2, 1 + 1], "what enters the part again also leaves the model"
    same = nn.Identity()
    with differentiable({"same": same}) as activations:
        same(torch.tensor(1))
    assert activations == {"same": []}, "whole numbers are passed over"
