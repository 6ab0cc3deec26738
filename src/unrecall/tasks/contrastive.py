"""Image-text models: two encoders that are trained to tell which caption belongs to which picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unrecall.data.examples import Batch, Examples, iterate
from unrecall.data.request import SPLITS, Request
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, NotSupported
from unrecall.nn.hooks import mode
from unrecall.tasks import dual_encoder
from unrecall.tasks.base import Modality, Task, check_class_request, check_finite
from unrecall.tasks.pairs import UNKNOWN, Pairs, pair
from unrecall.tasks.pretrained import save
from unrecall.tasks.protocols import Embedded
from unrecall.tasks.zero_shot import ZeroShot

SIDES = 256
"""Pairs whose two sides are encoded at once where nothing compares them yet."""


@dataclass(frozen=True, repr=False)
class Contrastive(Pairs, Task):
    """What `Pairs` says of examples and batches; rows are pairs in both directions, against the batch's other pairs.

        logits[2i, j] = scale cos(v_i, t_j),    logits[2i + 1, j] = scale cos(v_j, t_i),    the target of both is i

    v of the picture, t of the caption; the mean loss over an example's two rows, over a batch, is CLIP's. A row depends
    on its batch: outside training, batches are made in order and of equal size (32, or all where there are fewer), so
    that an example is one of 32 in every set and for every model; what a set looks like counts, for pairs of one kind
    are harder to tell apart. Where two pairs of a batch have the same caption, only one of them can be right. Over
    several processes a batch is divided, and each compares its own part.

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
    arXiv 2103.00020.
    """

    modality: ClassVar[Modality] = "contrastive"
    at_once: ClassVar[int] = 32
    rows_depend_on_batch: ClassVar[bool] = True

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """Two rows an example: its picture among the captions, its caption among the pictures."""
        return self.view(model, batch).rows

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are both unit vectors of a pair, one after the other."""
        vectors = dual_encoder.encoded(model, self.normalised(batch["images"]), batch["tokens"], batch["mask"])
        logits = (vectors.scale * vectors.pictures @ vectors.texts.T).float()
        n = len(logits)
        index = torch.arange(n, device=logits.device).repeat_interleave(2)
        both = torch.stack((logits, logits.T), 1).flatten(0, 1)
        return View(Rows(both, index, index, n), torch.cat((vectors.pictures, vectors.texts), 1))

    def cosines(self, model: nn.Module, batch: Batch) -> Tensor:
        """cos(v_i, t_i) of each pair."""
        vectors = dual_encoder.encoded(model, self.normalised(batch["images"]), batch["tokens"], batch["mask"])
        return (vectors.pictures * vectors.texts).sum(1).float()

    def positions(self, batch: Batch) -> Tensor:
        """The captions' tokens without padding; pictures have none."""
        return batch["mask"].bool()

    def classified(self) -> Task:
        """Zero-shot classification by the prompts; NotSupported without classes."""
        if not self.classes:
            raise NotSupported("Contrastive: expected the classes' names, got none. Set classes=(...).")
        return ZeroShot(self)

    @torch.no_grad()
    def embedded(self, model: nn.Module, examples: Examples) -> Embedded:
        """Both sides of all pairs, in eval mode."""
        first, second = [], []
        device = next(model.parameters()).device
        with mode(model, training=False):
            for start in range(0, len(examples), SIDES):
                batch = self.collate([examples[i] for i in range(start, min(len(examples), start + SIDES))])
                first.append(dual_encoder.pictures(model, self.normalised(batch["images"].to(device))))
                second.append(dual_encoder.texts(model, batch["tokens"].to(device), batch["mask"].to(device)))
        return Embedded(torch.cat(first), torch.cat(second))

    def sides(self, features: Tensor) -> Embedded:
        """The two unit vectors that the features of a pair put one after the other."""
        return Embedded(*features.chunk(2, 1))

    @torch.no_grad()
    def prompts(self, model: nn.Module) -> Tensor | None:
        """The prompts' unit vectors, in eval mode."""
        with mode(model, training=False):
            return ZeroShot(self).prompts(model) if self.classes else None

    def labels(self, examples: Examples) -> Tensor:
        """The label of each pair `[n]`, -1 where it has none."""
        return torch.tensor([int(item.get("label", UNKNOWN)) for item in iterate(examples)])

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """There is none: a pair's logits are cosines."""
        raise NotSupported("Contrastive: expected a model with a linear head, got a dual encoder, which has none.")

    def endings(self, model: nn.Module, batch: Batch) -> list[nn.Module]:
        """The projections of both towers."""
        return dual_encoder.endings(model)

    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """Both towers' layers in turn, then their final norms and projections together."""
        return dual_encoder.blocks(model)

    def export(self, model: nn.Module, folder: Path) -> None:
        """Configuration, safetensors, tokenizer and how pictures are prepared, as Transformers' CLIP is read.

        Of other models nothing is written: their weights are all there is.
        """
        if not hasattr(model, "save_pretrained"):
            return
        config: Any = model.config
        size = int(config.vision_config.image_size)
        preparation: dict[str, object] = {"image_processor_type": "CLIPImageProcessor", "do_normalize": bool(self.mean)}
        preparation |= {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
        if self.mean:
            preparation |= {"image_mean": self.mean, "image_std": self.std}
        save(model, self.tokenizer, folder, {"preprocessor_config.json": json.dumps(preparation, indent=1)})

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
            for split in SPLITS:
                if len(request[split]) == 1:
                    raise BadInput(f"{split}: expected 2 pairs or more, each to be told from the others, got 1.")
                for i, item in enumerate(iterate(request[split])):
                    self._check_pair(item, f"{split}[{i}]", shape)
                    self._check_tokens(item["caption"], f"{split}[{i}]", limits)
            if request.kind == "class":
                check_class_request(request, *(set(self.labels(request[split]).tolist()) for split in SPLITS[:2]))
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
                line = (str(error).splitlines() or [type(error).__name__])[0]
                shapes = f"{tuple(batch['images'].shape)} and tokens {tuple(batch['tokens'].shape)}"
                raise BadInput(f"model: expected to accept images {shapes}, got: {line}") from error
        if first.shape != second.shape:
            raise BadInput(
                f"model: expected both encoders to give vectors of one width, got {first.shape[-1]} for images and "
                f"{second.shape[-1]} for captions. Project both to the same width."
            )
