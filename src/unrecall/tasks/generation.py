"""What a language model writes after openings, many at once: of each what it writes, and how long, is its own."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NAME = "generation_config"
"""What a Transformers model calls them."""


class Opening(NamedTuple):
    """The tokens that a model is given, and how many it may write after them."""

    tokens: list[int]
    most: int


def groups(openings: Sequence[Opening], many: int, context: int | None) -> Iterator[list[Opening]]:
    """The openings in order, at most `many` at once, and no more than leave room for all that each may write."""
    group: list[Opening] = []
    for opening in openings:
        larger = [*group, opening]
        needed = max(len(each.tokens) for each in larger) + max(each.most for each in larger)
        if group and (len(group) == many or (context is not None and needed > context)):
            yield group
            larger = [opening]
        group = larger
    if group:
        yield group


def written(
    model: nn.Module, group: Sequence[Opening], padding: int, stops: Sequence[int], decoding: Mapping[str, Any]
) -> list[Tensor]:
    """The tokens that the model writes after each opening; openings are padded on the left, where nothing is read."""
    device = next(model.parameters()).device
    width = max(len(opening.tokens) for opening in group)
    missing = [width - len(opening.tokens) for opening in group]
    rows = [[padding] * n + opening.tokens for n, opening in zip(missing, group, strict=True)]
    mask = [[0] * n + [1] * (width - n) for n in missing]
    settings: Any = importlib.import_module("transformers").GenerationConfig
    chosen = settings(
        **decoding,
        num_beams=1,
        max_new_tokens=max(opening.most for opening in group),
        pad_token_id=padding,
        eos_token_id=list(stops) or None,
    )
    with without_own_settings(model, settings()):
        tokens = model.generate(  # type: ignore[operator]
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=chosen,
        )
    return [row[width : width + opening.most] for row, opening in zip(tokens, group, strict=True)]


@contextmanager
def without_own_settings(model: nn.Module, plain: Any) -> Iterator[None]:
    """Puts `plain` in the place of a checkpoint's own generation settings: penalties would change what is asked.

    Transformers takes from them whatever a call leaves open.
    """
    own = [(vars(part), vars(part)[NAME]) for part in model.modules() if NAME in vars(part)]
    try:
        for attributes, _ in own:
            attributes[NAME] = plain
        yield
    finally:
        for attributes, settings in own:
            attributes[NAME] = settings
