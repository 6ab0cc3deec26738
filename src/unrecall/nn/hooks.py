"""Looking into a model and changing what flows through it, undone on leaving the `with` block."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.errors import NotSupported


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
def put_back(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Puts back, exactly, what these tensors held."""
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)


def uncompiled(model: nn.Module) -> nn.Module:
    """Gives the model inside what `torch.compile` made of it: a compiled pass runs none of its hooks."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


@torch.no_grad()
def in_training(model: nn.Module, run: Callable[[], object]) -> object:
    """Gives what `run` gives with the model in train mode; its buffers and modes, and randomness, stay as they were."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with mode(model, training=True), torch.random.fork_rng(devices=devices):
        try:
            return run()
        finally:
            for buffer, value in before:
                buffer.copy_(value)


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
    trainable = [p for p in model.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield model
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def without_checkpointing(model: nn.Module) -> Iterator[nn.Module]:
    """Takes away the hooks that gradient checkpointing leaves in a Transformers model, and puts them back.

    They make what leaves the embeddings require gradients, at which `torch.func` fails. In eval mode nothing else of
    checkpointing is at work.
    """
    hooked = [
        (m._forward_hooks, key, hook)
        for m in model.modules()
        for key, hook in m._forward_hooks.items()
        if getattr(hook, "__name__", "").startswith("make_inputs_require_grad")
    ]
    try:
        for hooks, key, _ in hooked:
            del hooks[key]
        yield model
    finally:
        for hooks, key, hook in hooked:
            hooks[key] = hook


@contextmanager
def unfrozen(model: nn.Module) -> Iterator[nn.Module]:
    """Switches on the gradients of all parameters in floats, so that what they decide can be told."""
    held = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    for p in held:
        p.requires_grad_(True)
    try:
        yield model
    finally:
        for p in held:
            p.requires_grad_(False)


def is_linear(module: nn.Module) -> bool:
    """Says whether a module is a linear layer; GPT-2's are Transformers' `Conv1D`, whose matrix is `[in, out]`."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_plain_convolution(convolution: Any) -> bool:
    """Says whether a convolution is one matrix on patches that `unfold` cuts: not in groups, padded with zeros."""
    padded = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return bool(convolution.groups == 1 and padded)


def is_transposed(module: nn.Module) -> bool:
    """Says whether a module is Transformers' `Conv1D`."""
    return type(module).__name__ == "Conv1D"


def transposed_weights(model: nn.Module) -> set[str]:
    """Names the weights that are held as `[inputs, outputs]`, as Transformers' `Conv1D` does."""
    return {f"{name}.weight".lstrip(".") for name, module in model.named_modules() if is_transposed(module)}


def stacked_experts(model: nn.Module) -> dict[str, nn.Parameter]:
    """Finds, by name, the parameters that hold one matrix for each expert of a mixture `[experts, ...]`."""
    return {
        f"{name}.{parameter}".removeprefix("."): value
        for name, module in model.named_modules()
        if "Experts" in type(module).__name__
        for parameter, value in module.named_parameters(recurse=False)
        if value.ndim == 3
    }


def check_no_experts(model: nn.Module, owner: str, advice: str) -> None:
    """NotSupported, said by `owner`, for a mixture whose experts are stacked: most of its weights are in no layer."""
    if stacked_experts(model):
        raise NotSupported(
            f"{owner}: expected weights in layers of their own, got a mixture whose experts are stacked. {advice}"
        )


def routers(model: nn.Module) -> set[nn.Module]:
    """Finds what is called a router or a gate in a mixture of experts, with all that is below; none in other models."""
    modules = dict(model.named_modules())
    if not any("Experts" in type(module).__name__ for module in modules.values()):
        return set()
    called = [name for name in modules if name.rsplit(".", 1)[-1].endswith(("router", "gate"))]
    return {module for name in called for module in modules[name].modules()}


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Lists all BatchNorm modules that keep running statistics, in registration order."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in norms if m.track_running_stats and isinstance(m.running_mean, torch.Tensor)]


@contextmanager
def capture(
    modules: Mapping[str, nn.Module], look: Callable[[str, Tensor], Tensor | None], *, inputs: bool = False
) -> Iterator[None]:
    """Calls `look(name, tensor)` on what leaves each module (with `inputs`: on what enters it), at each use.

    Of several tensors it is the first; what is no tensor is passed over. Where `look` gives a tensor back, the pass
    goes on with that one.
    """

    def changed(name: str, values: Any) -> Any:
        if isinstance(values, Tensor):
            return look(name, values)
        parts = values if isinstance(values, dict) else dict(enumerate(values if isinstance(values, tuple) else ()))
        key, first = next(iter(parts.items()), (None, None))
        new = look(name, first) if isinstance(first, Tensor) else None
        if new is not None and isinstance(values, dict):
            values[key] = new
        return (new, *values[1:]) if new is not None and isinstance(values, tuple) else None

    def enters(name: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        new = changed(name, arguments or named)
        return None if new is None else (new, named)

    def leaves(name: str, _: nn.Module, __: object, output: Any) -> Any:
        return changed(name, output)

    with ExitStack() as stack:
        for name, module in modules.items():
            if inputs:
                stack.enter_context(module.register_forward_pre_hook(partial(enters, name), with_kwargs=True))
            else:
                stack.enter_context(module.register_forward_hook(partial(leaves, name)))
        yield


@contextmanager
def differentiable(modules: Mapping[str, nn.Module], *, inputs: bool = False) -> Iterator[dict[str, list[Tensor]]]:
    """Collects what leaves each module (with `inputs`: what enters it) at each use, so that it can be differentiated.

    What the pass goes on with is a copy, so that what follows may work in place.
    """
    activations: dict[str, list[Tensor]] = {name: [] for name in modules}

    def collect(name: str, values: Tensor) -> Tensor | None:
        if not values.is_floating_point():
            return None
        activations[name].append(values if values.requires_grad else values.detach().requires_grad_(True))
        return activations[name][-1].clone()

    with capture(modules, collect, inputs=inputs):
        yield activations


class _Reached(Exception):
    """Ends a forward pass; carries the outputs for whose sake the pass was made."""


def until(module: nn.Module, run: Callable[[], object]) -> Tensor | None:
    """Gives what leaves `module` while `run` sends something through a model that holds it; the pass ends there.

    None where the pass never comes by. Nothing after the module is computed, and gradients flow back from what it
    gave, but for a module inside a checkpoint with use_reentrant=True, which records none.
    """
    outputs: list[Tensor] = []

    def leave(_: str, output: Tensor) -> None:
        outputs.append(output)
        raise _Reached(outputs)

    with capture({"": module}, leave):
        try:
            run()
        except _Reached as reached:
            if reached.args[0] is not outputs:
                raise
    return outputs[0] if outputs else None


@contextmanager
def shortcut(first: nn.Module, last: nn.Module) -> Iterator[None]:
    """Lets what leaves `first` leave `last` too, so that the layers between them have no say in a pass."""
    outputs: list[Tensor] = []

    def remember(_: str, output: Tensor) -> None:
        outputs[:] = [output]

    with capture({"": first}, remember), capture({"": last}, lambda *_: outputs[0]):
        yield
