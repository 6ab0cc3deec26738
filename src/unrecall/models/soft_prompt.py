"""Vectors in front of all that a language model reads, in the place of tokens; the model's weights are held."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.errors import NotSupported


class SoftPrompted(nn.Module):
    """A language model that reads `vectors` `[tokens, d]` before each text, and answers as if they weren't there.

    The model is a part of it and stays as it is. Logits are those of the text's own positions, and the context is so
    many tokens shorter.
    """

    def __init__(self, model: nn.Module, vectors: Tensor) -> None:
        super().__init__()
        self.model, self.vectors = model, nn.Parameter(vectors)
        self.config = copy.copy(getattr(model, "config", None))
        context = getattr(self.config, "max_position_embeddings", None)
        if context is not None:
            self.config.max_position_embeddings = context - len(vectors)  # type: ignore[union-attr]

    def get_output_embeddings(self) -> Any:
        """The model's own head."""
        return self.model.get_output_embeddings()  # type: ignore[operator]

    def forward(self, input_ids: Tensor, **named: Any) -> Any:
        """The model's output on the vectors and the text; nothing of the vectors' own positions enters the head."""
        count = len(self.vectors)

        def cut(_: nn.Module, entering: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (entering[0][:, count:], *entering[1:])

        with self.get_output_embeddings().register_forward_pre_hook(cut, prepend=True):
            return self.model(inputs_embeds=self._before(input_ids), **named)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **named: Any) -> Tensor:
        """The text, and what the model writes after the vectors and the text."""
        ones = attention_mask.new_ones(len(input_ids), len(self.vectors))
        mask = torch.cat([ones, attention_mask], 1)
        model: Any = self.model
        written = model.generate(inputs_embeds=self._before(input_ids), attention_mask=mask, **named)
        return torch.cat([input_ids, written], 1)

    def _before(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = embeddings_of(self.model)(input_ids)
        return torch.cat([self.vectors.to(embedded).expand(len(input_ids), -1, -1), embedded], 1)


def embeddings_of(model: nn.Module) -> nn.Module:
    """The layer that turns tokens into vectors; NotSupported where there is none to be had."""
    get = getattr(model, "get_input_embeddings", None)
    layer = get() if callable(get) else None
    if not isinstance(layer, nn.Module) or not isinstance(getattr(layer, "weight", None), Tensor):
        name = type(model).__name__
        raise NotSupported(
            f"soft prompt: expected a Transformers model with input embeddings, got {name}. Leave it out."
        )
    return layer
