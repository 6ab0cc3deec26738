"""Pictures with captions as tensors: what a contrastive task knows without a model."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unrecall.data.examples import Batch, digest
from unrecall.errors import BadInput
from unrecall.record.schema import Exhibit
from unrecall.tasks.pictures import coarse, png

UNKNOWN = -1
"""The label of a pair whose class nobody named."""


@dataclass(frozen=True, repr=False)
class Pairs:
    """Examples are mappings with `image` `[channels, height, width]` within `bounds`, `caption`, and perhaps `label`.

    `label` is an index into `classes`. A batch holds `images`, `tokens` and `mask` `[examples, length]`, padded on the
    right, and `labels`.

    `tokenizer`: of the model; Transformers' or open_clip's. `classes`: names of the classes, for zero-shot
    classification. `prompt`: what a class's name becomes, with `{}` for the name. `mean`, `std`: of the channels, which
    the model wants subtracted and divided by; none where it does that itself. `longest`: captions are cut to so many
    tokens, as CLIP's are (77).
    """

    tokenizer: Any
    classes: tuple[str, ...] = ()
    prompt: str = "a picture of {}"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    longest: int = 77
    bounds: tuple[float, float] = (0.0, 1.0)
    known: dict[str, list[int]] = field(default_factory=dict, compare=False)
    """Captions already tokenised."""

    def __post_init__(self) -> None:
        if self.prompt.count("{}") != 1:
            raise BadInput(f"Contrastive: expected prompt to have one slot {{}} for the class, got '{self.prompt}'.")
        if len(self.mean) != len(self.std):
            raise BadInput(f"Contrastive: expected as many means as deviations, got {self.mean} and {self.std}.")

    def __repr__(self) -> str:
        text = f"{self.vocabulary}|{self.classes}|{self.prompt}|{self.mean}|{self.std}|{self.longest}|{self.bounds}"
        return f"{type(self).__name__}({hashlib.sha256(text.encode()).hexdigest()[:16]})"

    @cached_property
    def vocabulary(self) -> str:
        """sha256 of what the tokenizer does with its tokens; where it was last told to cut and pad is no part of it."""
        inner = getattr(self.tokenizer, "tokenizer", self.tokenizer)
        backend = getattr(inner, "backend_tokenizer", None)
        ends = [getattr(self.tokenizer, name, None) for name in ("pad_token_id", "context_length")]
        vocabulary: Any = getattr(inner, "encoder", None)
        if not isinstance(vocabulary, dict):
            vocabulary = self.encode("the quick brown fox, 0 to 9")
        if backend is not None:
            vocabulary = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        return hashlib.sha256(json.dumps([ends, vocabulary]).encode()).hexdigest()

    def encode(self, caption: str) -> list[int]:
        """A caption's tokens, its end among them even where it was cut; no padding."""
        if caption not in self.known:
            self.known[caption] = self._tokens(caption)
        return self.known[caption]

    def _tokens(self, caption: str) -> list[int]:
        if hasattr(self.tokenizer, "pad_token_id"):
            return list(self.tokenizer(caption, truncation=True, max_length=self.longest)["input_ids"])
        # open_clip's: a row of fixed length, zeros after the end.
        row = self.tokenizer([caption])[0].tolist()
        while len(row) > 1 and row[-1] == 0:
            row.pop()
        return [int(token) for token in row]

    def padded(self, encoded: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """`tokens` and `mask` `[n, length]`; as long as the longest, or as open_clip's models are all of them."""
        fixed = 0 if hasattr(self.tokenizer, "pad_token_id") else int(getattr(self.tokenizer, "context_length", 0) or 0)
        length = max(fixed, *(len(ids) for ids in encoded), 1)
        tokens = torch.full((len(encoded), length), self._padding)
        mask = torch.zeros(len(encoded), length, dtype=torch.long)
        for i, ids in enumerate(encoded):
            tokens[i, : len(ids)] = torch.tensor(ids)
            mask[i, : len(ids)] = 1
        return tokens, mask

    @property
    def _padding(self) -> int:
        return int(getattr(self.tokenizer, "pad_token_id", None) or 0)

    def parts(self, batch: Batch) -> Tensor:
        """Which tokens are the caption's own: no padding, and nothing that an empty caption has as well."""
        special = torch.tensor(self.encode(""), dtype=torch.long, device=batch["tokens"].device)
        return batch["mask"].bool() & ~torch.isin(batch["tokens"], special)

    def only(self, batch: Batch, parts: Tensor) -> Batch:
        """The same pairs, of their captions those parts alone that `parts` names; the tokens that stay close up."""
        left = batch["mask"].bool() & (parts | ~self.parts(batch))
        order = torch.argsort(left.int(), dim=1, descending=True, stable=True)
        mask = left.gather(1, order)
        tokens = batch["tokens"].gather(1, order).masked_fill(~mask, self._padding)
        return {**batch, "tokens": tokens, "mask": mask.long()}

    def collate(self, items: Sequence[Any]) -> Batch:
        """`images` float32, `tokens`, `mask`, `labels`, one entry a pair."""
        tokens, mask = self.padded([item.get("ids") or self.encode(item["caption"]) for item in items])
        images = torch.stack([torch.as_tensor(item["image"], dtype=torch.float32) for item in items])
        labels = torch.tensor([int(item.get("label", UNKNOWN)) for item in items])
        return {"images": images, "tokens": tokens, "mask": mask, "labels": labels}

    def content(self, item: Any) -> str:
        """sha256 of picture, label and caption, whatever the caption's white space and Unicode form."""
        caption = " ".join(unicodedata.normalize("NFKC", item["caption"]).split())
        return digest((torch.as_tensor(item["image"], dtype=torch.float32), caption, int(item.get("label", UNKNOWN))))

    def normalised(self, images: Tensor) -> Tensor:
        """The images with the channels' means subtracted, divided by their deviations; as they are without any."""
        if not self.mean:
            return images
        shape = (-1, 1, 1)
        return (images - images.new_tensor(self.mean).view(shape)) / images.new_tensor(self.std).view(shape)

    def inputs(self, batch: Batch) -> Tensor:
        """The pictures, within `bounds`."""
        return batch["images"]

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same captions with other pictures."""
        return {**batch, "images": inputs}

    def items(self, batch: Batch) -> list[Any]:
        """The pairs, their captions as tokens: `collate` takes those as well."""
        parts = zip(batch["images"], batch["tokens"], batch["mask"], batch["labels"].tolist(), strict=True)
        return [
            {"image": image, "ids": tokens[mask.bool()].tolist(), "label": label}
            for image, tokens, mask, label in parts
        ]

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """The picture over its caption."""
        content = png(torch.as_tensor(item["image"], dtype=torch.float32), self.bounds)
        return Exhibit(kind="picture", content=content, caption=f"{item['caption']}: {caption}")

    def raw(self, item: Any) -> bytes:
        """The picture in 256 steps between its bounds, then the caption in UTF-8."""
        image = torch.as_tensor(item["image"], dtype=torch.float32)
        return coarse(image, self.bounds).numpy().tobytes() + str(item["caption"]).encode()


def pair(item: Any, where: str) -> tuple[Tensor, str, int]:
    """An example's picture, caption and label; BadInput says what is missing from which one."""
    if not isinstance(item, Mapping):
        raise BadInput(f"{where}: expected a mapping with 'image' and 'caption', got {type(item).__name__}.")
    caption = item.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise BadInput(f"{where}: expected a caption, got {caption!r:.60}. Remove the pair, or give it one.")
    try:
        image = torch.as_tensor(item.get("image"), dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        image = torch.empty(0)
    if image.ndim != 3 or not image.numel():
        got = f"shape {tuple(image.shape)}" if image.numel() else type(item.get("image")).__name__
        raise BadInput(f"{where}: expected image to be a tensor [channels, height, width], got {got}.")
    label = item.get("label", UNKNOWN)
    if isinstance(label, bool) or not isinstance(label, int):
        raise BadInput(f"{where}: expected label to be a whole number, got {label!r:.60}.")
    return image, caption, label
