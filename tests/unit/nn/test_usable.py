"""Models whose copies would go on calling them are refused; others with functions of their own aren't."""

import copy
import types

import pytest
import torch
import torch.nn.functional as F
from accelerate import dispatch_model
from torch import Tensor, nn

from tests.worlds import network
from unrecall.errors import BadInput
from unrecall.nn.usable import check_model


def scaled(model: nn.Module, x: Tensor) -> Tensor:
    return 2 * type(model).forward(model, x)


def test_a_model_that_accelerate_spread_is_refused() -> None:
    model = dispatch_model(network(), {"": "cpu"}, force_hooks=True)
    with pytest.raises(BadInput, match=r"expected one on one device.*Load it without device_map"):
        check_model(model)


def test_of_a_quantised_model_that_is_said_first() -> None:
    """Quantised ones carry Accelerate's mark on one device too."""
    model = network()
    model[-1].register_buffer("qweight", torch.zeros(2, dtype=torch.int32))
    with pytest.raises(BadInput, match="got quantised ones"):
        check_model(dispatch_model(model, {"": "cpu"}, force_hooks=True))


def test_a_copy_that_would_call_the_model_is_refused() -> None:
    model = network()
    forward = model.forward
    model.forward = lambda x: forward(x) + 1  # type: ignore[method-assign]
    copied = copy.deepcopy(model)
    nn.init.zeros_(copied[-1].bias)
    nn.init.zeros_(copied[-1].weight)
    assert bool(copied.eval()(torch.rand(1, 1, 4, 4)).ne(1).any()), "the copy's own answer would be 1"
    with pytest.raises(BadInput, match=r"got a function that holds the model, or a part of it, in 'forward'"):
        check_model(model)


def test_a_function_inside_is_named_by_its_place() -> None:
    model = network()
    model[2].called = lambda x, head=model[-1]: head(x)  # type: ignore[assignment]
    with pytest.raises(BadInput, match=r"in '2\.called'"):
        check_model(model)


def test_a_model_that_was_compiled_is_fine() -> None:
    """PyTorch leaves what it compiled out of copies, or makes it anew for them."""
    inputs, in_place = torch.rand(2, 1, 4, 4), network()
    in_place.compile(backend="eager")
    whole = torch.compile(network(), backend="eager")
    for model in (in_place, whole):
        model(inputs)
        check_model(model)


def test_functions_that_hold_nothing_of_it_and_bound_methods_are_fine() -> None:
    model = network()
    teacher = network(seed=1)
    model[2].forward = F.gelu  # type: ignore[assignment]
    model[2].beside = lambda x: 2 * teacher(x)  # type: ignore[assignment]
    model.forward = types.MethodType(scaled, model)  # type: ignore[method-assign]
    check_model(model)
    copied = copy.deepcopy(model)
    nn.init.zeros_(copied[-1].bias)
    nn.init.zeros_(copied[-1].weight)
    assert bool(copied.eval()(torch.rand(1, 1, 4, 4)).eq(0).all())


class Single(nn.Linear):
    """A module of which there is one, whatever is copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> "Single":
        return self


def test_a_model_that_shares_modules_with_its_copies_is_refused() -> None:
    with pytest.raises(BadInput, match=r"share modules with it \(1\): training one would change the other"):
        check_model(nn.Sequential(nn.Linear(2, 2), Single(2, 2)))
    with pytest.raises(BadInput, match="the model itself"):
        check_model(Single(2, 2))
