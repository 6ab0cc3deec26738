"""Nothing reads a model that waits on the host: with two places on the device an audit finds what it finds otherwise.

A graphics card isn't needed to show it: here a model that waits holds no numbers.
"""

import copy

import pytest
import torch
from torch import nn

import unrecall as ur
from tests.worlds import CPU, World
from unrecall.nn import waiting
from unrecall.record.schema import Record


class Emptied(waiting.Places):
    """A host on which every weight is not a number, until the model is back on the device."""

    weights: dict[nn.Module, dict[str, torch.Tensor]]

    @torch.no_grad()
    def enter(self, model: nn.Module) -> None:
        for name, value in vars(self).setdefault("weights", {}).pop(model).items():
            model.state_dict()[name].copy_(value)

    @torch.no_grad()
    def leave(self, model: nn.Module) -> None:
        held = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
        vars(self).setdefault("weights", {})[model] = held
        for name in held:
            model.state_dict()[name].fill_(float("nan"))


SUITES = {
    "class_world": "residual_knowledge:points=2,draws=4 relearn:steps=1 prototypical attribution cmia cka interpolate "
    "update_inversion traces",
    "text_world": "relearn:steps=1 prefix patching",
    "pairs_world": "cka loss",
}


def audited(world: World, attacks: str, *, alone: bool = False) -> Record:
    """An audit of copies: models that wait at its end stay as they are."""
    original, unlearned, *retrained = (copy.deepcopy(model) for model in (world.original, *world.retrained))
    return ur.audit(
        original=original,
        unlearned=unlearned,
        retrained=() if alone else retrained,
        null=copy.deepcopy(original),
        request=world.request,
        task=world.task,
        attacks=attacks,
        session=CPU,
    )


def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "room_for", lambda models, device: waiting.FEWEST)
    monkeypatch.setattr(waiting, "Places", Emptied)


@pytest.mark.parametrize("name", SUITES)
def test_an_audit_in_turns_finds_the_same(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: World = request.getfixturevalue(name)
    whole = audited(world, SUITES[name])
    in_turns(monkeypatch)
    turns = audited(world, SUITES[name])
    assert turns.measurements == whole.measurements
    assert turns.attacks == whole.attacks


def test_without_retrained_models_too(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audited(samples_world, "loss", alone=True)
    in_turns(monkeypatch)
    turns = audited(samples_world, "loss", alone=True)
    assert turns.measurements == whole.measurements
    assert turns.never_trained == whole.never_trained
