"""Pictures with captions, and the two towers that read them: what stands behind both tasks of image-text models."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import SPLITS, Request
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, Fields, NotSupported, at_least, check_fields, kind_of, out_of_memory
from unrecall.nn.hooks import mode
from unrecall.nn.usable import check_finite
from unrecall.record.schema import Exhibit
from unrecall.tasks import dual_encoder
from unrecall.tasks.base import Task, check_class_holdout, check_class_request
from unrecall.tasks.pictures import coarse, png
from unrecall.tasks.strings import plain, readable

UNKNOWN = -1
"""The label of a pair whose class nobody named."""


FIELDS: Fields = {
    "classes": (kind_of(tuple, list), "a tuple of names, empty where there are none"),
    "prompt": (kind_of(str), "text"),
    "mean": (kind_of(tuple, list), "a number for each channel, or an empty tuple"),
    "std": (kind_of(tuple, list), "a number for each channel, or an empty tuple"),
    "longest": (at_least(1), "a whole number from 1 on"),
}


@dataclass(frozen=True, repr=False)
class Pairs(Task):
    """Examples are mappings with `image` `[channels, height, width]` within `bounds`, `caption`, and perhaps `label`.

    `label` is an index into `classes`. A batch holds `images`, `tokens` and `mask` `[examples, length]`, padded on the
    right, and `labels`.

    `tokenizer`: of the model; Transformers' or open_clip's. `classes`: names of the classes, for zero-shot
    classification. `prompt`: what a class's name becomes, with `{}` for the name. `mean`, `std`: of the channels, which
    the model wants subtracted and divided by; none where it does that itself. `longest`: captions are cut to so many
    tokens, as CLIP's are (77). `processor`: of Transformers, by which pictures were resized and cropped, if any; it is
    exported with a model.
    """

    tokenizer: Any
    classes: tuple[str, ...] = ()
    prompt: str = "a picture of {}"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    longest: int = 77
    processor: Any = None
    bounds: tuple[float, float] = (0.0, 1.0)
    caption_tokens: dict[str, list[int]] = field(default_factory=dict, compare=False)
    """Captions already tokenised."""

    def __post_init__(self) -> None:
        check_fields("Contrastive", FIELDS, vars(self))
        if self.prompt.count("{}") != 1:
            raise BadInput(f"Contrastive: expected prompt to have one slot {{}} for the class, got '{self.prompt}'.")
        if len(self.mean) != len(self.std):
            raise BadInput(f"Contrastive: expected as many means as deviations, got {self.mean} and {self.std}.")

    def __repr__(self) -> str:
        text = f"{self.vocabulary}|{self.classes}|{self.prompt}|{self.mean}|{self.std}|{self.longest}|{self.bounds}"
        text += "" if self.processor is None else f"|{self.processor.to_json_string()}"
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
        if caption not in self.caption_tokens:
            self.caption_tokens[caption] = self._tokens(caption)
        return self.caption_tokens[caption]

    def cut_off(self, item: Any) -> float:
        """The share of a caption's tokens that `longest` cuts off; 0 where the tokenizer doesn't tell."""
        caption = item["caption"]
        length = len(self.encode(caption))
        if length < self.longest or not hasattr(self.tokenizer, "pad_token_id"):
            return 0.0
        return 1 - length / len(self.tokenizer(caption, truncation=False, verbose=False)["input_ids"])

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
        """sha256 of picture, label and the caption as it reads."""
        image, label = torch.as_tensor(item["image"], dtype=torch.float32), int(item.get("label", UNKNOWN))
        return digest((image, plain(item["caption"]), label))

    def normalised(self, images: Tensor) -> Tensor:
        """The images with the channels' means subtracted, divided by their deviations; as they are without any."""
        if not self.mean:
            return images
        shape = (-1, 1, 1)
        return (images - images.new_tensor(self.mean).view(shape)) / images.new_tensor(self.std).view(shape)

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """The rows of the same view."""
        return self.view(model, batch).rows

    def encoded_prompts(self, model: nn.Module) -> Tensor:
        """A unit vector for each class `[classes, d]`, of what its prompt becomes."""
        encoded = [self.encode(self.prompt.replace("{}", name)) for name in self.classes]
        device = next(model.parameters()).device
        tokens, mask = (part.to(device) for part in self.padded(encoded))
        return dual_encoder.texts(model, tokens, mask)

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

    def labels(self, examples: Examples) -> Tensor:
        """The label of each pair `[n]`, -1 where it has none."""
        return torch.tensor([int(item.get("label", UNKNOWN)) for item in iterate(examples)])

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """There is none: logits are cosines."""
        name = type(self).__name__
        raise NotSupported(f"{name}: expected a model with a linear head, got a dual encoder, which has none.")

    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """Both towers' layers in turn, then their final norms and projections together."""
        return dual_encoder.blocks(model)

    def check(self, model: nn.Module, request: Request) -> None:
        """Pictures of one shape within bounds, captions that the model can read, labels that are classes, one width."""
        check_finite(model)
        limits, shape = dual_encoder.limits(model), pair(request.forget[0], "forget[0]")[0].shape
        for unknown in set(request.masked) - set(range(len(self.classes))):
            raise BadInput(f"Request: expected masked classes among {self.classes}, got {unknown}.")
        for name in self.classes:
            self._check_tokens(self.prompt.replace("{}", name), f"prompt of '{name}'", limits)
        looked_for = f"{self!r} {tuple(shape)} {limits}"
        if looked_for not in request.checked:
            for split, examples in request.sets.items():
                if len(examples) == 1:
                    raise BadInput(f"{split}: expected 2 pairs or more, each to be told from the others, got 1.")
                for i, item in request.to_check(split):
                    self._check_pair(item, f"{split}[{i}]", shape)
                    self._check_tokens(item["caption"], f"{split}[{i}]", limits)
            if request.kind == "class":
                labels = [set(self.labels(request[split]).tolist()) for split in SPLITS[:3]]
                check_class_request(request, *labels[:2])
                check_class_holdout(request, labels[2])
        self._check_towers(model, [request.forget[0], request.retain[0]])
        request.checked.add(looked_for)

    def _check_tokens(self, caption: str, where: str, limits: dual_encoder.Limits) -> None:
        ids = self.encode(caption)
        if limits.context is not None and len(ids) > limits.context:
            raise BadInput(
                f"{where}: expected at most {limits.context} tokens (the model's context), got {len(ids)}. Set "
                f"longest={limits.context} to cut captions."
            )
        if limits.words is not None and max(ids, default=0) >= limits.words:
            raise BadInput(
                f"{where}: expected tokens below {limits.words} (the model's vocabulary), got {max(ids)}. Load the "
                "tokenizer that was saved with the model."
            )

    def _check_pair(self, item: object, where: str, shape: torch.Size) -> None:
        image, _, label = pair(item, where)
        low, high = self.bounds
        if image.shape != shape:
            raise BadInput(f"{where}: expected an image of shape {tuple(shape)}, got {tuple(image.shape)}.")
        if not bool(torch.isfinite(image).all()):
            raise BadInput(f"{where}: expected a finite image, got NaN or infinity. Remove the pair.")
        if float(image.min()) < low - 1e-6 or float(image.max()) > high + 1e-6:
            raise BadInput(
                f"{where}: expected an image within [{low:g}, {high:g}], got [{float(image.min()):.3g}, "
                f"{float(image.max()):.3g}]. Set mean and std on the task, and leave the image as it is."
            )
        if self.classes and label != UNKNOWN and not 0 <= label < len(self.classes):
            raise BadInput(f"{where}: expected a label in 0..{len(self.classes) - 1} (the classes), got {label}.")

    def _check_towers(self, model: nn.Module, items: Sequence[object]) -> None:
        """A small pass: what the towers accept, and whether their vectors are equally long."""
        batch = {name: v.to(next(model.parameters()).device) for name, v in self.collate(items).items()}
        with mode(model, training=False), torch.no_grad():
            try:
                first = dual_encoder.pictures(model, self.normalised(batch["images"]))
                second = dual_encoder.texts(model, batch["tokens"], batch["mask"])
            except (AssertionError, RuntimeError, ValueError, IndexError, TypeError) as error:
                if out_of_memory(error):
                    raise
                line = (str(error).splitlines() or [type(error).__name__])[0]
                shapes = f"{tuple(batch['images'].shape)} and tokens {tuple(batch['tokens'].shape)}"
                raise BadInput(f"model: expected to accept images {shapes}, got: {line}") from error
        if first.shape != second.shape:
            raise BadInput(
                f"model: expected both encoders to give vectors of one width, got {first.shape[-1]} for images and "
                f"{second.shape[-1]} for captions. Project both to the same width."
            )


def pair(item: Any, where: str) -> tuple[Tensor, str, int]:
    """An example's picture, caption and label; BadInput says what is missing from which one."""
    if not isinstance(item, Mapping):
        raise BadInput(f"{where}: expected a mapping with 'image' and 'caption', got {type(item).__name__}.")
    caption = item.get("caption")
    if not isinstance(caption, str) or not readable(caption):
        raise BadInput(f"{where}: expected a caption, got {caption!r:.60}. Remove the pair, or give it one.")
    try:
        image = torch.as_tensor(item.get("image"), dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        image = torch.empty(0)
    if image.ndim != 3 or not image.numel():
        actual = f"shape {tuple(image.shape)}" if image.numel() else type(item.get("image")).__name__
        raise BadInput(f"{where}: expected image to be a tensor [channels, height, width], got {actual}.")
    label = item.get("label", UNKNOWN)
    if isinstance(label, bool) or not isinstance(label, int):
        raise BadInput(f"{where}: expected label to be a whole number, got {label!r:.60}.")
    return image, caption, label
