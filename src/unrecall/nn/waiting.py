"""Models that wait on the host while others work: no more of them are on a device than there is room for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

FEWEST = 2
"""How many models are on the device at least: some are compared with each other."""
SHARE = 0.5
"""The share of a device's free memory for models that only stand there; training and activations need the rest."""


class Places:
    """At most `room` models are on the device, those that were asked for last; all others are on the host.

    `ask_for(model)` and `model(...)` bring that model to the device.
    """

    def __init__(self, device: torch.device, room: int) -> None:
        self.device, self.room = device, room
        self.present: list[nn.Module] = []

    def bring(self, model: nn.Module) -> None:
        """Puts the model on the device; those that were asked for longest ago make room."""
        if model in self.present:
            self.present.remove(model)
        else:
            while len(self.present) >= self.room:
                self.leave(self.present.pop(0))
            self.enter(model)
        self.present.append(model)

    def send(self, model: nn.Module) -> None:
        """Puts the model on the host, whether it was on the device or not."""
        if model in self.present:
            self.present.remove(model)
        self.leave(model)

    def enter(self, model: nn.Module) -> None:
        """Moves the model to the device."""
        model.to(self.device)

    def leave(self, model: nn.Module) -> None:
        """Moves the model to the host."""
        model.to("cpu")


PLACES: WeakKeyDictionary[nn.Module, Places] = WeakKeyDictionary()
"""The `Places` that each model takes turns in; a model that takes no turns isn't here."""


def ask_for(model: nn.Module) -> nn.Module:
    """Gives the model, on the device if it waited."""
    if places := PLACES.get(model):
        places.bring(model)
    return model


@contextmanager
def taking_turns(models: Sequence[nn.Module], device: torch.device) -> Iterator[int]:
    """Keeps as many of the models on the device as it has room for, inside the `with` block; gives how many.

    The others wait on the host, and stay there when the block ends. Don't call backward() on what a model gave before
    it left the device. Models that share a tensor take no turns.
    """
    outer = {model: PLACES.pop(model) for model in models if model in PLACES}
    hooks = []
    try:
        room = len(models) if share_tensors(models) else room_for(models, device)
        if room >= len(models):
            for model in models:
                model.to(device)
        else:
            places = Places(device, room)
            for model in models:
                # before a hook of the model's own, which may compute a weight
                hooks.append(model.register_forward_pre_hook(_asks, prepend=True))
                PLACES[model] = places
                places.leave(model)
        yield room
    finally:
        for hook in hooks:
            hook.remove()
        for model in models:
            PLACES.pop(model, None)
        for model, places in outer.items():
            places.send(model)
            PLACES[model] = places


def _asks(model: nn.Module, _: Any) -> None:
    """The hook before each forward pass, which brings the model.

    A copy of a model has this hook too, but isn't in `PLACES`, so there it does nothing.
    """
    ask_for(model)


def room_for(models: Sequence[nn.Module], device: torch.device) -> int:
    """How many of the models may be on the device at a time; on a CPU all of them."""
    if device.type != "cuda":
        return len(models)
    sizes = [size_of(model) for model in models]
    free, _ = torch.cuda.mem_get_info(device)
    memory = SHARE * (free + torch.cuda.memory_reserved(device))
    return len(models) if sum(sizes) <= memory else max(FEWEST, int(memory // max(sizes)))


def size_of(model: nn.Module) -> int:
    """The bytes of a model's weights and buffers."""
    return sum(tensor.nbytes for tensor in tensors_of(model))


def share_tensors(models: Sequence[nn.Module]) -> bool:
    """Whether two of the models hold the same tensor, so that neither can leave without a part of the other."""
    tensors = [{id(tensor) for tensor in tensors_of(model)} for model in models]
    return len(set().union(*tensors)) < sum(map(len, tensors))


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """The model's weights and buffers, each once."""
    return chain(model.parameters(), model.buffers())
