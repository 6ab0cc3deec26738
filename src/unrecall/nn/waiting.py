"""Models that wait on the host while others work: no more of them are on a device than there is room for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

PAIR = 2
"""How many models are on the device at least: some are compared with each other."""
SHARE = 0.5
"""What share of the device's memory models may take that only stand there; training and activations need the rest."""


class Places:
    """At most `room` models are on the device, those that were asked for last; all others are on the host.

    `ask_for`, and a model's own forward pass, ask for it.
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

    def enter(self, model: nn.Module) -> None:
        """Moves the model to the device."""
        model.to(self.device)

    def leave(self, model: nn.Module) -> None:
        """Moves the model to the host."""
        model.to("cpu")


PLACES: WeakKeyDictionary[nn.Module, Places] = WeakKeyDictionary()
"""Where models that may have to wait are kept."""


def ask_for(model: nn.Module) -> nn.Module:
    """Gives the model, on the device if it waited."""
    if places := PLACES.get(model):
        places.bring(model)
    return model


@contextmanager
def taking_turns(models: Sequence[nn.Module], device: torch.device) -> Iterator[int]:
    """The models on the device inside the `with` block: all, or as many at a time as it has room for; gives how many.

    Models that wait when the block ends stay on the host. A graph of a model that has left can't be gone back through.
    """
    models = list(dict.fromkeys(models))
    room = room_for([size_of(model) for model in models], device)
    if room >= len(models):
        for model in models:
            model.to(device)
        yield len(models)
        return
    places = Places(device, room)
    hooks = [model.register_forward_pre_hook(_asks) for model in models]
    for model in models:
        places.leave(model)
        PLACES[model] = places
    try:
        yield room
    finally:
        for model, hook in zip(models, hooks, strict=True):
            PLACES.pop(model, None)
            hook.remove()


def _asks(model: nn.Module, _: Any) -> None:
    """A hook before each forward pass; a copy of a model carries it, and no copy waits."""
    ask_for(model)


def room_for(sizes: Sequence[int], device: torch.device) -> int:
    """How many of models of these sizes, in bytes, may be on the device at a time; on a CPU all of them."""
    if device.type != "cuda":
        return len(sizes)
    memory = SHARE * torch.cuda.get_device_properties(device).total_memory
    return len(sizes) if sum(sizes) <= memory else max(PAIR, int(memory // max(sizes)))


def size_of(model: nn.Module) -> int:
    """The bytes of a model's weights and buffers."""
    return sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
