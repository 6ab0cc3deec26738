"""A method of one's own is handed a copy, so that whatever it does to it, the user's model stays as it was."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from unrecall.data.examples import iterate
from unrecall.disk.weights import same_weights
from unrecall.errors import BadInput
from unrecall.methods.base import Job, Method
from unrecall.training.randomness import seeded


@dataclass(frozen=True)
class Halved(Method):
    """Halves every weight, past autograd's counters."""

    title = "Halved"

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        for parameter in model.parameters():
            parameter.data.mul_(0.5)
        return model


@dataclass(frozen=True)
class Climbed(Method):
    """Climbs the loss of forget in place, in train mode, with the first layer frozen."""

    title = "Climbed"

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        next(model.parameters()).requires_grad_(False)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        batch = job.task.collate(list(iterate(job.request.forget)))
        (-job.task.losses(model.train(), batch).mean()).backward()
        optimizer.step()
        return model


@dataclass(frozen=True)
class Idle(Method):
    """Gives back what it was handed."""

    title = "Idle"

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        return model


def unlearned(method: Method, model: nn.Module, world: World) -> nn.Module:
    return method.unlearn(model, Job(world.request, world.task, seeded(0), CPU))


def test_a_method_that_changes_its_model_in_place_changes_a_copy(samples_world: World) -> None:
    for method in (Halved(), Climbed()):
        model = copy.deepcopy(samples_world.original).train()
        before = copy.deepcopy(model)
        result = unlearned(method, model, samples_world)
        assert same_weights(model, before)
        assert not same_weights(result, before), "the result is what the method made"
        assert all(module.training for module in model.modules())
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert not any(module.training for module in result.modules())
        assert all(p.grad is None and p.requires_grad for p in result.parameters()), "attacks train all of it"


def test_a_method_that_changes_nothing_gives_a_model_of_its_own(samples_world: World) -> None:
    result = unlearned(Idle(), samples_world.original, samples_world)
    assert result is not samples_world.original
    assert same_weights(result, samples_world.original)
    places = {p.data_ptr() for p in samples_world.original.parameters()}
    assert not places & {p.data_ptr() for p in result.parameters()}


@dataclass(frozen=True)
class Forgetful(Method):
    """Returns no model."""

    title = "Forgetful"

    weights: bool = False

    def unlearn(self, model: nn.Module, job: Job) -> Any:
        return model.state_dict() if self.weights else None


def test_a_method_that_gives_no_model_is_told_what_to_return(samples_world: World) -> None:
    said = r"^Forgetful: expected unlearn \(.*test_own_method\.py:\d+\) to give the unlearned torch\.nn\.Module, got "
    with pytest.raises(BadInput, match=f"{said}None. Return the model that it changed: return model.$"):
        unlearned(Forgetful(), samples_world.original, samples_world)
    with pytest.raises(BadInput, match=f"{said}OrderedDict. Load the weights, and return the model"):
        unlearned(Forgetful(weights=True), samples_world.original, samples_world)


@dataclass(frozen=True)
class Wrapped(Method):
    """Gives the model back inside a wrapper, with a weight of whole numbers beside it."""

    title = "Wrapped"

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        return Around(model)


class Around(nn.Module):
    """As DataParallel does, puts `module.` before each name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.scale = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)  # type: ignore[no-any-return]


def test_what_is_frozen_stays_so_inside_a_wrapper_and_whole_numbers_have_no_gradient(samples_world: World) -> None:
    model = copy.deepcopy(samples_world.original)
    next(model.parameters()).requires_grad_(False)
    result = unlearned(Wrapped(), model, samples_world)
    trainable = {name: p.requires_grad for name, p in result.named_parameters()}
    frozen = next(iter(dict(model.named_parameters())))
    assert {name for name, trained in trainable.items() if not trained} == {f"module.{frozen}", "scale"}
