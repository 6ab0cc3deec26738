"""A model's key changes with all that decides its answers, and with nothing else."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.worlds import World, network
from unrecall.evidence.model_keys import first_answers_digest, model_key


def test_a_copy_of_a_model_and_its_mode_make_no_difference(text_world: World) -> None:
    for model in (text_world.original, network()):
        assert model_key(copy.deepcopy(model).train()) == model_key(model.eval())


def test_a_models_key_leaves_it_and_the_global_generator_as_they_were(samples_world: World) -> None:
    w = samples_world
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1), copy.deepcopy(w.original)).eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    key = first_answers_digest(model, w.task, w.request)
    assert key == first_answers_digest(model, w.task, w.request)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize("value", [{"p": {}}, {"_p": {}}, {"p": {"share": {}}}, {"p": [{}, "x"]}, {"p": "tensor"}])
def test_each_setting_of_a_module_is_part_of_its_key(value: dict[str, Any]) -> None:
    def made(number: float) -> nn.Module:
        def filled(part: Any) -> Any:
            if part == {}:
                return number
            if part == "tensor":
                return torch.tensor(number)
            if isinstance(part, dict):
                return {name: filled(inner) for name, inner in part.items()}
            return [filled(inner) for inner in part] if isinstance(part, list) else part

        model = nn.ReLU()
        vars(model).update(filled(value))
        return model

    assert model_key(made(1.0)) == model_key(made(1.0)) != model_key(made(2.0))
    assert model_key(nn.Linear(1, 1).requires_grad_(False), "w") != model_key(nn.Linear(1, 1), "w")
