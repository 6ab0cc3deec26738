"""The language model that a data set is taught to: the user's own, or a small Llama made here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from unrecall.errors import BadInput
from unrecall.scenarios.base import Builder, adamw
from unrecall.scenarios.language import Precision, load, small_llama, trained_tokenizer
from unrecall.spec.parameters import Count, Index
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


@dataclass(frozen=True)
class TaughtTexts(Builder):
    """A case of texts in a folder, which a language model is taught.

    `data`: folder of the files. `model`: folder or hub id of a model to fine-tune; left out, a Llama of `width` and
    `depth` with a tokenizer of `words` is trained from nothing. `precision`, `checkpointing`: of the model.
    `references`: retrained models.
    """

    data: str = ""
    model: str = ""
    width: Count = 96
    depth: Count = 4
    words: Count = 2048
    precision: Precision = "float32"
    checkpointing: bool = False
    references: Index = 3

    def folder(self, owner: str) -> Path:
        """The folder of the files; BadInput where there is none. `owner`: the data set, for people."""
        if not self.data or not Path(self.data).is_dir():
            raise BadInput(f"{owner.lower()}: expected data=FOLDER with {owner}'s files, got '{self.data}'.")
        return Path(self.data)

    def learner(self, texts: Sequence[Text], epochs: int = 0, lr: float | None = None) -> Learner:
        """`model` (AdamW, lr 1e-5, 5 epochs) or, where it is empty, an untrained Llama (lr 5e-3, cosine, 20 epochs).

        The Llama's tokenizer is trained on `texts`. `epochs` 0 and `lr` None stand for these defaults.
        """
        recipe = adamw(lr or (1e-5 if self.model else 5e-3), epochs or (5 if self.model else 20), 32, 0.01)
        if self.model:
            tokenizer, what = load(self.model, self.precision).tokenizer, self.model
        else:
            tokenizer = trained_tokenizer((f"{text['prompt']} {text['answer']}" for text in texts), self.words)
            what = f"a Llama of width {self.width} with {self.depth} layers, trained here"
        return Learner(tokenizer, lambda _, __: self._untaught(tokenizer), recipe, what)

    def _untaught(self, tokenizer: Any) -> nn.Module:
        """The model before it is taught, with gradient checkpointing where it is asked for."""
        if self.model:
            model = load(self.model, self.precision).model
        else:
            model = small_llama(tokenizer, self.width, self.depth, CONTEXT)
        if self.checkpointing:
            checkpoint(model)
        return model
