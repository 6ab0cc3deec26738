"""What an interaction and what a recommender makes of it must be, and what to do about those that are not."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from unrecall.errors import BadInput, out_of_memory

LARGEST = 2**31
"""No user or item has a larger number."""


def is_index(value: object) -> bool:
    """Whether something numbers a user or an item."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < LARGEST


def check_interaction(example: Any, where: str, items: int, *, sequential: bool) -> None:
    """BadInput unless an example is a mapping with user and item, and in sessions a history, all by number."""
    keys = ("user", "item", "history") if sequential else ("user", "item")
    if not isinstance(example, Mapping) or not all(key in example for key in keys):
        actual = ", ".join(map(str, example)) if isinstance(example, Mapping) else type(example).__name__
        raise BadInput(f"{where}: expected a mapping with {', '.join(keys)}, got {actual}. Name its parts so.")
    if not is_index(example["user"]):
        raise BadInput(
            f"{where}: expected user to be a whole number from 0 on, got {example['user']!r:.40}. Number the users."
        )
    history = example["history"] if sequential else ()
    if not isinstance(history, list | tuple):
        raise BadInput(f"{where}: expected history to be a list of items, got {history!r:.40}. Give a list.")
    for number in (example["item"], *history):
        if not is_index(number) or number >= items:
            raise BadInput(
                f"{where}: expected an item in 0..{items - 1} (the catalogue), got {number!r:.40}. Number them from 0, "
                "or give Recommendation(items=...) the size of the catalogue."
            )


def check_outputs(answer: Callable[[], object], last: int, shape: tuple[int, int]) -> None:
    """BadInput where a model can't answer for users up to `last`, or gives no logits of this shape."""
    try:
        output = answer()
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"model: expected one that answers for each user up to {last}, got: {line}. Number the users from 0, and "
            "build the model for all of them; with Recommendation(longest=...) it is asked by histories instead."
        ) from error
    if not isinstance(output, Tensor) or tuple(output.shape) != shape:
        actual = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BadInput(
            f"model: expected logits {shape}, one for each item of the catalogue, got {actual}. Give "
            "Recommendation(items=...) the size of the model's catalogue."
        )
    if bool(output.isnan().any()):
        raise BadInput("model: expected finite outputs, got NaN though weights are finite. Look into its forward.")
