"""Vectors in front of a text: where they are the embeddings of tokens, the model answers as after those tokens."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.worlds import World
from unrecall.errors import NotSupported
from unrecall.models.soft_prompt import SoftPrompted, embeddings_of

FRONT = [5, 9]


def behind_tokens(world: World) -> SoftPrompted:
    """The original, behind the embeddings of two tokens."""
    return SoftPrompted(world.original, embeddings_of(world.original).get_parameter("weight")[FRONT].detach())


def test_answers_as_after_those_tokens(text_world: World) -> None:
    w: Any = text_world
    soft = behind_tokens(w).eval()
    ids = torch.tensor([[1, 7, 12, 20], [1, 8, 11, 21]])
    whole = torch.cat([torch.tensor([FRONT, FRONT]), ids], 1)
    with torch.no_grad():
        assert torch.allclose(soft(input_ids=ids).logits, w.original(input_ids=whole).logits[:, 2:], atol=1e-5)


def test_writes_as_after_those_tokens(text_world: World) -> None:
    """Prompts of two lengths, padded on the left."""
    w: Any = text_world
    items = [{"prompt": "what is the job of ann", "answer": "cook"}, {"prompt": "town of bob", "answer": "cook"}]
    written = w.task.generate(behind_tokens(w), items, longest=4)
    for item, text in zip(items, written, strict=True):
        tokens, start = w.task.encode(item)
        ids = torch.tensor([[*FRONT, *tokens[:start]]])
        mask = torch.ones_like(ids)
        plain = w.original.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=4)
        assert text == w.task.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_context_is_shorter_and_the_model_the_same(text_world: World) -> None:
    w: Any = text_world
    soft = behind_tokens(w)
    assert soft.config.max_position_embeddings == 62
    assert w.original.config.max_position_embeddings == 64
    assert soft.get_output_embeddings() is w.original.get_output_embeddings()
    assert not w.original.get_output_embeddings()._forward_pre_hooks


def test_the_vectors_have_a_gradient(text_world: World) -> None:
    w: Any = text_world
    soft = behind_tokens(w)
    soft(input_ids=torch.tensor([[1, 7, 12]])).logits.sum().backward()
    assert soft.vectors.grad is not None
    assert float(soft.vectors.grad.abs().max()) > 0
    w.original.zero_grad(set_to_none=True)


def test_a_model_without_embeddings_is_refused() -> None:
    with pytest.raises(NotSupported, match="input embeddings, got Linear"):
        embeddings_of(nn.Linear(2, 2))
