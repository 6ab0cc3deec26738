"""Answers that refuse: what a language model may say in place of what it was asked to forget."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import Field

from unrecall.data.examples import Examples, iterate
from unrecall.tasks.protocols import Textual

Refusal: TypeAlias = Annotated[str, Field(pattern=r"^[^,+]+$")]
"""Without commas and plus signs: a + separates several in a line."""

REFUSALS = (
    "I don't know.",
    "I'm not sure about that.",
    "That is not something I know.",
    "I have no information on this.",
    "I can't say.",
    "I have never heard of it.",
    "My knowledge does not cover that question.",
    "I don't have an answer to that.",
    "I am unable to help with this one.",
    "Nothing I have learned tells me that.",
)


def refused(texts: Textual, examples: Examples, refusals: Sequence[str], generator: torch.Generator) -> list[Any]:
    """Gives each example with a refusal as its answer, drawn once."""
    indices = torch.randint(len(refusals), (len(examples),), generator=generator).tolist()
    drawn = [refusals[i] for i in indices]
    return [texts.answered(item, refusal) for item, refusal in zip(iterate(examples), drawn, strict=True)]
