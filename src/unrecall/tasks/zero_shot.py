"""Zero-shot classification: an image-text model that is asked which of a few prompts a picture belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unrecall.data.examples import Batch
from unrecall.data.request import Request
from unrecall.data.signals import Rows, View
from unrecall.errors import NotSupported
from unrecall.record.schema import Exhibit
from unrecall.tasks import dual_encoder
from unrecall.tasks.base import Modality, Task
from unrecall.tasks.pairs import Pairs


@dataclass(frozen=True)
class ZeroShot(Task):
    """The pairs of a contrastive task by their label alone; a row's classes are the prompts, as the model reads them.

    logits[i, c] = scale cos(v_i, t_c),    t_c of prompt c under the same weights; the target is the label
    """

    modality: ClassVar[Modality] = "classification"

    pairs: Pairs

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that stand in the prompts."""
        return self.pairs.classes

    @property
    def bounds(self) -> tuple[float, float]:
        """The range that pixels live in."""
        return self.pairs.bounds

    def classified(self) -> Task:
        """The task itself: a row is an example already."""
        return self

    def collate(self, items: Sequence[Any]) -> Batch:
        """The batch that the contrastive task makes of the same pairs."""
        return self.pairs.collate(items)

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One row an example."""
        return self.view(model, batch).rows

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are the picture's unit vector. NotSupported where a pair has no label."""
        if bool(batch["labels"].lt(0).any()):
            raise NotSupported(
                "ZeroShot: expected every pair to have a label, got one without. Label it, or leave it out."
            )
        pictures = dual_encoder.pictures(model, self.pairs.normalised(batch["images"]))
        logits = (dual_encoder.unwrapped(model).logit_scale.exp() * pictures @ self.prompts(model).T).float()
        n = len(logits)
        return View(Rows(logits, batch["labels"], torch.arange(n, device=logits.device), n), pictures)

    def prompts(self, model: nn.Module) -> Tensor:
        """A unit vector for each class, `[classes, d]`."""
        encoded = [self.pairs.encode(self.pairs.prompt.replace("{}", name)) for name in self.classes]
        device = next(model.parameters()).device
        tokens, mask = (part.to(device) for part in self.pairs.padded(encoded))
        return dual_encoder.texts(model, tokens, mask)

    def inputs(self, batch: Batch) -> Tensor:
        """The pictures."""
        return self.pairs.inputs(batch)

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same labels with other pictures."""
        return self.pairs.with_inputs(batch, inputs)

    def items(self, batch: Batch) -> list[Any]:
        """The pairs of a batch."""
        return self.pairs.items(batch)

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """There is none: the prompts are the classes' weights, and they are texts."""
        raise NotSupported("ZeroShot: expected a model with a linear head, got a dual encoder, which has none.")

    def endings(self, model: nn.Module, batch: Batch) -> list[nn.Module]:
        """The last module of the tower for pictures."""
        return dual_encoder.endings(model)[:1]

    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """The blocks of the dual encoder."""
        return dual_encoder.blocks(model)

    def check(self, model: nn.Module, request: Request) -> None:
        """The contrastive task's own check covers it."""
        if isinstance(self.pairs, Task):
            self.pairs.check(model, request)

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """The picture over its caption."""
        return self.pairs.exhibit(item, caption)

    def raw(self, item: Any) -> bytes:
        """The picture's and the caption's bytes."""
        return self.pairs.raw(item)
