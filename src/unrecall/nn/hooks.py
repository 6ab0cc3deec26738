"""Looking into a model and changing what flows through it, undone on leaving the `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[nn.Module]:
    """Puts `model` into train or eval mode, and each of its modules back as it was."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield model
    finally:
        for module, was in before.items():
            module.training = was


@contextmanager
def channels_last(model: nn.Module) -> Iterator[nn.Module]:
    """Lays 4-D weights out channels last, in which convolutions run faster, and back; values don't change.

    What was laid out in another way before comes back contiguous.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield model
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Switches off the gradients of all parameters, so that only inputs are differentiated."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield model
    finally:
        for p in wanted:
            p.requires_grad_(True)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer; GPT-2's are Transformers' `Conv1D`, with the matrix as `[in, out]`."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is Transformers' `Conv1D`."""
    return type(module).__name__ == "Conv1D"


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """All BatchNorm modules that keep running statistics, in registration order."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in norms if m.track_running_stats and isinstance(m.running_mean, torch.Tensor)]


@contextmanager
def differentiable(modules: Mapping[str, nn.Module], *, inputs: bool = False) -> Iterator[dict[str, list[Tensor]]]:
    """Collects what leaves each module (with `inputs`: what enters it) at each use, so that it can be differentiated.

    Of several tensors it is the first. What the pass goes on with is a copy, so that what follows may work in place.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}

    def watch(name: str) -> Callable[..., Any]:
        def hook(*given: Any) -> Any:
            found = given[-1]  # the arguments of a hook that comes before, the output of one that comes after
            first = found[0] if isinstance(found, tuple) and found else found
            if not isinstance(first, Tensor) or not first.is_floating_point():
                return None
            kept = first if first.requires_grad else first.detach().requires_grad_(True)
            seen[name].append(kept)
            return (kept.clone(), *found[1:]) if isinstance(found, tuple) else kept.clone()

        return hook

    with ExitStack() as stack:
        for name, m in modules.items():
            stack.enter_context((m.register_forward_pre_hook if inputs else m.register_forward_hook)(watch(name)))
        yield seen


class _Reached(Exception):
    """Ends a forward pass; carries what the pass was meant to find."""


def until(model: nn.Module, module: nn.Module, run: Callable[[], object]) -> Tensor | None:
    """What `module` gives out (the first of several) while `run` sends something through `model`, which ends there.

    None where the pass never comes by. Nothing after the module is computed, and gradients flow back from what it
    gave, but for a module inside a checkpoint with use_reentrant=True, which records none. Where Accelerate has spread
    the model over processes, the pass runs to its end, for that is where they agree to share gradients.
    """
    found: list[Tensor] = []
    spread = isinstance(model, nn.parallel.DistributedDataParallel)

    def leave(_: nn.Module, __: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        if not spread:
            raise _Reached(found)

    with module.register_forward_hook(leave):
        try:
            run()
        except _Reached as reached:
            if reached.args[0] is not found:
                raise
    return found[0] if found else None


@contextmanager
def shortcut(first: nn.Module, last: nn.Module) -> Iterator[None]:
    """What `first` gives out leaves `last` too, so that the layers between them have no say in a pass."""
    kept: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        kept[:] = [output]

    def replace(_: nn.Module, __: Any, ___: Any) -> Any:
        return kept[0]

    with first.register_forward_hook(keep), last.register_forward_hook(replace):
        yield
