"""CIR: both losses and the directions in common by hand, its gradients against autograd's, and its first epochs."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.methods.test_language import whole
from tests.unit.methods.test_mudman import check_resumed
from tests.worlds import CPU, World, without_retain
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import GradientMethod
from unrecall.methods.cir import CIR, Gathered, after_first, alike, apart, common, likeness, selective
from unrecall.methods.lora import LoRA
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

SGD = Fit(lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=10, epochs=2, batchnorm="frozen")


def unlearned(method: GradientMethod, world: World, session: Session = CPU) -> nn.Module:
    return method.unlearn(world.original, Job(world.request, world.task, seeded(0), session))


def moved(method: GradientMethod, world: World) -> dict[str, float]:
    """How far each weight that moved has moved."""
    before = dict(world.original.named_parameters())
    result = dict(unlearned(method, world).named_parameters())
    return {
        name: float((p - before[name]).detach().norm())
        for name, p in result.items()
        if not torch.equal(p, before[name])
    }


def test_losses_by_hand() -> None:
    """|o^0| is 2 and 1, 1.5 in the mean: (2 + 4) / 2 / 2.25; what points away from o^0 counts 0."""
    before = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert alike(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), before).item() == pytest.approx(3 / 2.25)
    assert alike(torch.tensor([[1.0, 0.0], [3.0, -4.0]]), before).item() == pytest.approx(1 / 2.25)
    assert apart(torch.tensor([[2.0, 3.0], [4.0, 1.0]]), before).item() == pytest.approx(3.5 / 1.5)


def test_the_first_position_of_each_example_is_left_out_wherever_it_stands() -> None:
    held = torch.tensor([[True, True, True, False], [False, False, True, True]])
    marked = after_first(held)
    assert marked is not None
    assert marked.tolist() == [[False, True, True, False], [False, False, False, True]]
    assert after_first(None) is None


def test_directions_in_common_by_hand() -> None:
    """The mean lies along the first axis, the largest deviation from it along the third; of 8 axes two may go."""
    vectors = torch.zeros(4, 8)
    vectors[:, 0] = 5.0
    vectors[:, 2] = torch.tensor([3.0, -3.0, 3.0, -3.0])
    vectors[:, 4] = torch.tensor([1.0, 1.0, -1.0, -1.0])
    found = common(vectors, 24)
    assert found.shape == (8, 2)
    assert torch.allclose(found.abs(), torch.eye(8)[:, [0, 2]], atol=1e-4)
    assert common(vectors, 1).shape == (8, 1)
    assert common(vectors[:1], 24).shape == (8, 1)


def test_what_is_left_of_a_gradient_by_hand() -> None:
    """Without the first axis of inputs and the second of gradients: (1, 0) x (0, 2) + (3, 0) x (0, 4)."""
    first, second = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    inputs, gradients = torch.tensor([[7.0, 2.0], [9.0, 4.0]]), torch.tensor([[1.0, 5.0], [3.0, 6.0]])
    assert selective(inputs, gradients, first, second).tolist() == [[0.0, 14.0], [0.0, 0.0]]


def test_gathered_products_are_the_gradients(samples_world: World) -> None:
    """Of a convolution and of a linear layer, with nothing taken out."""
    w = samples_world
    student = copy.deepcopy(w.original).eval()
    chosen = CIR()._chosen(student, w.original, Job(w.request, w.task, seeded(0)))
    own, batch = Gathered(), {"forget": whole(w.request.forget, w.task)}
    likeness(chosen, w.task, own, student, batch).backward()
    assert [type(layer) for layer in chosen.trained.values()] == [nn.Conv2d, nn.Linear]
    for name, layer in chosen.trained.items():
        ((inputs, gradients),) = own[name]
        nothing = [torch.zeros(v.shape[1], 0) for v in (inputs, gradients)]
        product = selective(inputs, gradients, *nothing)
        assert torch.allclose(product.view_as(layer.weight.grad), layer.weight.grad, atol=1e-6)
        assert product.abs().max() > 1e-4


def test_at_the_start_outputs_are_what_they_were(text_world: World) -> None:
    """The loss is then mean |o|^2 / (mean |o|)^2, here from the model's own hooks."""
    w = text_world
    student, said = copy.deepcopy(w.original).eval(), []
    chosen = CIR()._chosen(student, w.original, Job(w.request, w.task, seeded(0)))
    assert [name.split(".")[-2] for name in chosen.trained] == ["gate_proj", "up_proj", "down_proj"]
    batch = whole(w.request.forget, w.task)
    value = likeness(chosen, w.task, Gathered(), student, {"forget": batch}).item()
    hook = w.original.model.layers[0].mlp.register_forward_hook(lambda *given: said.append(given[2]))  # type: ignore[union-attr]
    with torch.no_grad():
        w.task.rows(w.original, batch)
    hook.remove()
    lengths = said[0][after_first(w.task.positions(batch))].norm(dim=1)
    assert value == pytest.approx(float(lengths.square().mean() / lengths.mean() ** 2), rel=1e-4)


def test_the_first_epoch_moves_nothing_and_each_later_step_has_the_length_of_the_rate(samples_world: World) -> None:
    w = samples_world  # forget makes two batches
    alone = CIR(retain_weight=0.0, kl=100.0, fit=Fit(**{**vars(SGD), "steps": 2}))
    assert not moved(alone, w)
    third = moved(CIR(retain_weight=0.0, kl=100.0, fit=Fit(**{**vars(SGD), "steps": 3})), w)
    assert set(third) == {"0.weight", "4.weight"}
    assert sum(value**2 for value in third.values()) ** 0.5 == pytest.approx(0.1, rel=1e-4)


def test_it_ends_with_the_epoch_in_which_the_budget_is_spent(samples_world: World) -> None:
    """Which is over after the third step, within the second epoch; `check_every` is asked of `until` alone."""
    for every in (50, 1):
        session = Session(device="cpu")
        unlearned(CIR(kl=1e-4, fit=Fit(**{**vars(SGD), "epochs": 50, "check_every": every})), samples_world, session)
        assert session.efforts[0].steps == 4


def test_retain_is_read_for_the_budget_alone_without_a_weight(text_world: World) -> None:
    w = text_world
    method = CIR(retain_weight=0.0, fit=SGD)
    student = copy.deepcopy(w.original)
    (phase,) = method.phases(student, w.original, Job(w.request, w.task, seeded(0), CPU))
    assert set(phase.streams) == {"forget"}
    with pytest.raises(AssertionError, match="retain was read"):
        method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (CIR(last=2), "expected first to be at most last, and last at most 1"),
        (CIR(first=1, last=0), "expected first to be at most last"),
        (CIR(target=("down",)), "expected target to be .* got 'down'"),
    ],
)
def test_refuses_layers_that_there_are_not(text_world: World, method: CIR, message: str) -> None:
    with pytest.raises(BadInput, match=f"CIR: {message}"):
        unlearned(method, text_world)


def test_refuses_layers_without_a_matrix(samples_world: World) -> None:
    """The last block is the head alone, which is none that it trains."""
    last = len(samples_world.task.blocks(samples_world.original)) - 1
    with pytest.raises(NotSupported, match=rf"CIR: expected a linear layer .* in layers {last} to {last}"):
        unlearned(CIR(first=last, last=last), samples_world)


def test_refuses_adapters(text_world: World, samples_world: World) -> None:
    """An adapter's last matrix says 0 everywhere at first, so that nothing is left to break."""
    from peft import LoraConfig, inject_adapter_in_model

    w, message = samples_world, "CIR: expected a model without adapters, got one with them"
    adapted = inject_adapter_in_model(LoraConfig(target_modules=["4"]), copy.deepcopy(w.original))
    for model in (adapted, nn.Sequential(adapted)):
        with pytest.raises(NotSupported, match=message):
            CIR(fit=SGD).unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    for world in (text_world, samples_world):
        with pytest.raises(NotSupported, match=message):
            LoRA(base=CIR(fit=SGD)).unlearn(world.original, Job(world.request, world.task, seeded(0), CPU))


def test_killed_and_resumed_gives_the_same_weights(samples_world: World, tmp_path: Path) -> None:
    """What an epoch had in common is part of what is kept."""
    recipe = Fit(lr=0.02, momentum=0.0, weight_decay=0.0, batch_size=8, epochs=4, batchnorm="frozen")
    check_resumed(CIR(kl=100.0, fit=recipe), samples_world, tmp_path, killed_at=7)
