"""Weights drawn anew, as the layers of a model, or the model around them, start."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from unrecall.errors import NotSupported
from unrecall.training.randomness import draw_seed, own_randomness

LayerInit = Callable[[nn.Module], None]
"""Starts a layer, in place, as the model around it says."""


def reinitialise(model: nn.Module, generator: torch.Generator, parts: Iterable[nn.Module] | None = None) -> None:
    """Draws fresh weights, in place, for every layer of a model, or of some of its parts.

    A layer starts by its own `reset_parameters`, or, inside a Transformers model, by that model; what that model says
    nothing of, as CLIP's scale, stays. Raises NotSupported for a layer with parameters that have no such start, or of
    which it leaves some as they are; they then hold nothing of use.
    """
    with own_randomness(draw_seed(generator)):
        for module in [model] if parts is None else parts:
            start = _start_around(module, model)
            starting = filter(_is_of_transformers, module.modules()) if start is None else [module]
            startable = {layer for part in starting for layer in part.modules()}
            own = [layer for layer in module.modules() if not _is_transformers_own(layer) and _parameters(layer)]
            for layer in own:
                for value in _parameters(layer):
                    nn.init.constant_(value, torch.nan)  # so that what no start writes is seen
            for layer in module.modules():
                _reset(layer, known=layer in startable)
            for value in module.parameters():
                vars(value).pop("_is_hf_initialized", None)
            _start_from_within(module, start)
            for layer in own:
                if any(bool(value.isnan().any()) for value in _parameters(layer)):
                    raise _no_start(layer, "a layer some of whose weights nothing starts")


def _reset(layer: nn.Module, *, known: bool) -> None:
    """Starts a layer by itself, where it knows how; `known`: whether the model around it does."""
    # PyTorch's attention has it under another name.
    reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
    if callable(reset):
        reset()
    elif _parameters(layer) and not known:
        raise _no_start(layer, "a layer without")
    elif _is_transformers_own(layer) and type(layer).__name__.endswith("Norm"):
        # Transformers' norms have no reset_parameters; most start at gain one, and the model says so of the others.
        for name, value in layer.named_parameters(recurse=False):
            nn.init.constant_(value, float(name == "weight"))


def _parameters(layer: nn.Module) -> list[nn.Parameter]:
    """The parameters of real numbers that a layer holds itself."""
    return [value for value in layer.parameters(recurse=False) if value.is_floating_point()]


def _is_transformers_own(layer: nn.Module) -> bool:
    """Whether a layer is Transformers' own."""
    return type(layer).__module__.startswith("transformers.")


def _no_start(layer: nn.Module, instead: str) -> NotSupported:
    return NotSupported(
        f"reinitialise: expected {type(layer).__name__} to have reset_parameters, got {instead}. Give the module that "
        "method, or retrain through a Scenario with build."
    )


def _is_of_transformers(module: nn.Module) -> bool:
    """Whether it is a Transformers model, which starts each of its layers by `_init_weights(layer)`."""
    return any(kind.__name__ == "PreTrainedModel" for kind in type(module).__mro__)


def _start_around(module: nn.Module, model: nn.Module) -> LayerInit | None:
    """The start of the closest Transformers model around a part of a model; None where there is none."""
    around = [inner for inner in filter(_is_of_transformers, model.modules()) if module in set(inner.modules())]
    return around[-1]._init_weights if around else None  # type: ignore[return-value]


def _start_from_within(module: nn.Module, start: LayerInit | None) -> None:
    """Inner layers first, for an outer one may know better how its own start; each by the model closest around it."""
    if _is_of_transformers(module):
        start = module._init_weights  # type: ignore[assignment]
    for child in module.children():
        _start_from_within(child, start)
    if start is not None:
        start(module)
