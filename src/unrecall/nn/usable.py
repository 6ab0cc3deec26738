"""What a model must be so that it can be looked into, changed and copied; BadInput where it isn't."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unrecall.errors import BadInput, one_line
from unrecall.nn.hooks import mode

BEFORE_QUANTISING = "Give the model as it was before it was quantised, and quantise what was unlearned."
"""What to do about a quantised model."""


def check_model(model: nn.Module) -> None:
    """BadInput where a model isn't one of Python modules with weights in floats, which can be looked into and changed.

    Quantised ones, of whatever library, hold their weights in whole numbers, in single bytes or in packed objects.
    """
    if not isinstance(model, nn.Module):
        raise no_module("model: expected a torch.nn.Module", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise BadInput(
            f"model: expected a module of Python code, got a scripted or traced one ({type(model).__name__}). Give the "
            "model that it was made from: build it, and load the scripted one's state_dict()."
        )
    for name, parameter in model.named_parameters():
        if not is_lazy(parameter) and parameter.is_complex():
            raise BadInput(
                f"model: expected weights in real numbers, got complex ones in '{name}'. Hold their real and imaginary "
                "parts as two weights."
            )
    if form := _quantised(model):
        raise BadInput(f"model: expected weights in floats, got quantised ones ({form}). {BEFORE_QUANTISING}")
    if any(hasattr(module, "_hf_hook") for module in model.modules()):
        raise BadInput(
            "model: expected one on one device, got one that Accelerate has spread over several (device_map): a copy "
            "of it would go on calling it. Load it without device_map, or with {'': 0}."
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise BadInput(
                f"model: expected weights, got none yet in '{name}'. Pass an example through the model first."
            )
        if parameter.is_meta:
            raise BadInput(f"model: expected weights, got none in '{name}' (on meta). Load the checkpoint first.")
    if next(model.parameters(), None) is None:
        raise BadInput("model: expected weights to change, got a model without parameters. Give one that was trained.")
    _check_copies(model)


def no_module(expected: str, given: object) -> BadInput:
    """What to raise where weights, their file, or anything else is given in place of a model."""
    advice = "Build the network, and load its weights."
    if isinstance(given, Mapping):
        advice = "Load the weights into the network, model.load_state_dict(weights), and give the model."
    if isinstance(given, str | Path):
        advice = (
            "Load the file's weights into the network, model.load_state_dict(torch.load(file)), and give the model."
        )
    got = repr(str(given)) if isinstance(given, str | Path) else type(given).__name__
    return BadInput(f"{expected}, got {got}. {advice}")


def _check_copies(model: nn.Module) -> None:
    """BadInput where a model can't be copied, or put into train and eval mode; its weights aren't copied for that."""
    try:
        with mode(model, training=False):
            pass
    except NotImplementedError as error:
        raise BadInput(
            f"model: expected one that has a train and an eval mode, got {type(model).__name__}, as torch.export makes "
            "it. Give the model that was exported."
        ) from error
    weights: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        copied = copy.deepcopy(model, weights)
    except Exception as error:
        raise BadInput(
            f"model: expected one that can be copied, got: {one_line(error, 200)}. Keep locks, files, generators and "
            "tensors with gradients out of its attributes."
        ) from error
    _check_apart(model, copied)


def _check_apart(model: nn.Module, copied: nn.Module) -> None:
    """BadInput where a copy holds modules of the model: training one would change the other, or neither."""
    own = {*model.modules()}
    for name, module in copied.named_modules():
        if module in own:
            raise BadInput(
                f"model: expected one that can be copied, got copies that share modules with it "
                f"({name or 'the model itself'}): training one would change the other. Leave __deepcopy__ to PyTorch."
            )
        for attribute, value in vars(module).items():
            if isinstance(value, FunctionType) and any(held in own for held in _modules_held(value)):
                raise BadInput(
                    f"model: expected methods of its own, got a function that holds the model, or a part of it, in "
                    f"'{f'{name}.{attribute}'.lstrip('.')}': a copy would go on calling that. Write it into the class, "
                    "or bind it by types.MethodType."
                )


def _modules_held(function: FunctionType) -> Iterator[nn.Module]:
    """The modules that a function's closure and defaults hold; of a method there, whose it is."""
    held = [*(function.__defaults__ or ())]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a cell that holds nothing yet
            held.append(cell.cell_contents)
    owners = (value.__self__ if isinstance(value, MethodType) else value for value in held)
    yield from (owner for owner in owners if isinstance(owner, nn.Module))


def _quantised(model: nn.Module) -> str:
    """What shows that a model is quantised: a module's class or a weight's number format; empty where nothing does."""
    for name, module in model.named_modules():
        kind = type(module)
        if ".quantized" in kind.__module__:
            return f"{module._get_name()} at '{name}'"
    for name, value in model.named_parameters():
        held = type(value.data) if not is_lazy(value) else Tensor
        if not value.is_floating_point() or value.dtype.itemsize == 1 or "quant" in held.__name__.lower():
            return f"{name} in {str(value.dtype).removeprefix('torch.')}"
    for name, buffer in model.named_buffers():
        if buffer.is_quantized or name.rsplit(".", 1)[-1] in ("qweight", "weight_packed"):
            return f"{name} in {str(buffer.dtype).removeprefix('torch.')}"
    return ""


def check_finite(model: nn.Module) -> None:
    """BadInput where a weight is NaN or infinite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(f"model: expected finite weights, got NaN or infinity in '{name}'. Load a sound checkpoint.")
