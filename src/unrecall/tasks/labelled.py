"""What a classifier's examples and outputs must be, and what to do about those that are something else."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from unrecall.data.examples import Examples, Selection
from unrecall.errors import BadInput

LARGEST = 2**31
"""No label is larger."""
LABELS = ("label", "labels", "target", "targets", "class", "y", "fine_label")
INPUTS = ("image", "img", "pixel_values", "input", "inputs", "x", "features")
"""What the label and the input are often called in examples that are dictionaries."""
OTHER_TASKS = {"caption": "Contrastive(tokenizer)", "prompt": "CausalLM(tokenizer)", "messages": "CausalLM(tokenizer)"}
"""What tasks examples with such a key are for."""


class Example(NamedTuple):
    """An example as a classifier reads it."""

    input: Tensor
    label: int


def example(item: Any, where: str) -> Example:
    """An item as input and label; BadInput says which one is neither, and what to do."""
    try:
        value, label = item
        if isinstance(label, str | bytes) or isinstance(item, Mapping):
            raise TypeError(label)
        tensor, number = torch.as_tensor(value, dtype=torch.float32), float(label)
        if abs(number) > LARGEST:
            raise BadInput(
                f"{where}: expected a label that numbers a class, got {label!r:.20}. Number the classes from 0, in the "
                "order of the outputs."
            )
        if int(number) == number:
            return Example(tensor, int(number))
    except (OverflowError, TypeError, ValueError, RuntimeError):
        pass
    raise BadInput(
        f"{where}: expected (input, label) with a tensor and a whole number, got {_brief(item)}. {_advice(item)}"
    )


def _brief(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"{type(item).__name__} with {', '.join(map(str, item))}"[:200]
    if isinstance(item, tuple | list):
        return "(" + ", ".join(type(part).__name__ for part in item) + ")"
    return type(item).__name__


def _advice(item: Any) -> str:
    """What to do about an item that is no pair of an input and the number of a class."""
    if isinstance(item, Mapping) and OTHER_TASKS.keys() & item.keys():
        task = next(task for key, task in OTHER_TASKS.items() if key in item)
        return f"Such examples have a task of their own: ur.tasks.{task}."
    if isinstance(item, Mapping):
        label = next((key for key in LABELS if key in item), "LABEL")
        value = next((key for key in INPUTS if key in item), "INPUT")
        return _hook(f"(item[{value!r}], item[{label!r}])")
    if isinstance(item, tuple | list) and len(item) > 2:
        return _hook(f"(item[0], item[{len(item) - 1}])") + " Two inputs: docs/own-scenario.md."
    if isinstance(item, tuple | list) and len(item) == 2:
        return _advice_on_pair(*item)
    if isinstance(item, Integral):
        return "Examples are picked by their numbers with forget, retain = ur.split(data, indices)."
    return "Wrap the data set in one whose [i] gives such pairs."


def _advice_on_pair(value: Any, label: Any) -> str:
    if isinstance(label, str | bytes):
        return "Number the classes: " + _hook("(item[0], names.index(item[1]))", "say")
    if np.asarray(label).size > 1:
        return (
            "Labels of several numbers are not supported: multi-label, regression and segmentation have no one class a "
            "row. One-hot labels: " + _hook("(item[0], int(item[1].argmax()))", "say")
        )
    if isinstance(label, float | np.floating | Tensor):
        return "Labels that are no whole numbers are not supported: a regression has no classes."
    return _advice_on_input(value)


def _advice_on_input(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        return _hook(f"(item[0][{next(iter(value))!r}], item[1])")
    if isinstance(value, Mapping) or (isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value)):
        return "Inputs of several tensors are joined by read and taken apart by forward: docs/own-scenario.md."
    if hasattr(value, "convert"):
        return (
            "Make the picture a tensor, by the data set's transform or in Classification(read=...): "
            "torchvision.transforms.functional.to_tensor(picture)."
        )
    return "Wrap the data set in one whose [i] gives such pairs."


def _hook(result: str, say: str = "Say") -> str:
    return f"{say} how an item is read: Classification(read=lambda item: {result})."


def check_logits(output: object, count: int, when: str = "") -> None:
    """BadInput unless a model's output is one row of real numbers for each of `count` inputs."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != count:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BadInput(
            f"model: expected logits [examples, classes]{when}, got {shape}. Say how they are had: "
            f"Classification(forward=lambda model, inputs: {_place_of_logits(output)})."
        )
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise BadInput(
            f"model: expected logits in floats{when}, got {kind}. Wrap the model in one that returns floats."
        )
    if output.shape[1] < 2:
        raise BadInput(
            f"model: expected a logit for each of two classes or more{when}, got one output. Regression, and one "
            "sigmoid for two classes, are not supported: give the model two outputs."
        )


def _place_of_logits(output: object) -> str:
    """How a model's logits are likely to be had, as Python says it."""
    if isinstance(output, Mapping) and output:
        return f"model(inputs)[{'logits' if 'logits' in output else next(iter(output))!r}]"
    if hasattr(output, "logits"):
        return "model(inputs).logits"
    return "model(inputs)[0]" if isinstance(output, tuple | list) else "..."


def check_no_probabilities(outputs: Tensor) -> None:
    """BadInput where rows show that they are probabilities, or unit vectors, and no logits."""
    if total := _sum_of_probabilities(outputs):
        raise BadInput(
            f"model: expected logits, got probabilities (rows sum to {total:.3g}). Return what enters the softmax: "
            "wrap the model, or leave its last layer out."
        )
    if len(outputs) > 1 and bool((outputs.norm(dim=1) - 1).abs().max() < 5e-3):
        raise BadInput(
            "model: expected logits, got embeddings (each row has length 1), which have no classes. Put the gallery "
            "behind it as a linear layer, a row for each person: docs/faces.md."
        )


def _sum_of_probabilities(outputs: Tensor) -> float:
    """What rows of probabilities sum to, which may be times a number or plus one; 0 where outputs are none."""
    sums = outputs.sum(1)
    if not bool((outputs >= 0).all()):
        return 0.0
    if bool((sums - 1).abs().max() < 5e-3):  # half precision sums so
        return 1.0
    differ = bool((outputs - outputs[0]).abs().max() > 1e-3 * sums[0])
    same = bool((sums - sums[0]).abs().max() < 1e-3 * sums[0])
    return float(sums[0]) if len(outputs) >= 4 and differ and same else 0.0


def check_class_numbers(sets: Mapping[str, Examples]) -> None:
    """BadInput where two sets number the same class otherwise, as folders of pictures of unlike classes do.

    Asked of data sets that say it (`class_to_idx`, as torchvision's ImageFolder), or are parts of such.
    """
    named: dict[str, tuple[str, int]] = {}
    for split, examples in sets.items():
        for name, number in _class_numbers(examples).items():
            first, other = named.setdefault(str(name), (split, number))
            if other != number:
                raise BadInput(
                    f"{split}: expected class '{name}' to be number {other}, as in {first}, got {number}. Number the "
                    "classes of all sets alike: make one data set, and take parts of it by ur.split."
                )


def _class_numbers(examples: Any) -> Mapping[str, int]:
    """The numbers of the classes, by name, as the data set behind the examples has them; empty where none says so."""
    while isinstance(examples, Selection | Subset):  # what else is made of a data set may number its classes anew
        examples = examples.whole if isinstance(examples, Selection) else examples.dataset
    own = getattr(examples, "class_to_idx", None)
    return own if isinstance(own, Mapping) and getattr(examples, "target_transform", None) is None else {}
