"""Classification by a Transformers model that takes texts, as its own tokenizer reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.nn.hooks import mode
from unrecall.nn.usable import check_finite
from unrecall.record.schema import Exhibit
from unrecall.tasks.classification import REFUSES, Classification
from unrecall.tasks.input_difficulty import Labelled
from unrecall.tasks.pretrained import check_tokenizer, save
from unrecall.tasks.tokenised import vocabulary_key

COUNTERS = 512
"""Into how many counts the tokens of a text are gathered, where it is told how hard it is."""
PADDING = 3
"""Tokens of padding behind which a model is asked whether these change anything."""
COMPARED = 32
"""Texts of which it is seen whether two tokenizers read them alike."""


@dataclass(frozen=True, repr=False)
class TransformersTexts(Classification):
    """Examples are `(tokens, label)`: the numbers of a text's tokens, whole numbers; batches are padded on the right.

    `tokenizer`: of Transformers, with a padding token. `prepare` makes tokens of texts. Nothing perturbs them, for they
    are no continuous inputs. `export` writes a folder that Transformers reads.
    """

    ragged: ClassVar[bool] = True

    continuous: bool | None = False
    tokenizer: Any = None

    def __post_init__(self) -> None:
        """BadInput for a tokenizer that can't pad. Bounds that are left out are those of its numbers."""
        if getattr(self.tokenizer, "pad_token_id", None) is None:
            raise BadInput(
                "TransformersTexts: expected a tokenizer with a padding token, got none. Set tokenizer.pad_token and "
                "model.config.pad_token_id as the model was trained, and save both."
            )
        if self.bounds == Classification.bounds:
            object.__setattr__(self, "bounds", (0.0, float(len(self.tokenizer) - 1)))
        super().__post_init__()

    def __repr__(self) -> str:
        """What Classification says, and what the tokenizer makes of texts."""
        return f"{super().__repr__()} {vocabulary_key(self.tokenizer)} {self.tokenizer.pad_token_id}"

    def prepare(self, texts: Sequence[str], longest: int | None = None) -> list[Tensor]:
        """The tokens [length] of each text; with `longest` it is cut to so many of them."""
        how = {"verbose": False} if longest is None else {"truncation": True, "max_length": longest}
        lists = self.tokenizer(list(texts), **how)["input_ids"]
        return [torch.tensor(tokens, dtype=torch.int32) for tokens in lists]

    def collate(self, items: Sequence[Any]) -> Batch:
        """`inputs` [examples, length of the longest] float32 and `targets` [examples] int64."""
        examples = [self._example(item) for item in items]
        rows = [torch.as_tensor(tokens) for tokens, _ in examples]
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        return {"inputs": inputs.float(), "targets": torch.tensor([int(label) for _, label in examples])}

    def check(self, model: nn.Module, request: Request) -> None:
        """Also BadInput where padding changes what the model says of a text."""
        check_finite(model)  # what isn't, padding may reach alone
        self._check_padding(model, self._read(request.forget[0], "forget[0]"))
        super().check(model, request)

    def _check_padding(self, model: nn.Module, item: Any) -> None:
        inputs = self.collate([item])["inputs"].to(next(model.parameters()).device)
        padded = F.pad(inputs, (0, PADDING), value=self.tokenizer.pad_token_id)
        try:
            with mode(model, training=False), torch.no_grad():
                alone, beside = (self._logits(model, rows).float() for rows in (inputs, padded))
        except REFUSES:
            return  # Classification's own check says what the model doesn't take
        if alone.isfinite().all() and not torch.allclose(alone, beside, rtol=1e-2, atol=1e-2):
            own = getattr(getattr(model, "config", None), "pad_token_id", None)
            raise BadInput(
                f"model: expected padding to change nothing of what it says of a text, got other logits beside "
                f"{PADDING} tokens of it: the tokenizer pads with {self.tokenizer.pad_token_id}, and the model's "
                f"config.pad_token_id is {own}. Set both to what the model was trained with, and save them."
            )

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        tokens = inputs.long()
        if self.forward is not None:
            return self.forward(model, tokens)
        mask = (tokens != self.tokenizer.pad_token_id).long()
        logits: Tensor = model(input_ids=tokens, attention_mask=mask).logits
        return logits

    def _ending(self, linears: list[tuple[nn.Linear, Tensor, Tensor]], logits: Tensor) -> tuple[nn.Linear, Tensor]:
        """Also a layer that is applied to every token, of which the model takes the last one, as GPT-2's has it."""
        for module, entered, left in linears:
            if left.ndim == 3 and (len(left), left.shape[2]) == logits.shape:
                place = (left == logits[:, None]).all(2).int().argmax(1)
                return module, entered[torch.arange(len(place)), place]
        return super()._ending(linears, logits)

    def _labelled(self, examples: Examples) -> Labelled:
        """How often tokens stand in each text, gathered into `COUNTERS`, and its class."""
        batch = self.collate([examples[i] for i in range(len(examples))])
        tokens = batch["inputs"].long()
        counts = torch.zeros(len(tokens), COUNTERS)
        counts.scatter_add_(1, tokens % COUNTERS, (tokens != self.tokenizer.pad_token_id).float())
        return Labelled(counts / counts.sum(1, keepdim=True).clamp_min(1), batch["targets"])

    def text(self, item: Any) -> str:
        """An example's text, as its tokens have it."""
        return str(self.tokenizer.decode(self._example(item)[0].long(), skip_special_tokens=True))

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """The text, and its class."""
        label = self.label(item)
        name = self.classes[label] if label < len(self.classes) else f"class {label}"
        return Exhibit(kind="text", content=self.text(item), caption=f"{name}: {caption}")

    def raw(self, item: Any) -> bytes:
        """The text."""
        return self.text(item).encode()

    def export(self, model: nn.Module, folder: Path) -> None:
        """Configuration, safetensors and tokenizer, as `from_pretrained` reads them.

        Of other models nothing is written: their weights are all there is.
        """
        if hasattr(model, "save_pretrained"):
            save(model, self.tokenizer, folder)

    def check_folder(self, folder: Path, examples: Examples) -> None:
        """BadInput where the folder's own tokenizer reads words or some of these texts otherwise."""
        check_tokenizer(self.tokenizer, folder, [self.text(examples[i]) for i in range(min(COMPARED, len(examples)))])
