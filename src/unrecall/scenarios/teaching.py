"""The language model that a data set is taught to: the user's own, or a small Llama made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

from unrecall.scenarios.base import adamw
from unrecall.scenarios.language import Precision, load, small_llama, trained_tokenizer
from unrecall.tasks.pretrained import checkpoint
from unrecall.tasks.text_files import Text
from unrecall.training.loop import Fit
from unrecall.training.session import Session

CONTEXT = 512


class Learner(NamedTuple):
    """A tokenizer, what builds the model before it is taught, how it is taught, and what it is, for people."""

    tokenizer: Any
    build: Callable[[int, Session], nn.Module]
    recipe: Fit
    what: str


def learner(
    model: str,
    texts: Sequence[Text],
    *,
    width: int,
    depth: int,
    words: int,
    epochs: int,
    lr: float | None,
    precision: Precision = "float32",
    checkpointing: bool = False,
) -> Learner:
    """`model` (AdamW, lr 1e-5, 5 epochs) or, where it is empty, an untrained Llama (lr 5e-3, cosine, 20 epochs).

    The Llama's tokenizer is trained on `texts`. `epochs` 0 and `lr` None stand for these defaults.
    """

    def eased(built: nn.Module) -> nn.Module:
        if checkpointing:
            checkpoint(built)
        return built

    recipe = adamw(lr or (1e-5 if model else 5e-3), epochs or (5 if model else 20), 32, 0.01)
    if model:
        tokenizer = load(model, precision).tokenizer
        return Learner(tokenizer, lambda _, __: eased(load(model, precision).model), recipe, model)
    tokenizer = trained_tokenizer((f"{text['prompt']} {text['answer']}" for text in texts), words)
    what = f"a Llama of width {width} with {depth} layers, trained here"
    return Learner(tokenizer, lambda _, __: eased(small_llama(tokenizer, width, depth, CONTEXT)), recipe, what)
