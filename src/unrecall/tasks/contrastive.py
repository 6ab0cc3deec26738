"""Image-text models: two encoders that are trained to tell which caption belongs to which picture."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.examples import Examples, iterate
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, NotSupported
from unrecall.nn.hooks import mode
from unrecall.tasks import dual_encoder
from unrecall.tasks.base import Task
from unrecall.tasks.pairs import Pairs
from unrecall.tasks.pretrained import PREPARATION, check_tokenizer, normalisation, preparation, save
from unrecall.tasks.processors import check_same_preparation
from unrecall.tasks.protocols import Embedded
from unrecall.tasks.zero_shot import ZeroShot

SIDES = 256
"""Pairs whose two sides are encoded at once where nothing compares them yet."""


@dataclass(frozen=True, repr=False)
class Contrastive(Pairs):
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

    at_once: ClassVar[int] = 32
    rows_depend_on_batch: ClassVar[bool] = True

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Two rows an example: its picture among the captions, its caption among the pictures.

        Features are both unit vectors of a pair, one after the other.
        """
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
        return ZeroShot(**{field.name: getattr(self, field.name) for field in fields(Pairs)})

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
            return self.encoded_prompts(model) if self.classes else None

    def endings(self, model: nn.Module, batch: Batch) -> list[nn.Module]:
        """The projections of both towers."""
        return dual_encoder.endings(model)

    def export(self, model: nn.Module, folder: Path) -> None:
        """Configuration, safetensors, tokenizer and how pictures are prepared, as Transformers' CLIP is read.

        Of other models nothing is written: their weights are all there is.
        """
        if not hasattr(model, "save_pretrained"):
            return
        if self.processor is not None:
            save(model, self.tokenizer, folder, {PREPARATION[0]: self.processor.to_json_string()})
            return
        config: Any = model.config
        size = int(config.vision_config.image_size)
        preparation: dict[str, object] = {"image_processor_type": "CLIPImageProcessor", "do_normalize": bool(self.mean)}
        preparation |= {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
        if self.mean:
            preparation |= {"image_mean": self.mean, "image_std": self.std}
        save(model, self.tokenizer, folder, {PREPARATION[0]: json.dumps(preparation, indent=1)})

    def check_folder(self, folder: Path, examples: Examples) -> None:
        """BadInput where the folder's tokenizer reads captions otherwise, or its pictures are prepared otherwise.

        Of a task without a mean, whose pictures come as the model wants them, the second isn't asked.
        """
        check_tokenizer(self.tokenizer, folder, [str(item["caption"]) for item in iterate(examples)])
        if self.processor is not None:
            check_same_preparation(self.processor, folder)
        theirs = normalisation(folder)
        if self.mean and preparation(folder) and theirs != (tuple(self.mean), tuple(self.std)):
            raise BadInput(
                f"{folder}: expected pictures normalised as the original's, by {self.mean} and {self.std}, got "
                f"{theirs[0]} and {theirs[1]}. Pictures are prepared as the original's: correct the folder's settings."
            )
